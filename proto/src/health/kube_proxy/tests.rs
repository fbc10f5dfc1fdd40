//! The machine in virtual time: a script of rounds, and every short script against a slow model.

use super::*;
use KubeProxyState::{Healthy, NotChecked, Unhealthy, Unknown};

const BOTH: Families = Families { v4: true, v6: true };
const V4: Families = Families { v4: true, v6: false };
const SECOND: Duration = Duration::from_secs(1);
const GOOD: LivezResult = answered(true, Some(true), Some(true));
const LATE: LivezResult = answered(false, Some(true), Some(false));
const STARTING: LivezResult = answered(true, None, None);
const READY: KubeProxyContext = KubeProxyContext {
    ready: true,
    healthy_elsewhere: false,
    started_without_routes: false,
    needed: BOTH,
};
const ELSEWHERE: KubeProxyContext = KubeProxyContext { healthy_elsewhere: true, ..READY };
const WAITING: KubeProxyContext = KubeProxyContext { ready: false, ..READY };

const fn answered(live: bool, v4: Option<bool>, v6: Option<bool>) -> LivezResult {
    LivezResult::Replied { live, rules: Some(FamilyRules { v4, v6 }) }
}

fn failed(why: &str) -> LivezResult {
    LivezResult::Failed(why.into())
}

fn round(livez: LivezResult, witness: Option<bool>) -> CheckRound {
    CheckRound {
        server: "10.0.0.1:10256".parse().unwrap(),
        livez,
        eligible: Some(true),
        node_port_healthy: witness,
    }
}

/// A machine, its time, and its last judgement.
struct KubeProxyBench {
    path: KubeProxyMonitor,
    now: Instant,
    said: KubeProxyHealth,
    words: usize,
}

impl KubeProxyBench {
    fn new(mode: KubeProxyMode, situation: KubeProxyContext) -> Self {
        let path = KubeProxyMonitor::new(KubeProxyConfig { mode, fall: 2, rise: 3 }, Instant::ZERO);
        let mut bench =
            Self { path, now: Instant::ZERO, said: KubeProxyHealth::default(), words: 0 };
        bench.poll_output();
        bench.situation(situation);
        bench
    }

    fn poll_output(&mut self) {
        while let Some(judgement) = self.path.poll() {
            assert_ne!(judgement, self.said, "nothing is said twice");
            self.said = judgement;
            self.words += 1;
        }
    }

    fn situation(&mut self, situation: KubeProxyContext) {
        self.path.handle(KubeProxyInput::Situation(situation), self.now);
        self.poll_output();
    }

    /// Handles a round, and advances the time by a second.
    fn run_round(&mut self, round: CheckRound) -> KubeProxyState {
        self.path.handle(KubeProxyInput::Round(round), self.now);
        self.poll_output();
        self.now = self.now + SECOND;
        while let Some(due) = self.path.deadline().filter(|due| *due <= self.now) {
            self.path.tick(due);
            assert_ne!(self.path.deadline(), Some(due), "a deadline that has passed is over");
            self.poll_output();
        }
        self.said.state
    }

    fn livez(&mut self, livez: LivezResult) -> KubeProxyState {
        self.run_round(round(livez, None))
    }

    fn message(&self) -> &str {
        &self.said.message
    }
}

#[test]
fn what_a_round_is_worth() {
    let old = |live| LivezResult::Replied { live, rules: None };
    let cases = [
        (GOOD, None, BOTH, RoundOutcome::Good),
        (LATE, None, BOTH, RoundOutcome::Bad),
        (LATE, None, V4, RoundOutcome::Bad),
        (old(true), None, BOTH, RoundOutcome::Good),
        (old(false), None, BOTH, RoundOutcome::Bad),
        (answered(true, Some(true), None), None, V4, RoundOutcome::Good),
        (answered(true, Some(true), None), None, BOTH, RoundOutcome::Starting),
        (answered(true, Some(false), None), None, BOTH, RoundOutcome::Bad),
        (answered(true, Some(true), Some(false)), None, V4, RoundOutcome::Good),
        (STARTING, None, BOTH, RoundOutcome::Starting),
        (STARTING, None, Families::default(), RoundOutcome::Good),
        (LivezResult::Refused, None, BOTH, RoundOutcome::Refused),
        (LivezResult::Refused, Some(true), BOTH, RoundOutcome::Good),
        (LivezResult::Refused, Some(false), BOTH, RoundOutcome::Bad),
        (failed("no answer within 1000 ms"), None, BOTH, RoundOutcome::Bad),
    ];
    for (livez, witness, needed, expect) in cases {
        let round = round(livez, witness);
        assert_eq!(round.outcome(needed), expect, "{round:?} {needed:?}");
    }
}

