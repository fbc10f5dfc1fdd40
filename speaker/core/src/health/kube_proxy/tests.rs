//! Tests of the monitor in virtual time: selected sequences of rounds, and a comparison of all
//! short sequences with a simple model.

mod expectation;

use super::*;
use KubeProxyState::{Healthy, NotChecked, Unhealthy, Unknown};

const BOTH_FAMILIES: Families = Families { v4: true, v6: true };
const ONLY_V4: Families = Families { v4: true, v6: false };
const SECOND: Duration = Duration::from_secs(1);
const GOOD_REPLY: LivezResult = replied(true, Some(true), Some(true));
const LATE_RULES: LivezResult = replied(false, Some(true), Some(false));
const NO_RULES_YET: LivezResult = replied(true, None, None);
const NODE_READY: KubeProxyContext = KubeProxyContext {
    ready: true,
    healthy_elsewhere: false,
    started_without_routes: false,
    needed: BOTH_FAMILIES,
};
const HEALTHY_ELSEWHERE: KubeProxyContext =
    KubeProxyContext { healthy_elsewhere: true, ..NODE_READY };
const NODE_NOT_READY: KubeProxyContext = KubeProxyContext { ready: false, ..NODE_READY };

const fn replied(live: bool, v4: Option<bool>, v6: Option<bool>) -> LivezResult {
    LivezResult::Replied { live, rules: Some(FamilyRules { v4, v6 }) }
}

fn timed_out() -> LivezResult {
    LivezResult::TimedOut("no response within 1000 ms".into())
}

fn failed(error: &str) -> LivezResult {
    LivezResult::Failed(error.into())
}

fn round(livez: LivezResult, node_port_healthy: Option<bool>) -> CheckRound {
    CheckRound {
        time: Timestamp::UNIX_EPOCH,
        server: "10.0.0.1:10256".parse().unwrap(),
        livez,
        eligible: Some(true),
        node_port_healthy,
    }
}

/// A monitor with its virtual time, the latest reported health, and the number of reports.
struct TestMonitor {
    monitor: KubeProxyMonitor,
    now: Instant,
    health: KubeProxyHealth,
    reports: usize,
}

impl TestMonitor {
    fn new(mode: KubeProxyMode, context: KubeProxyContext) -> Self {
        let monitor =
            KubeProxyMonitor::new(KubeProxyConfig { mode, fall: 2, rise: 3 }, Instant::ZERO);
        let mut test =
            Self { monitor, now: Instant::ZERO, health: KubeProxyHealth::default(), reports: 0 };
        test.poll_output();
        test.context(context);
        test
    }

    fn poll_output(&mut self) {
        while let Some(health) = self.monitor.poll() {
            assert_ne!(health, self.health, "each report differs from the previous one");
            self.health = health;
            self.reports += 1;
        }
    }

    fn context(&mut self, context: KubeProxyContext) {
        self.monitor.handle(KubeProxyInput::Context(context), self.now);
        self.poll_output();
    }

    /// Passes a round to the monitor, and advances the time by a second.
    fn run_round(&mut self, round: CheckRound) -> KubeProxyState {
        let time = Timestamp::from_nanosecond(self.now.as_nanos().into()).unwrap();
        let round = CheckRound { time, ..round };
        self.monitor.handle(KubeProxyInput::Round(round), self.now);
        self.poll_output();
        self.now = self.now + SECOND;
        while let Some(due) = self.monitor.deadline().filter(|due| *due <= self.now) {
            self.monitor.tick(due);
            assert_ne!(self.monitor.deadline(), Some(due), "a tick ends its deadline");
            self.poll_output();
        }
        self.health.state
    }

    fn livez(&mut self, livez: LivezResult) -> KubeProxyState {
        self.run_round(round(livez, None))
    }

    fn message(&self) -> &str {
        &self.health.message
    }
}

