//! Tests of the watcher, in virtual time: the driver's part is a [`Cluster`] of nodes that reply or
//! do not.

use super::*;

/// The nodes that a watcher can reach, and the driver of the watcher.
struct Cluster {
    watcher: Watcher,
    now: Instant,
    /// Nodes whose speakers reply to UDP.
    replying: BTreeSet<&'static str>,
    /// Nodes whose kubelets reply to TCP.
    kubelets: BTreeSet<&'static str>,
    /// Duration of a probe of a kubelet that does not reply.
    probes: Vec<(Instant, Arc<str>)>,
    challenges: usize,
    report: Vec<WatchedNode>,
    /// Flags of the replies.
    flags: Flags,
    kube_proxy_works: bool,
}

const PROBE_TIME: Duration = Duration::from_millis(500);
const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            watcher: Watcher::new(1),
            now: Instant::from_millis(1_000),
            replying: NODES.into(),
            kubelets: NODES.into(),
            probes: Vec::new(),
            challenges: 0,
            report: Vec::new(),
            flags: Flags::default(),
            kube_proxy_works: false,
        };
        cluster.input(WatcherInput::Nodes(NODES.map(Arc::from).into()));
        cluster.run(2_000);
        cluster
    }

    fn input(&mut self, input: WatcherInput) {
        self.watcher.handle(input, self.now);
        self.drive();
    }

    fn contacts(&mut self, nodes: &[&str]) {
        self.input(WatcherInput::Contacts(nodes.iter().map(|node| Box::from(*node)).collect()));
    }

    fn drive(&mut self) {
        while let Some(output) = self.watcher.poll() {
            match output {
                WatcherOutput::Challenge { node, nonce, .. } => {
                    self.challenges += 1;
                    if self.replying.contains(&*node) {
                        let node = (*node).into();
                        let reply = WatcherInput::Reply { node, nonce, flags: self.flags };
                        self.watcher.handle(reply, self.now);
                    }
                }
                WatcherOutput::ProbeKubelet(node) if self.kubelets.contains(&*node) => {
                    let result = WatcherInput::KubeletProbed { node, replied: true };
                    self.watcher.handle(result, self.now);
                }
                WatcherOutput::ProbeKubelet(node) => {
                    self.probes.push((self.now + PROBE_TIME, node))
                }
                WatcherOutput::Report(report) => self.report = report,
                WatcherOutput::KubeProxyWorks(works) => self.kube_proxy_works = works,
            }
        }
    }

    /// Lets time pass, in milliseconds.
    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            self.watcher.tick(self.now);
            let now = self.now;
            for (_, node) in self.probes.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
                self.watcher.handle(WatcherInput::KubeletProbed { node, replied: false }, now);
            }
            self.drive();
        }
    }

    fn power_off(&mut self, node: &'static str) {
        self.replying.remove(node);
        self.kubelets.remove(node);
    }

    fn state(&self, node: &str) -> Option<WatchedNodeState> {
        self.report.iter().find(|watched| watched.node == node).map(|watched| watched.state)
    }
}

#[test]
fn three_nodes_are_watched_and_a_failed_one_is_silent_within_a_second() {
    let mut cluster = Cluster::new();
    let names: Vec<_> = cluster.report.iter().map(|watched| &*watched.node).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies));
    cluster.power_off("b");
    let off = cluster.now;
    while cluster.state("b") != Some(WatchedNodeState::Silent) {
        cluster.run(1);
        assert!(cluster.now.since(off) < Duration::from_millis(1_200), "{:?}", cluster.report);
    }
    assert_eq!(cluster.state("a"), Some(WatchedNodeState::Replies));
    cluster.replying.insert("b");
    cluster.run(500);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies));
}

#[test]
fn a_kube_proxy_works_elsewhere_until_its_node_reports_otherwise_or_is_silent() {
    let mut cluster = Cluster::new();
    let healthy = Flags { health_checked: true, ..Flags::default() };
    let ends: [fn(&mut Cluster); 2] = [|it| it.flags = Flags::default(), |it| it.replying.clear()];
    for end in ends {
        assert!(!cluster.kube_proxy_works);
        cluster.flags = healthy;
        cluster.run(1_000);
        assert!(cluster.kube_proxy_works);
        end(&mut cluster);
        cluster.run(2_000);
    }
    assert!(!cluster.kube_proxy_works);
}

#[test]
fn a_contact_on_an_interface_speeds_up_detection_and_prevents_a_wrong_one() {
    let mut cluster = Cluster::new();
    cluster.contacts(&["a", "b"]);
    cluster.power_off("b");
    cluster.run(5_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies), "its hellos still arrive");
    cluster.contacts(&["a"]);
    let lost = cluster.now;
    while cluster.state("b") != Some(WatchedNodeState::Silent) {
        cluster.run(1);
        assert!(cluster.now.since(lost) <= PROBE_TIME + Duration::from_millis(1));
    }
    cluster.contacts(&["a", "b"]);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies));
}