#[test]
fn a_healthy_path_falls_after_two_bad_rounds_and_rises_after_three_good_ones() {
    for bad in [LATE, failed("no answer within 1000 ms"), failed("not an answer of kube-proxy")] {
        let mut bench = KubeProxyBench::new(KubeProxyMode::Auto, READY);
        let rounds = [
            (GOOD, Healthy),
            (bad.clone(), Healthy),
            (GOOD, Healthy),
            (bad.clone(), Healthy),
            (bad.clone(), Unhealthy),
            (GOOD, Unhealthy),
            (GOOD, Unhealthy),
            (bad.clone(), Unhealthy),
            (GOOD, Unhealthy),
            (GOOD, Unhealthy),
            (GOOD, Healthy),
        ];
        for (i, (livez, expect)) in rounds.into_iter().enumerate() {
            assert_eq!(bench.livez(livez), expect, "{bad:?}, round {i}");
            assert_eq!(
                (bench.said.unhealthy(), bench.said.checked()),
                (expect == Unhealthy, expect == Healthy)
            );
        }
    }
}

#[test]
fn a_kube_proxy_that_is_restarted_has_ten_seconds_until_its_rules_are_made() {
    let mut bench = KubeProxyBench::new(KubeProxyMode::Auto, ELSEWHERE);
    bench.livez(GOOD);
    for _ in 0..3 {
        for livez in [LivezResult::Refused, STARTING] {
            for _ in 0..4 {
                assert_eq!(bench.livez(livez.clone()), Healthy);
            }
        }
        bench.livez(GOOD);
    }
    for second in 0..=10 {
        let livez =
            if second < 5 { LivezResult::Refused } else { answered(true, Some(true), None) };
        let expect = if second < 10 { Healthy } else { Unhealthy };
        assert_eq!(bench.livez(livez), expect, "second {second}");
    }
    assert!(bench.message().contains("has no rules for IPv6 yet"), "{}", bench.message());
    let mut mixed = KubeProxyBench::new(KubeProxyMode::Auto, READY);
    mixed.livez(GOOD);
    mixed.livez(LATE);
    mixed.livez(LivezResult::Refused);
    assert_eq!(mixed.livez(LATE), Unhealthy, "nothing good came between");
}

#[test]
fn a_health_check_node_port_speaks_for_a_health_server_that_is_bound_elsewhere() {
    let mut bench = KubeProxyBench::new(KubeProxyMode::Auto, ELSEWHERE);
    assert_eq!(bench.run_round(round(LivezResult::Refused, Some(true))), Healthy);
    for witness in [None, Some(true), None, Some(false), Some(true), Some(false)] {
        assert_eq!(bench.run_round(round(LivezResult::Refused, witness)), Healthy);
    }
    assert_eq!(bench.run_round(round(LivezResult::Refused, Some(false))), Unhealthy);
    assert!(bench.message().contains("health check node port"), "{}", bench.message());
}

#[test]
fn at_the_start_all_waits_for_the_node_to_be_ready_and_for_a_first_round() {
    let after_a_refusal = [
        (KubeProxyMode::Auto, false, NotChecked),
        (KubeProxyMode::Auto, true, Unhealthy),
        (KubeProxyMode::Required, false, Unhealthy),
        (KubeProxyMode::Required, true, Unhealthy),
    ];
    for (mode, elsewhere, expect) in after_a_refusal {
        let mut ready =
            KubeProxyBench::new(mode, KubeProxyContext { healthy_elsewhere: elsewhere, ..READY });
        assert_eq!(
            (ready.said.state, ready.said.unhealthy()),
            (Unknown, true),
            "nothing was asked"
        );
        assert!(!ready.message().is_empty());
        assert_eq!(ready.livez(LivezResult::Refused), expect);

        let waiting = KubeProxyContext { healthy_elsewhere: elsewhere, ..WAITING };
        let mut booting = KubeProxyBench::new(mode, waiting);
        assert_eq!(booting.livez(LivezResult::Refused), Unknown);
        booting.situation(KubeProxyContext { ready: true, ..waiting });
        assert_eq!(booting.said.state, expect);
        booting.situation(waiting);
        assert_eq!(booting.said.state, expect, "what began stays so");

        let mut never_ready = KubeProxyBench::new(mode, waiting);
        for second in 0..60 {
            let expect = if second < 59 { Unknown } else { expect };
            assert_eq!(
                never_ready.livez(LivezResult::Refused),
                expect,
                "{mode:?}, {} s",
                second + 1
            );
        }
        let mut late = KubeProxyBench::new(mode, waiting);
        late.now = Instant::ZERO + STARTUP_MAX;
        assert_eq!(late.path.deadline(), None, "there is nothing to judge yet");
        assert_eq!(late.livez(LivezResult::Refused), expect);
    }
    for mode in [KubeProxyMode::Auto, KubeProxyMode::Required] {
        let mut bench = KubeProxyBench::new(mode, WAITING);
        assert_eq!(bench.livez(LATE), Unknown);
        assert_eq!(bench.livez(GOOD), Healthy, "a first good round needs no Ready Node");
    }
}

