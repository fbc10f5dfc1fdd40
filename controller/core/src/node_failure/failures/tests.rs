//! Tests of the failures, in virtual time.

use super::*;

const NODES: [&str; 3] = ["a", "b", "c"];

struct Controller {
    failures: Failures,
    now: Instant,
    nodes: BTreeMap<Box<str>, bool>,
    /// Actions that were executed, with the time since the start in milliseconds.
    executed: Vec<(u64, ActionKind)>,
    result: ActionResult,
    outputs: Vec<FailuresOutput>,
}

impl Controller {
    fn new(nodes: &[&str]) -> Self {
        Self {
            failures: Failures::default(),
            now: Instant::ZERO,
            nodes: nodes.iter().map(|node| (Box::from(*node), true)).collect(),
            executed: Vec::new(),
            result: ActionResult::Done,
            outputs: Vec::new(),
        }
    }

    /// Reports these nodes as silent, and all others as replying.
    fn silent(&mut self, silent: &[&str]) {
        self.silent_with(silent, Confirmation::Complete);
    }

    fn silent_with(&mut self, silent: &[&str], confirmation: Confirmation) {
        let silent: BTreeMap<_, _> =
            silent.iter().map(|node| (Box::from(*node), confirmation)).collect();
        let others = self.nodes.keys().filter(|node| !silent.contains_key(*node));
        let replying = others.cloned().collect();
        let suspected = silent.keys().cloned().collect();
        self.report(Evidence { suspected, silent, replying, ..Evidence::default() });
    }

    fn report(&mut self, evidence: Evidence) {
        let nodes = self.nodes.clone();
        self.failures.handle(FailuresInput::Evidence { evidence, nodes }, self.now);
        self.drive();
    }

    fn drive(&mut self) {
        while let Some(output) = self.failures.poll() {
            self.outputs.push(output);
        }
        loop {
            let next = self.failures.actions().next();
            let Some(action) = next else { break };
            self.executed.push((self.now.as_nanos() / 1_000_000, action.kind));
            let (attempt, result) = (action.attempt, self.result);
            self.failures.handle(FailuresInput::Ended { attempt, result }, self.now);
        }
        while let Some(output) = self.failures.poll() {
            self.outputs.push(output);
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(at) = self.failures.deadline().filter(|at| *at <= end) {
            assert!(at > self.now, "the deadline is in the past: {:?}", self.failures);
            self.now = at;
            self.failures.tick(at);
            self.drive();
        }
        self.now = end;
    }
}

#[test]
fn the_pods_of_a_silent_node_are_marked_once_and_restored_late() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b"]);
    controller.run(149);
    assert_eq!(controller.executed, [], "the evidence must hold for a while");
    controller.run(1);
    assert_eq!(controller.executed, [(150, ActionKind::Mark)]);
    assert_eq!(controller.outputs, [FailuresOutput::Failed("b".into())]);
    controller.silent(&["b"]);
    controller.run(40_000);
    controller.silent(&[]);
    assert_eq!(controller.outputs[1..], [FailuresOutput::Returned("b".into())]);
    controller.run(29_999);
    assert_eq!(controller.executed.len(), 1);
    controller.run(1);
    assert_eq!(controller.executed[1..], [(70_150, ActionKind::Restore)]);
    controller.run(1);
    assert!(controller.failures.is_idle());
}

#[test]
fn contradicted_reports_prevent_marks_for_a_moment_only() {
    let set = |nodes: &[&str]| nodes.iter().map(|node| Box::from(*node)).collect::<BTreeSet<_>>();
    let lies = |silent: &[&str], contradicted: &[&str]| Evidence {
        suspected: set(&[silent, contradicted].concat()),
        contradicted: set(contradicted),
        silent: silent.iter().map(|node| (Box::from(*node), Confirmation::Complete)).collect(),
        replying: BTreeSet::new(),
    };
    let mut controller = Controller::new(&["a", "b", "c", "d", "e"]);
    controller.report(lies(&[], &["b", "c"]));
    controller.run(9_000);
    // The reports may be the last ones of a large failure.
    controller.report(lies(&["d"], &["b", "c"]));
    controller.run(500);
    assert_eq!(controller.executed, []);
    // Two false reports that remain do not count. The failed node counts again after a while.
    controller.run(11_000);
    assert_eq!(controller.executed.len(), 1, "{:?}", controller.outputs);
    assert!(controller.outputs.contains(&FailuresOutput::Failed("d".into())));

    let mut controller = Controller::new(&["a", "b", "c", "d", "e"]);
    controller.report(lies(&[], &["b", "c"]));
    controller.run(11_000);
    controller.report(lies(&["d"], &["b", "c"]));
    controller.run(150);
    assert_eq!(controller.executed, [(11_150, ActionKind::Mark)]);
    controller.report(lies(&["d"], &["b"]));
    controller.report(lies(&["d"], &["b", "c"]));
    assert_eq!(controller.failures.contradicted["c"], Some(controller.now + RECOVERY_TIME));
}