#[test]
fn a_node_whose_kubelet_replies_is_not_silent() {
    let mut cluster = Cluster::new();
    cluster.replying.remove("b");
    cluster.run(5_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::SpeakerSilent));
    cluster.kubelets.remove("b");
    cluster.run(2_600);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Silent), "the node fails later");
}

/// Loses the next probe of the kubelet of `b`.
fn lose_a_probe(cluster: &mut Cluster) {
    cluster.kubelets.remove("b");
    while !cluster.probes.iter().any(|(_, node)| **node == *"b") {
        cluster.run(1);
    }
    cluster.kubelets.insert("b");
}

#[test]
fn one_lost_probe_of_a_kubelet_proves_nothing() {
    let mut cluster = Cluster::new();
    lose_a_probe(&mut cluster);
    cluster.run(1_000);
    cluster.replying.remove("b");
    cluster.run(2_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::SpeakerSilent));
    lose_a_probe(&mut cluster);
    for _ in 0..1_000 {
        cluster.run(1);
        assert_eq!(cluster.state("b"), Some(WatchedNodeState::SpeakerSilent));
    }
    let mut cluster = Cluster::new();
    lose_a_probe(&mut cluster);
    cluster.run(1_000);
    cluster.power_off("b");
    cluster.run(1_200);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Silent), "its kubelet was reachable");
}

#[test]
fn a_kubelet_that_was_never_reached_proves_nothing() {
    let mut cluster = Cluster::new();
    cluster.kubelets.remove("b");
    cluster.run(120_000);
    cluster.replying.remove("b");
    cluster.run(5_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Unknown));
}

#[test]
fn a_speaker_that_announces_that_it_stops_is_not_silent() {
    let mut cluster = Cluster::new();
    let nonce = cluster.watcher.watched["b"].replied_nonce;
    let flags = Flags { leaving: true, ..Flags::default() };
    let leaving = |nonce| WatcherInput::Reply { node: "b".into(), nonce, flags };
    cluster.input(leaving(nonce ^ 1));
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies), "the nonce is unknown");
    cluster.input(leaving(nonce));
    cluster.replying.remove("b");
    let silent = |cluster: &Cluster| cluster.report.iter().any(|it| it.node == "b" && it.silent);
    cluster.run(20_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Leaving));
    assert!(!silent(&cluster), "its kubelet replies");
    cluster.power_off("b");
    cluster.run(3_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Leaving));
    assert!(silent(&cluster), "nothing on the node replies");
    (cluster.replying, cluster.kubelets) = (NODES.into(), NODES.into());
    cluster.run(1_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies));
    assert!(!silent(&cluster));
}

#[test]
fn one_lost_challenge_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.replying.remove("b");
    let before = cluster.challenges;
    while cluster.challenges < before + 5 {
        cluster.run(1);
    }
    cluster.replying.insert("b");
    cluster.run(1_000);
    assert_eq!(cluster.state("b"), Some(WatchedNodeState::Replies));
    assert_eq!(cluster.watcher.watched["b"].missed, 0);
}

#[test]
fn a_watcher_that_stood_still_reports_nothing() {
    let mut cluster = Cluster::new();
    cluster.now = cluster.now + Duration::from_secs(100);
    cluster.run(3_000);
    assert!(cluster.report.iter().all(|it| it.state == WatchedNodeState::Replies));
}

#[test]
fn nodes_without_a_speaker_are_skipped_and_tried_again() {
    let mut cluster = Cluster::new();
    (cluster.watcher, cluster.report) = (Watcher::new(2), Vec::new());
    cluster.replying = ["d", "e"].into();
    cluster.input(WatcherInput::Nodes(NODES.map(Arc::from).into()));
    cluster.run(10_000);
    let names = |cluster: &Cluster| -> Vec<String> {
        cluster.report.iter().map(|watched| watched.node.clone()).collect()
    };
    assert_eq!(names(&cluster), ["d", "e"]);
    cluster.replying.insert("a");
    cluster.run(70_000);
    assert_eq!(names(&cluster), ["a", "d", "e"]);
    cluster.power_off("d");
    cluster.run(700_000);
    assert_eq!(names(&cluster), ["a", "e"], "a node that is silent for long is forgotten");
}

#[test]
fn a_deleted_node_is_not_watched() {
    let mut cluster = Cluster::new();
    cluster.input(WatcherInput::Nodes(vec!["c".into()]));
    assert_eq!(cluster.report.len(), 1);
    cluster.input(WatcherInput::Nodes(Vec::new()));
    assert_eq!((cluster.report.len(), cluster.watcher.deadline()), (0, None));
}

#[test]
fn each_watched_node_costs_two_challenges_a_second() {
    let mut cluster = Cluster::new();
    let before = cluster.challenges;
    cluster.run(60_000);
    let sent = cluster.challenges - before;
    assert!((350..=370).contains(&sent), "{sent} challenges in 60 s");
}