#[test]
fn a_node_without_routes_waits_for_its_kube_proxy_before_it_is_taken_for_one_without() {
    const UNROUTED: KubeProxyContext = KubeProxyContext { started_without_routes: true, ..READY };
    let mut without = KubeProxyBench::new(KubeProxyMode::Auto, READY);
    assert_eq!(without.livez(LivezResult::Refused), NotChecked);
    without.situation(UNROUTED);
    assert_eq!(without.said.state, Unknown, "gobgpd was read after the first round");
    assert!(
        without.said.unhealthy() && without.message().contains("may be starting"),
        "{}",
        without.message()
    );
    for second in 1..60 {
        let expect = if second < 59 { Unknown } else { NotChecked };
        assert_eq!(without.livez(LivezResult::Refused), expect, "{} s", second + 1);
    }
    assert_eq!(without.path.deadline(), None);

    let mut with = KubeProxyBench::new(KubeProxyMode::Auto, UNROUTED);
    assert_eq!(with.livez(LivezResult::Refused), Unknown);
    assert_eq!(with.livez(STARTING), Unhealthy, "there is one");
    assert_eq!(with.livez(GOOD), Healthy);

    for (mode, situation, expect) in [
        (KubeProxyMode::Auto, KubeProxyContext { healthy_elsewhere: true, ..UNROUTED }, Unhealthy),
        (KubeProxyMode::Required, UNROUTED, Unhealthy),
        (KubeProxyMode::Off, UNROUTED, NotChecked),
    ] {
        assert_eq!(
            KubeProxyBench::new(mode, situation).livez(LivezResult::Refused),
            expect,
            "{mode:?}"
        );
    }
}

#[test]
fn where_kube_proxy_is_unheard_of_here_and_elsewhere_there_is_none() {
    let mut bench = KubeProxyBench::new(KubeProxyMode::Auto, READY);
    assert_eq!(bench.livez(LivezResult::Refused), NotChecked);
    assert!(!bench.said.unhealthy() && !bench.said.checked());
    bench.situation(ELSEWHERE);
    assert_eq!(bench.said.state, Unhealthy);
    assert!(bench.message().contains("another node"), "{}", bench.message());
    bench.situation(READY);
    assert_eq!(bench.said.state, NotChecked);
    assert_eq!(bench.livez(STARTING), Unhealthy, "there is one: it has no rules yet");
    assert_eq!(bench.livez(LivezResult::Refused), Unhealthy);
    assert_eq!(bench.livez(GOOD), Healthy);
    bench.situation(ELSEWHERE);
    assert_eq!(bench.said.state, Healthy, "one that works needs no other");
}

#[test]
fn off_judges_nothing() {
    let bench = KubeProxyBench::new(KubeProxyMode::Off, ELSEWHERE);
    assert_eq!((bench.said.state, bench.path.deadline(), bench.words), (NotChecked, None, 1));
    assert!(bench.message().contains("--kube-proxy-health"));
}

#[test]
fn one_answer_makes_a_node_ineligible_and_silence_ends_it() {
    let mut bench = KubeProxyBench::new(KubeProxyMode::Auto, READY);
    let mut ask = |livez, eligible| {
        bench.run_round(CheckRound { eligible, ..round(livez, None) });
        (bench.said.ineligible, bench.said.state)
    };
    assert_eq!(ask(GOOD, None), (false, Healthy));
    assert_eq!(ask(GOOD, Some(false)), (true, Healthy));
    assert_eq!(ask(GOOD, Some(true)), (false, Healthy));
    ask(GOOD, Some(false));
    for second in 0..=10 {
        let state = if second == 0 { Healthy } else { Unhealthy };
        assert_eq!(
            ask(failed("no answer within 1000 ms"), None),
            (second < 10, state),
            "second {second}"
        );
    }
}

