//! The prober in virtual time, and against a slow and obvious model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(n: usize) -> ProbeTarget {
    id_of("web", n)
}

fn id_of(service: &str, n: usize) -> ProbeTarget {
    let [_, _, b, c] = u32::try_from(n).expect("few").to_be_bytes();
    ProbeTarget {
        service: Arc::new(Key::new("default", service)),
        endpoint: ([10, 0, b, c], 80).into(),
    }
}

fn check(interval: Duration) -> ProbeConfig {
    ProbeConfig { kind: CheckKind::Tcp, interval, timeout: TIMEOUT_DEFAULT, fall: 2, rise: 3 }
}

fn set(
    prober: &mut Prober,
    targets: impl IntoIterator<Item = (ProbeTarget, ProbeConfig)>,
    now: Instant,
) {
    let targets = targets.into_iter().map(|(id, check)| (id, Arc::new(check))).collect();
    prober.handle(ProberInput::Targets(Arc::new(targets)), now);
}

fn outputs(prober: &mut Prober) -> Vec<ProberOutput> {
    std::iter::from_fn(|| prober.poll()).collect()
}

/// Returns the started probes among the outputs.
fn started(prober: &mut Prober) -> Vec<(ProbeTarget, ProbeId)> {
    let start = |output| match output {
        ProberOutput::Start { id, ticket, .. } => Some((id, ticket)),
        ProberOutput::Stop(_) | ProberOutput::Changed { .. } | ProberOutput::Removed(_) => None,
    };
    outputs(prober).into_iter().filter_map(start).collect()
}

/// Advances the time to the next probe of the only target. Returns the time and the probe.
fn next(prober: &mut Prober) -> (Instant, ProbeTarget, ProbeId) {
    let now = prober.deadline().expect("a turn");
    prober.tick(now);
    let mut started = started(prober);
    assert_eq!(started.len(), 1);
    let (id, ticket) = started.remove(0);
    (now, id, ticket)
}

fn answer(
    prober: &mut Prober,
    (id, ticket): (ProbeTarget, ProbeId),
    why: Option<&str>,
    now: Instant,
) -> Vec<ProberOutput> {
    let outcome = why.map_or(Ok(()), |why| Err(why.into()));
    prober.handle(ProberInput::Result { id, ticket, outcome }, now);
    outputs(prober)
}

#[test]
fn a_target_is_asked_an_interval_apart_and_its_changes_are_said_once_with_the_reason() {
    let mut prober = Prober::default();
    set(&mut prober, [(id(1), check(SECOND))], Instant::from_millis(10_000));
    let mut said = Vec::new();
    let mut before: Option<Instant> = None;
    for answered in "..x.xxx..x...".chars() {
        let (asked, id, ticket) = next(&mut prober);
        assert!(before.is_none_or(|before| asked.since(before) == SECOND));
        assert_eq!(prober.deadline(), None, "never twice at once");
        before = Some(asked);
        let why = (answered == 'x').then_some("connection refused");
        for output in
            answer(&mut prober, (id.clone(), ticket), why, asked + Duration::from_millis(3))
        {
            assert!(matches!(&output, ProberOutput::Changed { id: of, .. } if *of == id));
            said.push((answered, output));
        }
        assert_eq!(prober.failing(), said.len() % 2);
    }
    let expect = [
        ('x', ProberOutput::Changed { id: id(1), failing: Some("connection refused".into()) }),
        ('.', ProberOutput::Changed { id: id(1), failing: None }),
    ];
    assert_eq!(said, expect);
}

#[test]
fn those_that_are_there_at_once_are_asked_evenly_over_the_interval_even_after_a_pause() {
    let mut prober = Prober::bounded(TARGETS_MAX, PROBES_MAX, PROBES_MAX);
    set(&mut prober, (0..5000).map(|n| (id(n), check(SECOND))), Instant::from_millis(777));
    assert_eq!(outputs(&mut prober), [], "nothing at once");
    let mut now = Instant::from_millis(777);
    for pause in [0, 0, 10_000] {
        now = now + Duration::from_millis(pause);
        // The probes that the pause delayed start as fast as results arrive, and within the limit.
        prober.tick(now);
        let mut waiting = VecDeque::from(started(&mut prober));
        while let Some((id, ticket)) = waiting.pop_front() {
            assert!(waiting.len() < PROBES_MAX);
            prober.handle(ProberInput::Result { id, ticket, outcome: Ok(()) }, now);
            waiting.extend(started(&mut prober));
        }
        let mut turns: BTreeMap<ProbeTarget, u32> = BTreeMap::new();
        for _ in 0..10 {
            let until = now + Duration::from_millis(100);
            let mut count = 0;
            while let Some(due) = prober.deadline().filter(|due| *due <= until) {
                prober.tick(due);
                for question in started(&mut prober) {
                    count += 1;
                    *turns.entry(question.0.clone()).or_default() += 1;
                    assert_eq!(answer(&mut prober, question, None, due), []);
                }
            }
            assert!((350..650).contains(&count), "{count} in a tenth of the interval");
            now = until;
        }
        assert!(turns.len() == 5000 && turns.values().all(|count| *count == 1), "each once");
    }
}