#[test]
fn a_node_that_replies_in_time_is_not_marked() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b"]);
    controller.run(100);
    controller.silent(&[]);
    controller.run(1_000);
    assert!(controller.failures.is_idle() && controller.executed.is_empty());
}

#[test]
fn a_flapping_node_is_marked_once_a_minute() {
    let mut controller = Controller::new(&NODES);
    for _ in 0..150 {
        controller.silent(&["b"]);
        controller.run(1_000);
        controller.silent(&[]);
        controller.run(1_000);
    }
    let marks = controller.executed.iter().filter(|(_, kind)| *kind == ActionKind::Mark);
    assert_eq!(marks.count(), 5, "{:?}", controller.executed);
    controller.run(31_000);
    assert_eq!(controller.executed.last().map(|(_, kind)| *kind), Some(ActionKind::Restore));
}

#[test]
fn several_nodes_at_once_are_a_problem_of_the_network() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b", "c"]);
    controller.run(50_000);
    assert_eq!(controller.executed, []);
    let nodes = vec!["b".into(), "c".into()];
    assert_eq!(controller.outputs, [FailuresOutput::TooMany { nodes, limit: 1 }]);
    // Kubernetes has detected one failure itself.
    controller.nodes.insert("b".into(), false);
    controller.silent(&["b"]);
    controller.silent(&["b", "a"]);
    controller.run(1_000);
    assert_eq!(controller.executed.len(), 1, "a fails later, and b no longer counts");
}

#[test]
fn a_tenth_of_the_nodes_may_fail_at_once() {
    let names: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for (failing, marks) in [(4, 4), (5, 0)] {
        let mut controller = Controller::new(&names);
        controller.silent(&names[..failing]);
        controller.run(1_000);
        assert_eq!(controller.executed.len(), marks, "{failing} nodes fail");
    }
    let mut controller = Controller::new(&names);
    for failing in 1..10 {
        controller.silent(&names[..failing]);
        controller.run(1_000);
    }
    assert_eq!(controller.executed.len(), 4, "the fifth node that fails is one too many");
}

#[test]
fn in_a_cluster_of_two_the_controller_probes_the_kubelet() {
    let mut controller = Controller::new(&NODES[..2]);
    controller.silent_with(&["b"], Confirmation::ByController);
    controller.run(1_000);
    let kinds: Vec<_> = controller.executed.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [ActionKind::ProbeKubelet, ActionKind::Mark]);
    let mut controller = Controller::new(&NODES[..2]);
    controller.result = ActionResult::KubeletReplied;
    controller.silent_with(&["b"], Confirmation::ByController);
    controller.run(60_000);
    let marks = controller.executed.iter().filter(|(_, kind)| *kind == ActionKind::Mark);
    assert_eq!(marks.count(), 0, "the node runs: {:?}", controller.executed);
}

#[test]
fn a_node_that_shows_life_is_not_marked_again() {
    let mut controller = Controller::new(&NODES);
    controller.result = ActionResult::Failed;
    controller.silent(&["b"]);
    controller.run(1_000);
    assert_eq!(controller.executed.len(), 1);
    // Its speaker does not reply yet, but its kubelet replies.
    let (evidence, nodes) = (Evidence::default(), controller.nodes.clone());
    controller.failures.handle(FailuresInput::Evidence { evidence, nodes }, controller.now);
    controller.run(20_000);
    assert_eq!(controller.executed.len(), 1, "{:?}", controller.executed);
    assert_eq!(controller.failures.failed().collect::<Vec<_>>(), ["b"]);
}

/// Returns an input by which a speaker suspects b, and all other evidence holds or does not.
fn evidence_about_b(holds: bool) -> FailuresInput {
    let silent = holds.then_some(("b".into(), Confirmation::Complete));
    let evidence = Evidence {
        suspected: ["b".into()].into(),
        silent: silent.into_iter().collect(),
        ..Evidence::default()
    };
    FailuresInput::Evidence { evidence, nodes: NODES.map(|node| (node.into(), true)).into() }
}

fn attempt(failures: &Failures) -> Option<u64> {
    failures.actions().next().map(|action| action.attempt)
}