#[test]
fn the_message_names_the_url_and_does_not_waver() {
    let mut bench = KubeProxyBench::new(KubeProxyMode::Auto, READY);
    bench.livez(GOOD);
    assert_eq!(bench.message(), "http://10.0.0.1:10256/livez reports a healthy kube-proxy");
    bench.livez(LATE);
    bench.livez(LATE);
    assert!(bench.message().contains(
        "http://10.0.0.1:10256/livez reports that the rules of kube-proxy are late for IPv6"
    ));
    let words = bench.words;
    for _ in 0..30 {
        bench.livez(failed("no answer within 1000 ms"));
        bench.livez(LATE);
    }
    bench.livez(GOOD);
    assert_eq!(bench.words, words, "reasons that come and go are no news, nor is one good round");
    for _ in 0..30 {
        bench.livez(failed("no answer within 1000 ms"));
    }
    assert_eq!(bench.words, words + 1);
    assert!(
        bench.message().contains("no answer within 1000 ms: see the log of kube-proxy"),
        "{}",
        bench.message()
    );
    bench.livez(GOOD);
    bench.now = bench.now + UNREACHABLE_MAX;
    assert_eq!(
        (bench.livez(GOOD), bench.words),
        (Unhealthy, words + 1),
        "what speaks for it is no reason against it"
    );
}

/// Computes the expected state of a script from its whole history; `step` is the time between
/// rounds.
fn model(
    mode: KubeProxyMode,
    situation: KubeProxyContext,
    script: &[LivezResult],
    step: Duration,
) -> KubeProxyState {
    let outcomes: Vec<_> =
        script.iter().map(|livez| round(livez.clone(), None).outcome(situation.needed)).collect();
    let good = |outcome: &RoundOutcome| *outcome == RoundOutcome::Good;
    let Some(first_good) = outcomes.iter().position(good) else {
        let heard = script.iter().any(|livez| matches!(livez, LivezResult::Replied { .. }));
        return match () {
            () if script.is_empty() || !situation.ready => Unknown,
            () if mode == KubeProxyMode::Auto && !heard && !situation.healthy_elsewhere => {
                NotChecked
            }
            () => Unhealthy,
        };
    };
    let (last, before) = outcomes.split_last().unwrap();
    let run_of_good = outcomes.iter().rev().take_while(|outcome| good(outcome)).count();
    let since_good: Vec<_> = outcomes.iter().rev().take_while(|outcome| !good(outcome)).collect();
    let bad = since_good.iter().filter(|outcome| ***outcome == RoundOutcome::Bad).count();
    let away = since_good.iter().rposition(|outcome| **outcome != RoundOutcome::Bad);
    let away_for = away.map(|rounds| step * u32::try_from(rounds).unwrap());
    let falls = match last {
        RoundOutcome::Good => false,
        RoundOutcome::Bad => bad >= 2,
        RoundOutcome::Starting | RoundOutcome::Refused => {
            away_for.is_some_and(|time| time >= UNREACHABLE_MAX)
        }
    };
    match () {
        () if first_good == before.len() || run_of_good >= 3 => Healthy,
        () if falls => Unhealthy,
        () => model(mode, situation, &script[..before.len()], step),
    }
}

#[test]
fn every_short_script_is_judged_as_the_rules_say() {
    let alphabet = [GOOD, LATE, STARTING, LivezResult::Refused, failed("no answer within 1000 ms")];
    let mut scripts: Vec<Vec<usize>> = vec![Vec::new()];
    for length in 1..=6 {
        let longest: Vec<_> =
            scripts.iter().filter(|script| script.len() == length - 1).cloned().collect();
        scripts.extend(
            longest
                .iter()
                .flat_map(|script| (0..5).map(move |next| [&script[..], &[next]].concat())),
        );
    }
    let situations = [READY, ELSEWHERE, WAITING, KubeProxyContext { ready: false, ..ELSEWHERE }];
    for step in [SECOND, 5 * SECOND] {
        for (mode, situation) in [KubeProxyMode::Auto, KubeProxyMode::Required]
            .into_iter()
            .flat_map(|mode| situations.map(|s| (mode, s)))
        {
            for script in &scripts {
                let script: Vec<_> =
                    script.iter().map(|letter| alphabet[*letter].clone()).collect();
                let mut bench = KubeProxyBench::new(mode, situation);
                for (i, livez) in script.iter().enumerate() {
                    bench.now = Instant::ZERO + step * u32::try_from(i).unwrap();
                    bench.livez(livez.clone());
                }
                let expect = model(mode, situation, &script, step);
                assert_eq!(bench.said.state, expect, "{mode:?} {situation:?} {step:?} {script:?}");
            }
        }
    }
}