#[test]
fn so_many_are_asked_at_once_and_who_waits_longest_is_next() {
    let mut prober = Prober::bounded(100, 3, 3);
    set(&mut prober, (0..10).map(|n| (id(n), check(SECOND))), Instant::ZERO);
    let mut line: Vec<_> = prober.due.iter().map(|(_, id)| id.clone()).collect();
    let now = Instant::ZERO + SECOND;
    prober.tick(now);
    let mut waiting = started(&mut prober);
    assert_eq!((waiting.len(), prober.deadline()), (3, None));
    let mut asked: Vec<_> = waiting.iter().map(|(id, _)| id.clone()).collect();
    for step in 1..=7 {
        let now = now + Duration::from_millis(step);
        let (id, ticket) = waiting.remove(0);
        prober.handle(ProberInput::Result { id, ticket, outcome: Ok(()) }, now);
        let next = started(&mut prober);
        assert_eq!(next.len(), 1);
        asked.push(next[0].0.clone());
        waiting.extend(next);
    }
    assert_eq!(asked, line);
    line.sort();
    line.dedup();
    assert_eq!(line.len(), 10);
}

#[test]
fn a_service_that_never_answers_leaves_the_others_their_turns() {
    let mut prober = Prober::default();
    let silent = ProbeConfig { timeout: 30 * SECOND, ..check(SECOND) };
    let of_silent = (0..500).map(|n| (id_of("silent", n), silent.clone()));
    let of_others = (0..200).map(|n| (id_of(&format!("other{}", n % 20), n), check(SECOND)));
    set(&mut prober, of_silent.chain(of_others), Instant::ZERO);
    let (mut asked, mut silent) = (0, Vec::new());
    while let Some(due) = prober.deadline().filter(|due| *due <= Instant::ZERO + 10 * SECOND) {
        prober.tick(due);
        for (id, ticket) in started(&mut prober) {
            if *id.service.name == *"silent" {
                silent.push((id, ticket));
            } else {
                asked += 1;
                assert_eq!(answer(&mut prober, (id, ticket), None, due), []);
            }
        }
    }
    assert_eq!((asked, silent.len()), (200 * 10, PROBES_OF_SERVICE_MAX));
    // Removing a target without a reply stops its probe, and the capacity goes to the target that
    // has waited longest. A removed target that waits is not probed.
    let later = Instant::ZERO + 11 * SECOND;
    let (gone, ticket) = silent.remove(0);
    let rest: ProbeTargets =
        prober.targets.iter().map(|(id, state)| (id.clone(), Arc::clone(&state.check))).collect();
    let is_silent = |id: &ProbeTarget| *id.service.name == *"silent";
    let rest = rest.into_iter().filter(|(id, _)| is_silent(id) && *id != gone).collect();
    prober.handle(ProberInput::Targets(Arc::new(rest)), later);
    let (stopped, started): (Vec<_>, Vec<_>) =
        outputs(&mut prober).into_iter().partition(|output| *output == ProberOutput::Stop(ticket));
    assert_eq!((stopped.len(), started.len()), (1, 1));
    set(&mut prober, [], later);
    assert_eq!(outputs(&mut prober).len(), PROBES_OF_SERVICE_MAX);
    assert_eq!((prober.in_flight, prober.due.len(), prober.shares.services()), (0, 0, 0));
}