#[test]
fn each_round_has_the_expected_outcome() {
    let without_families = |live| LivezResult::Replied { live, rules: None };
    let cases = [
        (GOOD_REPLY, None, BOTH_FAMILIES, RoundOutcome::Good),
        (LATE_RULES, None, BOTH_FAMILIES, RoundOutcome::Bad),
        (LATE_RULES, None, ONLY_V4, RoundOutcome::Bad),
        (without_families(true), None, BOTH_FAMILIES, RoundOutcome::Good),
        (without_families(false), None, BOTH_FAMILIES, RoundOutcome::Bad),
        (replied(true, Some(true), None), None, ONLY_V4, RoundOutcome::Good),
        (replied(true, Some(true), None), None, BOTH_FAMILIES, RoundOutcome::Starting),
        (replied(true, Some(false), None), None, BOTH_FAMILIES, RoundOutcome::Bad),
        (replied(true, Some(true), Some(false)), None, ONLY_V4, RoundOutcome::Good),
        (NO_RULES_YET, None, BOTH_FAMILIES, RoundOutcome::Starting),
        (NO_RULES_YET, None, Families::default(), RoundOutcome::Good),
        (LivezResult::Refused, None, BOTH_FAMILIES, RoundOutcome::Refused),
        (LivezResult::Refused, Some(true), BOTH_FAMILIES, RoundOutcome::Good),
        (LivezResult::Refused, Some(false), BOTH_FAMILIES, RoundOutcome::Bad),
        (timed_out(), None, BOTH_FAMILIES, RoundOutcome::Timeout),
        (failed("not a reply of kube-proxy"), None, BOTH_FAMILIES, RoundOutcome::Bad),
    ];
    for (livez, node_port_healthy, needed, expect) in cases {
        let round = round(livez, node_port_healthy);
        assert_eq!(
            round.outcome(needed),
            expect,
            "the round is {round:?}, and the needed families are {needed:?}"
        );
    }
}

#[test]
fn two_bad_rounds_fail_and_three_good_rounds_recover() {
    for bad in [LATE_RULES, failed("not a reply of kube-proxy")] {
        let mut test = TestMonitor::new(KubeProxyMode::Auto, NODE_READY);
        let rounds = [
            (GOOD_REPLY, Healthy),
            (bad.clone(), Healthy),
            (GOOD_REPLY, Healthy),
            (bad.clone(), Healthy),
            (bad.clone(), Unhealthy),
            (GOOD_REPLY, Unhealthy),
            (GOOD_REPLY, Unhealthy),
            (bad.clone(), Unhealthy),
            (GOOD_REPLY, Unhealthy),
            (GOOD_REPLY, Unhealthy),
            (GOOD_REPLY, Healthy),
        ];
        for (i, (livez, expect)) in rounds.into_iter().enumerate() {
            assert_eq!(
                test.livez(livez),
                expect,
                "the bad reply is {bad:?}, and this is round {i}"
            );
            assert_eq!(
                (test.health.unhealthy(), test.health.checked()),
                (expect == Unhealthy, expect == Healthy)
            );
        }
    }
}

#[test]
fn a_restarted_kube_proxy_has_ten_seconds_to_make_its_rules() {
    let mut test = TestMonitor::new(KubeProxyMode::Auto, HEALTHY_ELSEWHERE);
    test.livez(GOOD_REPLY);
    for _ in 0..3 {
        for livez in [LivezResult::Refused, timed_out(), NO_RULES_YET] {
            for _ in 0..3 {
                assert_eq!(test.livez(livez.clone()), Healthy);
            }
        }
        test.livez(GOOD_REPLY);
    }
    for second in 0..=10 {
        let livez = match second {
            0..3 => LivezResult::Refused,
            3..6 => timed_out(),
            _ => replied(true, Some(true), None),
        };
        let expect = if second < 10 { Healthy } else { Unhealthy };
        assert_eq!(test.livez(livez), expect, "{second} s have passed");
    }
    assert!(
        test.message().contains("has no rules for IPv6 yet"),
        "the message is {:?}",
        test.message()
    );
    let mut mixed = TestMonitor::new(KubeProxyMode::Auto, NODE_READY);
    mixed.livez(GOOD_REPLY);
    mixed.livez(LATE_RULES);
    mixed.livez(LivezResult::Refused);
    assert_eq!(
        mixed.livez(LATE_RULES),
        Unhealthy,
        "a round in which no process listens is no good round"
    );
}

#[test]
fn a_health_check_node_port_replaces_a_missing_health_server() {
    let mut test = TestMonitor::new(KubeProxyMode::Auto, HEALTHY_ELSEWHERE);
    assert_eq!(test.run_round(round(LivezResult::Refused, Some(true))), Healthy);
    for node_port_healthy in [None, Some(true), None, Some(false), Some(true), Some(false)] {
        assert_eq!(test.run_round(round(LivezResult::Refused, node_port_healthy)), Healthy);
    }
    assert_eq!(test.run_round(round(LivezResult::Refused, Some(false))), Unhealthy);
    assert!(
        test.message().contains("health check node port"),
        "the message is {:?}",
        test.message()
    );
}

