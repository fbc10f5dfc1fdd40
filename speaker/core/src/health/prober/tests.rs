//! Tests of the prober in virtual time, by examples. The module [`model`] compares the prober with
//! a simple model.

mod model;

use std::collections::BTreeMap;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the `n`th endpoint of the Service `web`.
fn target(n: usize) -> ProbeTarget {
    target_of("web", n)
}

fn target_of(service: &str, n: usize) -> ProbeTarget {
    let [_, _, b, c] = u32::try_from(n).expect("a small number").to_be_bytes();
    ProbeTarget {
        service: Arc::new(Key::new("default", service)),
        endpoint: ([10, 0, b, c], 80).into(),
    }
}

fn config(interval: Duration) -> ProbeConfig {
    ProbeConfig { kind: CheckKind::Tcp, interval, timeout: TIMEOUT_DEFAULT, fall: 2, rise: 3 }
}

/// Endpoints to check, as the tests build and the model stores them.
type TargetMap = BTreeMap<ProbeTarget, Arc<ProbeConfig>>;

fn set_targets(
    prober: &mut Prober,
    targets: impl IntoIterator<Item = (ProbeTarget, ProbeConfig)>,
    now: Instant,
) {
    let targets: TargetMap = targets.into_iter().map(|(id, check)| (id, Arc::new(check))).collect();
    prober.handle(ProberInput::Targets(targets.into_iter().collect()), now);
}

fn poll_all(prober: &mut Prober) -> Vec<ProberOutput> {
    std::iter::from_fn(|| prober.poll()).collect()
}

/// Polls the prober, and returns the probes that its outputs start.
fn started(prober: &mut Prober) -> Vec<(ProbeTarget, ProbeId)> {
    let start = |output| match output {
        ProberOutput::Start { id, ticket, .. } => Some((id, ticket)),
        ProberOutput::Stop(_) | ProberOutput::Changed { .. } | ProberOutput::Removed(_) => None,
    };
    poll_all(prober).into_iter().filter_map(start).collect()
}

/// Starts the next probe of the only target. Returns the time, the target and the probe.
fn start_next(prober: &mut Prober) -> (Instant, ProbeTarget, ProbeId) {
    let now = prober.deadline().expect("a deadline");
    prober.tick(now);
    let mut started = started(prober);
    assert_eq!(started.len(), 1);
    let (id, ticket) = started.remove(0);
    (now, id, ticket)
}

/// Reports the result of a probe: success, or `failure` as the reason. Returns the outputs that
/// follow.
fn end_probe(
    prober: &mut Prober,
    (id, ticket): (ProbeTarget, ProbeId),
    failure: Option<&str>,
    now: Instant,
) -> Vec<ProberOutput> {
    let outcome = failure.map_or(Ok(()), |reason| Err(reason.into()));
    prober.handle(ProberInput::Result { id, ticket, outcome }, now);
    poll_all(prober)
}

#[test]
fn probes_are_an_interval_apart_and_changes_are_reported_once() {
    let mut prober = Prober::default();
    set_targets(&mut prober, [(target(1), config(SECOND))], Instant::from_millis(10_000));
    let mut changes = Vec::new();
    let mut before: Option<Instant> = None;
    for result in "..x.xxx..x...".chars() {
        let (start, id, ticket) = start_next(&mut prober);
        assert!(before.is_none_or(|before| start.since(before) == SECOND));
        assert_eq!(prober.deadline(), None, "an endpoint has at most one probe in flight");
        before = Some(start);
        let failure = (result == 'x').then_some("connection refused");
        for output in
            end_probe(&mut prober, (id.clone(), ticket), failure, start + Duration::from_millis(3))
        {
            assert!(matches!(&output, ProberOutput::Changed { id: of, .. } if *of == id));
            changes.push((result, output));
        }
        assert_eq!(prober.failing(), changes.len() % 2);
    }
    let expect = [
        ('x', ProberOutput::Changed { id: target(1), failing: Some("connection refused".into()) }),
        ('.', ProberOutput::Changed { id: target(1), failing: None }),
    ];
    assert_eq!(changes, expect);
}