#[test]
fn who_answers_slower_than_it_is_to_be_asked_is_asked_back_to_back() {
    let mut prober = Prober::default();
    let interval = Duration::from_millis(100);
    set(&mut prober, [(id(1), check(interval))], Instant::ZERO);
    let (mut now, _, mut ticket) = next(&mut prober);
    for _ in 0..5 {
        now = now + Duration::from_millis(250);
        prober.handle(ProberInput::Result { id: id(1), ticket, outcome: Ok(()) }, now);
        let again = started(&mut prober);
        assert_eq!(again.len(), 1, "at once, and once");
        ticket = again[0].1;
    }
    assert_eq!(answer(&mut prober, (id(1), ticket), None, now + Duration::from_millis(1)), []);
    assert!(
        prober.deadline().is_some_and(|due| due.since(now) <= interval),
        "and at its turns when it is fast again"
    );
}

#[test]
fn who_goes_leaves_nothing_behind_and_its_late_answers_mean_nothing() {
    let mut prober = Prober::bounded(100, 1, 1);
    let short = ProbeConfig { fall: 1, ..check(SECOND) };
    set(&mut prober, [(id(1), short.clone())], Instant::ZERO);
    let (now, _, ticket) = next(&mut prober);
    let failed = answer(&mut prober, (id(1), ticket), Some("refused"), now);
    assert_eq!(failed, [ProberOutput::Changed { id: id(1), failing: Some("refused".into()) }]);
    let (now, _, asked) = next(&mut prober);
    set(&mut prober, [], now);
    assert_eq!(outputs(&mut prober), [ProberOutput::Stop(asked), ProberOutput::Removed(id(1))]);
    assert_eq!((prober.targets(), prober.failing(), prober.deadline()), (0, 0, None));
    assert_eq!(answer(&mut prober, (id(1), asked), None, now), []);
    set(&mut prober, [(id(1), short.clone())], now);
    let (now, _, again) = next(&mut prober);
    assert_eq!(
        answer(&mut prober, (id(1), asked), Some("late"), now),
        [],
        "it is another question's"
    );
    assert_eq!(answer(&mut prober, (id(1), again), None, now), [], "it passed, as whatever is new");
    set(&mut prober, [(id(2), short)], now);
    assert_eq!(outputs(&mut prober), [], "who passed is not missed");
    assert_eq!((next(&mut prober).1, prober.due.len(), prober.in_flight), (id(2), 0, 1));
}