#[test]
fn the_state_is_unknown_before_the_node_is_ready_and_checked() {
    let cases = [
        (KubeProxyMode::Auto, false, NotChecked),
        (KubeProxyMode::Auto, true, Unhealthy),
        (KubeProxyMode::Required, false, Unhealthy),
        (KubeProxyMode::Required, true, Unhealthy),
    ];
    for (mode, elsewhere, expect) in cases {
        let mut ready =
            TestMonitor::new(mode, KubeProxyContext { healthy_elsewhere: elsewhere, ..NODE_READY });
        assert_eq!(
            (ready.health.state, ready.health.unhealthy()),
            (Unknown, true),
            "no round has ended yet"
        );
        assert!(!ready.message().is_empty());
        assert_eq!(ready.livez(LivezResult::Refused), expect);

        let waiting = KubeProxyContext { healthy_elsewhere: elsewhere, ..NODE_NOT_READY };
        let mut booting = TestMonitor::new(mode, waiting);
        assert_eq!(booting.livez(LivezResult::Refused), Unknown);
        booting.context(KubeProxyContext { ready: true, ..waiting });
        assert_eq!(booting.health.state, expect);
        booting.context(waiting);
        assert_eq!(
            booting.health.state, expect,
            "the state does not change if the Node is no longer Ready"
        );

        let mut never_ready = TestMonitor::new(mode, waiting);
        for second in 0..60 {
            let expect = if second < 59 { Unknown } else { expect };
            assert_eq!(
                never_ready.livez(LivezResult::Refused),
                expect,
                "the mode is {mode:?}, and this is round {}",
                second + 1
            );
        }
        let mut late = TestMonitor::new(mode, waiting);
        late.now = Instant::ZERO + STARTUP_MAX;
        assert_eq!(late.monitor.deadline(), None, "no round has ended yet");
        assert_eq!(late.livez(LivezResult::Refused), expect);
    }
    for mode in [KubeProxyMode::Auto, KubeProxyMode::Required] {
        let mut test = TestMonitor::new(mode, NODE_NOT_READY);
        assert_eq!(test.livez(LATE_RULES), Unknown);
        assert_eq!(
            test.livez(GOOD_REPLY),
            Healthy,
            "the first good round counts even if the Node is not Ready"
        );
    }
}

#[test]
fn mode_off_checks_nothing() {
    let test = TestMonitor::new(KubeProxyMode::Off, HEALTHY_ELSEWHERE);
    assert_eq!((test.health.state, test.monitor.deadline(), test.reports), (NotChecked, None, 1));
    assert!(test.message().contains("--kube-proxy-health"));
}

#[test]
fn ineligibility_ends_ten_seconds_after_its_last_report() {
    let mut test = TestMonitor::new(KubeProxyMode::Auto, NODE_READY);
    let mut run = |livez, eligible| {
        test.run_round(CheckRound { eligible, ..round(livez, None) });
        (test.health.ineligible, test.health.state)
    };
    assert_eq!(run(GOOD_REPLY, None), (false, Healthy));
    assert_eq!(run(GOOD_REPLY, Some(false)), (true, Healthy));
    assert_eq!(run(GOOD_REPLY, Some(true)), (false, Healthy));
    run(GOOD_REPLY, Some(false));
    for second in 0..=10 {
        let state = if second < 10 { Healthy } else { Unhealthy };
        assert_eq!(run(timed_out(), None), (second < 10, state), "{second} s have passed");
    }
}