#[test]
fn probes_are_spread_over_the_interval_even_after_a_pause() {
    let mut prober = Prober::bounded(TARGETS_MAX, PROBES_MAX, PROBES_MAX);
    set_targets(
        &mut prober,
        (0..5000).map(|n| (target(n), config(SECOND))),
        Instant::from_millis(777),
    );
    assert_eq!(poll_all(&mut prober), [], "no probe starts at once");
    let mut now = Instant::from_millis(777);
    for pause in [0, 0, 10_000] {
        now = now + Duration::from_millis(pause);
        // After the pause, the due probes start within the limit, each as soon as a result arrives.
        prober.tick(now);
        let mut waiting = VecDeque::from(started(&mut prober));
        while let Some((id, ticket)) = waiting.pop_front() {
            assert!(waiting.len() < PROBES_MAX);
            prober.handle(ProberInput::Result { id, ticket, outcome: Ok(()) }, now);
            waiting.extend(started(&mut prober));
        }
        let mut probes: BTreeMap<ProbeTarget, u32> = BTreeMap::new();
        for _ in 0..10 {
            let until = now + Duration::from_millis(100);
            let mut count = 0;
            while let Some(due) = prober.deadline().filter(|due| *due <= until) {
                prober.tick(due);
                for probe in started(&mut prober) {
                    count += 1;
                    *probes.entry(probe.0.clone()).or_default() += 1;
                    assert_eq!(end_probe(&mut prober, probe, None, due), []);
                }
            }
            assert!((350..650).contains(&count), "{count} probes start in a tenth of the interval");
            now = until;
        }
        assert!(
            probes.len() == 5000 && probes.values().all(|count| *count == 1),
            "each target is probed once"
        );
    }
}

#[test]
fn probes_in_flight_are_limited_and_the_longest_waiting_is_next() {
    let mut prober = Prober::bounded(100, 3, 3);
    set_targets(&mut prober, (0..10).map(|n| (target(n), config(SECOND))), Instant::ZERO);
    let mut schedule: Vec<_> = prober.due.iter().map(|(_, id)| id.clone()).collect();
    let now = Instant::ZERO + SECOND;
    prober.tick(now);
    let mut waiting = started(&mut prober);
    assert_eq!((waiting.len(), prober.deadline()), (3, None));
    let mut probed: Vec<_> = waiting.iter().map(|(id, _)| id.clone()).collect();
    for step in 1..=7 {
        let now = now + Duration::from_millis(step);
        let (id, ticket) = waiting.remove(0);
        prober.handle(ProberInput::Result { id, ticket, outcome: Ok(()) }, now);
        let next = started(&mut prober);
        assert_eq!(next.len(), 1);
        probed.push(next[0].0.clone());
        waiting.extend(next);
    }
    assert_eq!(probed, schedule);
    schedule.sort();
    schedule.dedup();
    assert_eq!(schedule.len(), 10);
}

#[test]
fn a_service_without_replies_does_not_delay_other_services() {
    let mut prober = Prober::default();
    let silent = ProbeConfig { timeout: 30 * SECOND, ..config(SECOND) };
    let of_silent = (0..500).map(|n| (target_of("silent", n), silent.clone()));
    let of_others = (0..200).map(|n| (target_of(&format!("other{}", n % 20), n), config(SECOND)));
    set_targets(&mut prober, of_silent.chain(of_others), Instant::ZERO);
    let (mut replies, mut silent) = (0, Vec::new());
    while let Some(due) = prober.deadline().filter(|due| *due <= Instant::ZERO + 10 * SECOND) {
        prober.tick(due);
        for (id, ticket) in started(&mut prober) {
            if id.service.name() == "silent" {
                silent.push((id, ticket));
            } else {
                replies += 1;
                assert_eq!(end_probe(&mut prober, (id, ticket), None, due), []);
            }
        }
    }
    assert_eq!((replies, silent.len()), (200 * 10, PROBES_OF_SERVICE_MAX));
    // The removal of a target without a reply stops its probe, and the target that has waited
    // longest is probed next. A waiting target that is removed is not probed.
    let later = Instant::ZERO + 11 * SECOND;
    let (removed, ticket) = silent.remove(0);
    let rest: TargetMap =
        prober.targets.iter().map(|(id, state)| (id.clone(), Arc::clone(&state.check))).collect();
    let is_silent = |id: &ProbeTarget| id.service.name() == "silent";
    let rest = rest.into_iter().filter(|(id, _)| is_silent(id) && *id != removed).collect();
    prober.handle(ProberInput::Targets(rest), later);
    let (stopped, started): (Vec<_>, Vec<_>) =
        poll_all(&mut prober).into_iter().partition(|output| *output == ProberOutput::Stop(ticket));
    assert_eq!((stopped.len(), started.len()), (1, 1));
    set_targets(&mut prober, [], later);
    assert_eq!(poll_all(&mut prober).len(), PROBES_OF_SERVICE_MAX);
    assert_eq!((prober.in_flight, prober.due.len(), prober.capacities.services()), (0, 0, 0));
}

#[test]
fn a_target_slower_than_its_interval_is_probed_back_to_back() {
    let mut prober = Prober::default();
    let interval = Duration::from_millis(100);
    set_targets(&mut prober, [(target(1), config(interval))], Instant::ZERO);
    let (mut now, _, mut ticket) = start_next(&mut prober);
    for _ in 0..5 {
        now = now + Duration::from_millis(250);
        prober.handle(ProberInput::Result { id: target(1), ticket, outcome: Ok(()) }, now);
        let again = started(&mut prober);
        assert_eq!(again.len(), 1, "the next probe starts at once");
        ticket = again[0].1;
    }
    assert_eq!(
        end_probe(&mut prober, (target(1), ticket), None, now + Duration::from_millis(1)),
        []
    );
    assert!(
        prober.deadline().is_some_and(|due| due.since(now) <= interval),
        "a fast target is probed once per interval"
    );
}