#[test]
fn another_pace_keeps_the_verdict_and_another_question_is_asked_at_once() {
    let mut prober = Prober::default();
    let first = ProbeConfig { fall: 1, rise: 2, ..check(SECOND) };
    set(&mut prober, [(id(1), first.clone())], Instant::ZERO);
    let (now, _, ticket) = next(&mut prober);
    assert_eq!(answer(&mut prober, (id(1), ticket), Some("refused"), now).len(), 1);
    let faster = ProbeConfig { interval: Duration::from_millis(100), rise: 1, ..first };
    set(&mut prober, [(id(1), faster.clone())], now);
    assert!(prober.deadline().is_some_and(|due| due.since(now) <= faster.interval));
    assert_eq!((prober.failing(), outputs(&mut prober)), (1, vec![]));
    let (now, _, asked) = next(&mut prober);
    let other = ProbeConfig { kind: CheckKind::Http { path: "/".into() }, ..faster };
    set(&mut prober, [(id(1), other.clone())], now);
    let told = outputs(&mut prober);
    let [ProberOutput::Stop(stopped), ProberOutput::Start { ticket, check, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((*stopped, &**check), (asked, &other));
    assert_eq!(
        answer(&mut prober, (id(1), asked), None, now),
        [],
        "nobody waits for the old question"
    );
    let told = answer(&mut prober, (id(1), *ticket), Some("it answers 404"), now);
    assert_eq!(
        told,
        [ProberOutput::Changed { id: id(1), failing: Some("it answers 404".into()) }],
        "the reason is new"
    );
    let (now, _, ticket) = next(&mut prober);
    assert_eq!(
        answer(&mut prober, (id(1), ticket), Some("it answers 500"), now),
        [],
        "and is said once"
    );
    let (now, _, ticket) = next(&mut prober);
    let told = answer(&mut prober, (id(1), ticket), None, now);
    assert_eq!(told, [ProberOutput::Changed { id: id(1), failing: None }], "by the new rise");
}

#[test]
fn too_many_are_counted_and_the_first_by_name_are_checked() {
    let mut prober = Prober::bounded(3, 10, 10);
    set(&mut prober, (0..5).map(|n| (id(n), check(SECOND))), Instant::ZERO);
    assert_eq!((prober.targets(), prober.over_limit()), (3, 2));
    prober.tick(Instant::ZERO + SECOND);
    let mut asked: Vec<_> = started(&mut prober).into_iter().map(|(id, _)| id).collect();
    asked.sort();
    assert_eq!(asked, [id(0), id(1), id(2)]);
    set(&mut prober, (2..5).map(|n| (id(n), check(SECOND))), Instant::ZERO + SECOND);
    assert_eq!((prober.targets(), prober.over_limit()), (3, 0));
}

/// A step of a test: an input of the prober, or a passage of time.
#[derive(Clone, Debug)]
enum ProberStep {
    /// Sets the targets: the bits of a number, with one of a few checks each.
    Set(u8, u8),
    /// Advances the time by so many milliseconds.
    Wait(u64),
    /// Keeps those of these targets that exist, unchanged.
    Keep(u8),
    /// Ends the n-th probe in flight.
    Answer(usize, bool),
    /// Repeats the result of the n-th of all probes.
    Repeat(usize),
}

fn steps() -> impl Strategy<Value = Vec<ProberStep>> {
    let step = prop_oneof![
        1 => (any::<u8>(), any::<u8>()).prop_map(|(who, how)| ProberStep::Set(who, how)),
        1 => any::<u8>().prop_map(ProberStep::Keep),
        4 => (0..400_u64).prop_map(ProberStep::Wait),
        8 => (0..8_usize, prop::bool::weighted(0.4)).prop_map(|(n, passed)| ProberStep::Answer(n, passed)),
        1 => (0..99_usize).prop_map(ProberStep::Repeat),
    ];
    prop::collection::vec(step, 0..120)
}

/// The verdict on a target, from all its results.
#[derive(Debug, Default)]
struct ExpectedTarget {
    failing: bool,
    /// The results since the last change of the verdict.
    answers: Vec<bool>,
    question: Option<CheckKind>,
    reason_is_old: bool,
}

/// The model: the probes, their results, and the expected outputs.
#[derive(Debug, Default)]
struct ProberModel {
    targets: ProbeTargets,
    known: BTreeMap<ProbeTarget, ExpectedTarget>,
    waiting: Vec<(ProbeTarget, ProbeId)>,
    ever: Vec<(ProbeTarget, ProbeId)>,
    expected: Vec<ProberOutput>,
}

impl ProberModel {
    fn set(&mut self, targets: &ProbeTargets) {
        for (id, known) in &self.known {
            if !targets.contains_key(id) && known.failing {
                self.expected.push(ProberOutput::Removed(id.clone()));
            }
        }
        self.known.retain(|id, _| targets.contains_key(id));
        for (id, check) in targets {
            let known = self.known.entry(id.clone()).or_default();
            if known.question.replace(check.kind.clone()).is_some_and(|before| before != check.kind)
            {
                known.reason_is_old = known.failing;
            }
        }
        self.targets = targets.clone();
    }

    fn waits_of(&self, service: &str) -> usize {
        self.waiting.iter().filter(|(id, _)| *id.service.name == *service).count()
    }

    /// Returns whether a probe could be started and is not.
    fn has_room(&self) -> bool {
        let targets =
            |service: &str| self.targets.keys().filter(|id| *id.service.name == *service).count();
        self.waiting.len() < 2
            && SERVICES.iter().any(|service| self.waits_of(service) < targets(service).min(1))
    }

    fn answer(&mut self, id: &ProbeTarget, passed: bool) {
        let (check, known) = (&self.targets[id], self.known.get_mut(id).expect("a target"));
        known.answers.push(passed);
        let needed = if known.failing { check.rise } else { check.fall } as usize;
        let last: Vec<_> = known.answers.iter().rev().take(needed).collect();
        let changed = last.len() == needed && last.iter().all(|passed| **passed == known.failing);
        if changed {
            known.failing = !known.failing;
            known.answers.clear();
        }
        if changed || (known.reason_is_old && known.failing && !passed) {
            known.reason_is_old = false;
            let failing = known.failing.then(|| "why".into());
            self.expected.push(ProberOutput::Changed { id: id.clone(), failing });
        }
    }

    /// Checks the outputs of the machine: probes are allowed, and all others are expected.
    fn check_outputs(&mut self, prober: &mut Prober) {
        for output in outputs(prober) {
            match output {
                ProberOutput::Start { id, ticket, check } => {
                    assert!(
                        self.waiting.iter().all(|(other, _)| *other != id),
                        "{id} is asked twice at once"
                    );
                    assert_eq!(
                        self.targets.get(&id),
                        Some(&check),
                        "who is no target is not asked, nor what is old"
                    );
                    self.waiting.push((id.clone(), ticket));
                    self.ever.push((id, ticket));
                }
                ProberOutput::Stop(ticket) => {
                    let before = self.waiting.len();
                    self.waiting.retain(|(_, other)| *other != ticket);
                    assert_eq!(self.waiting.len(), before - 1, "what is withdrawn waited");
                }
                said @ (ProberOutput::Changed { .. } | ProberOutput::Removed(_)) => {
                    assert_eq!(Some(&said), self.expected.first());
                    self.expected.remove(0);
                }
            }
            assert!(self.waiting.len() <= 2);
            assert!(
                SERVICES.iter().all(|service| self.waits_of(service) <= 1),
                "no Service takes all"
            );
        }
        assert_eq!(self.expected, [], "nothing is left unsaid");
        assert!(
            self.waiting.iter().all(|(id, _)| self.targets.contains_key(id)),
            "who goes is withdrawn"
        );
        let failing = self.known.values().filter(|known| known.failing).count();
        assert_eq!((prober.targets(), prober.failing()), (self.targets.len(), failing));
    }
}

/// The Services of the model.
const SERVICES: [&str; 3] = ["web", "api", "db"];

fn check_of(kind: u8) -> ProbeConfig {
    let interval = Duration::from_millis([100, 150][usize::from(kind & 1)]);
    let path = |path: &str| CheckKind::Http { path: path.into() };
    let kind_of = [CheckKind::Tcp, path("/")][usize::from(kind >> 1 & 1)].clone();
    ProbeConfig {
        kind: kind_of,
        interval,
        fall: u32::from(kind >> 2 & 1) + 1,
        rise: u32::from(kind >> 3 & 1) + 2,
        ..check(interval)
    }
}

proptest! {
    #[test]
    fn the_prober_says_what_anybody_would_who_wrote_all_answers_down(steps in steps()) {
        let (mut prober, mut model, mut now) = (Prober::bounded(100, 2, 1), ProberModel::default(), Instant::from_millis(5));
        for step in steps {
            match step {
                ProberStep::Set(who, how) => {
                    let chosen = (0..8).filter(|n| who >> n & 1 == 1);
                    let targets: ProbeTargets = chosen.map(|n| (id_of(SERVICES[n / 3], n), Arc::new(check_of(how.rotate_left(n as u32))))).collect();
                    model.set(&targets);
                    prober.handle(ProberInput::Targets(Arc::new(targets)), now);
                }
                ProberStep::Keep(who) => {
                    let stays = |id: &ProbeTarget| (0..8).any(|n| who >> n & 1 == 1 && *id == id_of(SERVICES[n / 3], n));
                    let targets: ProbeTargets = model.targets.clone().into_iter().filter(|(id, _)| stays(id)).collect();
                    model.set(&targets);
                    prober.handle(ProberInput::Targets(Arc::new(targets)), now);
                }
                ProberStep::Wait(millis) => {
                    let until = now + Duration::from_millis(millis);
                    // A driver may be late, but calls only at times that the machine requested.
                    while let Some(due) = prober.deadline().filter(|due| *due <= until) {
                        now = now.max(due);
                        prober.tick(now);
                        model.check_outputs(&mut prober);
                    }
                    now = until;
                }
                ProberStep::Answer(n, passed) => {
                    if model.waiting.is_empty() {
                        continue;
                    }
                    let (id, ticket) = model.waiting.remove(n % model.waiting.len());
                    model.answer(&id, passed);
                    let outcome = if passed { Ok(()) } else { Err("why".into()) };
                    prober.handle(ProberInput::Result { id, ticket, outcome }, now);
                }
                ProberStep::Repeat(n) => {
                    let Some((id, ticket)) = model.ever.get(n % model.ever.len().max(1)).cloned() else { continue };
                    if !model.waiting.iter().any(|(_, waits)| *waits == ticket) {
                        prober.handle(ProberInput::Result { id, ticket, outcome: Err("late".into()) }, now);
                    }
                }
            }
            model.check_outputs(&mut prober);
            if model.has_room() {
                let due = prober.deadline().expect("somebody is to be asked");
                prop_assert!(due > now && due.since(now) <= Duration::from_millis(150), "nobody is forgotten");
            }
        }
    }
}