#[test]
fn a_mark_ends_with_its_evidence_and_continues_if_that_holds_again() {
    let mut failures = Failures::default();
    failures.handle(evidence_about_b(true), Instant::ZERO);
    failures.tick(Instant::from_millis(150));
    assert_eq!(attempt(&failures), Some(1));
    failures.handle(evidence_about_b(false), Instant::from_millis(200));
    assert_eq!(attempt(&failures), None, "it ends while requests are in progress");
    failures.handle(evidence_about_b(true), Instant::from_millis(250));
    // The driver may have sent the result meanwhile.
    let failed = FailuresInput::Ended { attempt: 1, result: ActionResult::Failed };
    failures.handle(failed, Instant::from_millis(251));
    failures.tick(Instant::from_millis(349));
    assert_eq!(attempt(&failures), None);
    failures.tick(Instant::from_millis(350));
    assert_eq!(attempt(&failures), Some(2));
    failures.handle(evidence_about_b(false), Instant::from_millis(400));
    failures.tick(Instant::from_millis(550));
    failures.handle(evidence_about_b(true), Instant::from_millis(551));
    failures.tick(Instant::from_millis(5_000));
    assert_eq!(attempt(&failures), None, "the evidence did not hold in time");
    assert_eq!(failures.failed().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn evidence_that_is_lost_again_and_again_does_not_mark_forever() {
    let (mut failures, mut now, mut attempts) = (Failures::default(), Instant::ZERO, 0);
    for _ in 0..100 {
        failures.handle(evidence_about_b(false), now);
        failures.handle(evidence_about_b(true), now);
        now = now + CONFIRMATION_TIME;
        failures.tick(now);
        attempts += failures.actions().count();
    }
    assert_eq!(attempts, ATTEMPTS_MAX as usize);
}

#[test]
fn failed_requests_are_repeated_a_few_times() {
    let mut controller = Controller::new(&NODES);
    controller.result = ActionResult::Failed;
    controller.silent(&["b"]);
    controller.run(60_000);
    assert_eq!(controller.executed.len(), ATTEMPTS_MAX as usize);
    assert_eq!(controller.executed[1].0, 1_150);
    controller.nodes.remove("b");
    controller.silent(&[]);
    assert!(controller.failures.is_idle(), "the Node was deleted");
}

#[test]
fn another_node_is_marked_when_the_pods_of_a_returned_one_are_ready() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b"]);
    controller.run(1_000);
    controller.silent(&[]);
    controller.run(1_000);
    controller.silent(&["c"]);
    controller.run(8_999);
    assert_eq!(controller.executed.len(), 1, "the pods of b may still be marked");
    controller.run(200);
    assert_eq!(controller.executed[1..], [(11_000, ActionKind::Mark)]);
    let returned = |output: &&FailuresOutput| matches!(output, FailuresOutput::TooMany { .. });
    assert_eq!(controller.outputs.iter().find(returned), None, "the network has not failed");
}

#[test]
fn an_ignored_node_counts_again_when_the_network_has_worked_for_a_while() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b", "c"]);
    controller.run(5_000);
    controller.silent(&["b"]);
    controller.run(9_999);
    assert_eq!(controller.executed, []);
    controller.silent(&["b", "c"]);
    controller.run(5_000);
    controller.silent(&["b"]);
    controller.run(10_149);
    assert_eq!(controller.executed, []);
    controller.run(1);
    assert_eq!(controller.executed, [(30_149, ActionKind::Mark)]);
}

#[test]
fn a_node_that_returns_without_a_speaker_does_not_count_any_more() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b"]);
    controller.run(1_000);
    controller.nodes.insert("b".into(), false);
    controller.silent(&["b"]);
    controller.run(700_000);
    assert_eq!(controller.failures.failed().collect::<Vec<_>>(), ["b"]);
    controller.nodes.insert("b".into(), true);
    let (evidence, nodes) = (Evidence::default(), controller.nodes.clone());
    controller.failures.handle(FailuresInput::Evidence { evidence, nodes }, controller.now);
    controller.drive();
    assert_eq!(controller.failures.failed().next(), None);
    assert_eq!(controller.outputs[1..], [FailuresOutput::Returned("b".into())]);
    assert!(controller.failures.is_idle(), "{:?}", controller.failures);
}

#[test]
fn pods_are_restored_only_after_30_s_of_replies_without_a_break() {
    let mut controller = Controller::new(&NODES);
    controller.silent(&["b"]);
    controller.run(1_000);
    controller.silent(&[]);
    controller.run(5_000);
    controller.silent(&["b"]);
    controller.run(30_000);
    controller.silent(&[]);
    controller.run(29_999);
    assert_eq!(controller.executed.len(), 1);
    controller.run(1);
    assert_eq!(controller.executed[1..], [(66_000, ActionKind::Restore)]);
}