#[test]
fn a_removed_target_leaves_no_state_and_late_results_are_ignored() {
    let mut prober = Prober::bounded(100, 1, 1);
    let short = ProbeConfig { fall: 1, ..config(SECOND) };
    set_targets(&mut prober, [(target(1), short.clone())], Instant::ZERO);
    let (now, _, ticket) = start_next(&mut prober);
    let failed = end_probe(&mut prober, (target(1), ticket), Some("refused"), now);
    assert_eq!(failed, [ProberOutput::Changed { id: target(1), failing: Some("refused".into()) }]);
    let (now, _, probe) = start_next(&mut prober);
    set_targets(&mut prober, [], now);
    assert_eq!(
        poll_all(&mut prober),
        [ProberOutput::Stop(probe), ProberOutput::Removed(target(1))]
    );
    assert_eq!((prober.targets(), prober.failing(), prober.deadline()), (0, 0, None));
    assert_eq!(end_probe(&mut prober, (target(1), probe), None, now), []);
    set_targets(&mut prober, [(target(1), short.clone())], now);
    let (now, _, again) = start_next(&mut prober);
    assert_eq!(
        end_probe(&mut prober, (target(1), probe), Some("late"), now),
        [],
        "the result belongs to an earlier probe"
    );
    assert_eq!(
        end_probe(&mut prober, (target(1), again), None, now),
        [],
        "a new target is passing"
    );
    set_targets(&mut prober, [(target(2), short)], now);
    assert_eq!(poll_all(&mut prober), [], "the removal of a passing target has no output");
    assert_eq!((start_next(&mut prober).1, prober.due.len(), prober.in_flight), (target(2), 0, 1));
}

#[test]
fn a_new_interval_keeps_the_state_and_a_new_request_is_sent_at_once() {
    let mut prober = Prober::default();
    let first = ProbeConfig { fall: 1, rise: 2, ..config(SECOND) };
    set_targets(&mut prober, [(target(1), first.clone())], Instant::ZERO);
    let (now, _, ticket) = start_next(&mut prober);
    assert_eq!(end_probe(&mut prober, (target(1), ticket), Some("refused"), now).len(), 1);
    let faster = ProbeConfig { interval: Duration::from_millis(100), rise: 1, ..first };
    set_targets(&mut prober, [(target(1), faster.clone())], now);
    assert!(prober.deadline().is_some_and(|due| due.since(now) <= faster.interval));
    assert_eq!((prober.failing(), poll_all(&mut prober)), (1, vec![]));
    let (now, _, probe) = start_next(&mut prober);
    let other = ProbeConfig { kind: CheckKind::Http { path: "/".into() }, ..faster };
    set_targets(&mut prober, [(target(1), other.clone())], now);
    let outputs = poll_all(&mut prober);
    let [ProberOutput::Stop(stopped), ProberOutput::Start { ticket, check, .. }] = &outputs[..]
    else {
        panic!("the outputs are {outputs:?}")
    };
    assert_eq!((*stopped, &**check), (probe, &other));
    assert_eq!(
        end_probe(&mut prober, (target(1), probe), None, now),
        [],
        "the result of a stopped probe is ignored"
    );
    let outputs = end_probe(&mut prober, (target(1), *ticket), Some("status 404"), now);
    assert_eq!(
        outputs,
        [ProberOutput::Changed { id: target(1), failing: Some("status 404".into()) }],
        "a new request reports its own reason"
    );
    let (now, _, ticket) = start_next(&mut prober);
    assert_eq!(
        end_probe(&mut prober, (target(1), ticket), Some("status 500"), now),
        [],
        "the reason is reported once"
    );
    let (now, _, ticket) = start_next(&mut prober);
    let outputs = end_probe(&mut prober, (target(1), ticket), None, now);
    assert_eq!(
        outputs,
        [ProberOutput::Changed { id: target(1), failing: None }],
        "the new value of rise applies"
    );
}

#[test]
fn targets_over_the_limit_are_counted_and_not_checked() {
    let mut prober = Prober::bounded(3, 10, 10);
    set_targets(&mut prober, (0..5).map(|n| (target(n), config(SECOND))), Instant::ZERO);
    assert_eq!((prober.targets(), prober.over_limit()), (3, 2));
    prober.tick(Instant::ZERO + SECOND);
    let mut probed: Vec<_> = started(&mut prober).into_iter().map(|(id, _)| id).collect();
    probed.sort();
    assert_eq!(probed, [target(0), target(1), target(2)]);
    set_targets(&mut prober, (2..5).map(|n| (target(n), config(SECOND))), Instant::ZERO + SECOND);
    assert_eq!((prober.targets(), prober.over_limit()), (3, 0));
}