#[test]
fn the_message_has_the_url_and_is_stable() {
    let mut test = TestMonitor::new(KubeProxyMode::Auto, NODE_READY);
    test.livez(GOOD_REPLY);
    assert_eq!(test.message(), "http://10.0.0.1:10256/livez reports a healthy kube-proxy");
    test.livez(LATE_RULES);
    test.livez(LATE_RULES);
    assert!(test.message().contains(
        "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late for IPv6"
    ));
    let reports = test.reports;
    for _ in 0..30 {
        test.livez(timed_out());
        test.livez(LATE_RULES);
    }
    test.livez(GOOD_REPLY);
    assert_eq!(
        test.reports, reports,
        "neither alternating reasons nor one good round change the message"
    );
    for _ in 0..30 {
        test.livez(timed_out());
    }
    assert_eq!(test.reports, reports + 1);
    assert!(
        test.message().contains("no response within 1000 ms: see the log of kube-proxy"),
        "the message is {:?}",
        test.message()
    );
    test.livez(GOOD_REPLY);
    test.now = test.now + UNREACHABLE_MAX;
    assert_eq!(
        (test.livez(GOOD_REPLY), test.reports),
        (Unhealthy, reports + 1),
        "the text of a good round does not explain an unhealthy state"
    );
}

/// Computes the expected state after a sequence of rounds, from all their results. `step` is the
/// time between two rounds.
fn expected_state(
    mode: KubeProxyMode,
    context: KubeProxyContext,
    sequence: &[LivezResult],
    step: Duration,
) -> KubeProxyState {
    let outcomes: Vec<_> =
        sequence.iter().map(|livez| round(livez.clone(), None).outcome(context.needed)).collect();
    let good = |outcome: &RoundOutcome| *outcome == RoundOutcome::Good;
    let Some(first_good) = outcomes.iter().position(good) else {
        let found = sequence.iter().any(|livez| matches!(livez, LivezResult::Replied { .. }));
        return match () {
            () if sequence.is_empty() || !context.ready => Unknown,
            () if mode == KubeProxyMode::Auto && !found && !context.healthy_elsewhere => NotChecked,
            () => Unhealthy,
        };
    };
    let (last, before) = outcomes.split_last().unwrap();
    let run_of_good = outcomes.iter().rev().take_while(|outcome| good(outcome)).count();
    let since_good: Vec<_> = outcomes.iter().rev().take_while(|outcome| !good(outcome)).collect();
    let bad = since_good.iter().filter(|outcome| ***outcome == RoundOutcome::Bad).count();
    let unavailable = since_good.iter().rposition(|outcome| **outcome != RoundOutcome::Bad);
    let unavailable_for = unavailable.map(|rounds| step * u32::try_from(rounds).unwrap());
    let fails = match last {
        RoundOutcome::Good => false,
        RoundOutcome::Bad => bad >= 2,
        RoundOutcome::Starting | RoundOutcome::Refused | RoundOutcome::Timeout => {
            unavailable_for.is_some_and(|time| time >= UNREACHABLE_MAX)
        }
    };
    match () {
        () if first_good == before.len() || run_of_good >= 3 => Healthy,
        () if fails => Unhealthy,
        () => expected_state(mode, context, &sequence[..before.len()], step),
    }
}

#[test]
fn every_short_sequence_matches_the_model() {
    let alphabet = [GOOD_REPLY, LATE_RULES, NO_RULES_YET, LivezResult::Refused, timed_out()];
    let mut sequences: Vec<Vec<usize>> = vec![Vec::new()];
    for length in 1..=6 {
        let longest: Vec<_> =
            sequences.iter().filter(|sequence| sequence.len() == length - 1).cloned().collect();
        sequences.extend(
            longest
                .iter()
                .flat_map(|sequence| (0..5).map(move |next| [&sequence[..], &[next]].concat())),
        );
    }
    let situations = [
        NODE_READY,
        HEALTHY_ELSEWHERE,
        NODE_NOT_READY,
        KubeProxyContext { ready: false, ..HEALTHY_ELSEWHERE },
    ];
    for step in [SECOND, 5 * SECOND] {
        for (mode, context) in [KubeProxyMode::Auto, KubeProxyMode::Required]
            .into_iter()
            .flat_map(|mode| situations.map(|s| (mode, s)))
        {
            for sequence in &sequences {
                let sequence: Vec<_> =
                    sequence.iter().map(|letter| alphabet[*letter].clone()).collect();
                let mut test = TestMonitor::new(mode, context);
                for (i, livez) in sequence.iter().enumerate() {
                    test.now = Instant::ZERO + step * u32::try_from(i).unwrap();
                    test.livez(livez.clone());
                }
                let expect = expected_state(mode, context, &sequence, step);
                assert_eq!(
                    test.health.state, expect,
                    "the mode is {mode:?}, the context {context:?}, the step {step:?}: {sequence:?}"
                );
            }
        }
    }
}
