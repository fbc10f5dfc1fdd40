//! A simple model of the prober, against which a property test compares it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A step of a test: an input of the prober, or a passage of time.
#[derive(Clone, Debug)]
enum ProberStep {
    /// Sets the targets. The bits of the first number select the targets, and the second number
    /// selects their checks.
    Set(u8, u8),
    /// Advances the time by this number of milliseconds.
    Wait(u64),
    /// Removes all targets that the bits of this number do not select.
    Keep(u8),
    /// Ends the n-th probe in flight; true means success.
    End(usize, bool),
    /// Reports a second result for the n-th of all probes.
    Repeat(usize),
}

fn steps() -> impl Strategy<Value = Vec<ProberStep>> {
    let step = prop_oneof![
        1 => (any::<u8>(), any::<u8>()).prop_map(|(targets, checks)| ProberStep::Set(targets, checks)),
        1 => any::<u8>().prop_map(ProberStep::Keep),
        4 => (0..400_u64).prop_map(ProberStep::Wait),
        8 => (0..8_usize, prop::bool::weighted(0.4)).prop_map(|(n, passed)| ProberStep::End(n, passed)),
        1 => (0..99_usize).prop_map(ProberStep::Repeat),
    ];
    prop::collection::vec(step, 0..120)
}

/// The expected state of a target, computed from all its results.
#[derive(Debug, Default)]
struct ExpectedTarget {
    failing: bool,
    /// The results since the latest change of the state.
    results: Vec<bool>,
    request: Option<CheckKind>,
    reason_is_old: bool,
}

/// The model: the probes, their results, and the expected outputs.
#[derive(Debug, Default)]
struct ProberModel {
    targets: TargetMap,
    known: BTreeMap<ProbeTarget, ExpectedTarget>,
    in_flight: Vec<(ProbeTarget, ProbeId)>,
    /// All probes since the start.
    all: Vec<(ProbeTarget, ProbeId)>,
    expected: Vec<ProberOutput>,
}

impl ProberModel {
    fn set_targets(&mut self, targets: &TargetMap) {
        for (id, known) in &self.known {
            if !targets.contains_key(id) && known.failing {
                self.expected.push(ProberOutput::Removed(id.clone()));
            }
        }
        self.known.retain(|id, _| targets.contains_key(id));
        for (id, check) in targets {
            let known = self.known.entry(id.clone()).or_default();
            if known.request.replace(check.kind.clone()).is_some_and(|before| before != check.kind)
            {
                known.reason_is_old = known.failing;
            }
        }
        self.targets = targets.clone();
    }

    fn in_flight_of(&self, service: &str) -> usize {
        self.in_flight.iter().filter(|(id, _)| id.service.name() == service).count()
    }

    /// Returns whether another probe could be started within the limits.
    fn has_room(&self) -> bool {
        let targets =
            |service: &str| self.targets.keys().filter(|id| id.service.name() == service).count();
        self.in_flight.len() < 2
            && SERVICES.iter().any(|service| self.in_flight_of(service) < targets(service).min(1))
    }

    fn end_probe(&mut self, id: &ProbeTarget, passed: bool) {
        let (check, known) = (&self.targets[id], self.known.get_mut(id).expect("a target"));
        known.results.push(passed);
        let needed = if known.failing { check.rise } else { check.fall } as usize;
        let last: Vec<_> = known.results.iter().rev().take(needed).collect();
        let changed = last.len() == needed && last.iter().all(|passed| **passed == known.failing);
        if changed {
            known.failing = !known.failing;
            known.results.clear();
        }
        if changed || (known.reason_is_old && known.failing && !passed) {
            known.reason_is_old = false;
            let failing = known.failing.then(|| "why".into());
            self.expected.push(ProberOutput::Changed { id: id.clone(), failing });
        }
    }

    /// Checks the outputs of the prober: each started or stopped probe is valid, and each other
    /// output is the next expected one.
    fn check_outputs(&mut self, prober: &mut Prober) {
        for output in poll_all(prober) {
            match output {
                ProberOutput::Start { id, ticket, check } => {
                    assert!(
                        self.in_flight.iter().all(|(other, _)| *other != id),
                        "{id} has two probes in flight"
                    );
                    assert_eq!(
                        self.targets.get(&id),
                        Some(&check),
                        "only targets are probed, by their current check"
                    );
                    self.in_flight.push((id.clone(), ticket));
                    self.all.push((id, ticket));
                }
                ProberOutput::Stop(ticket) => {
                    let before = self.in_flight.len();
                    self.in_flight.retain(|(_, other)| *other != ticket);
                    assert_eq!(
                        self.in_flight.len(),
                        before - 1,
                        "only a probe in flight is stopped"
                    );
                }
                change @ (ProberOutput::Changed { .. } | ProberOutput::Removed(_)) => {
                    assert_eq!(Some(&change), self.expected.first());
                    self.expected.remove(0);
                }
            }
            assert!(self.in_flight.len() <= 2);
            assert!(
                SERVICES.iter().all(|service| self.in_flight_of(service) <= 1),
                "a Service has at most one probe in flight"
            );
        }
        assert_eq!(self.expected, [], "every change is reported");
        assert!(
            self.in_flight.iter().all(|(id, _)| self.targets.contains_key(id)),
            "the probe of a removed target is stopped"
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
        ..config(interval)
    }
}

proptest! {
    #[test]
    fn the_prober_matches_the_model(steps in steps()) {
        let (mut prober, mut model, mut now) = (Prober::bounded(100, 2, 1), ProberModel::default(), Instant::from_millis(5));
        for step in steps {
            match step {
                ProberStep::Set(selected, checks) => {
                    let chosen = (0..8).filter(|n| selected >> n & 1 == 1);
                    let targets: TargetMap = chosen.map(|n| (target_of(SERVICES[n / 3], n), Arc::new(check_of(checks.rotate_left(n as u32))))).collect();
                    model.set_targets(&targets);
                    prober.handle(ProberInput::Targets(targets.into_iter().collect()), now);
                }
                ProberStep::Keep(selected) => {
                    let is_kept = |id: &ProbeTarget| (0..8).any(|n| selected >> n & 1 == 1 && *id == target_of(SERVICES[n / 3], n));
                    let targets: TargetMap = model.targets.clone().into_iter().filter(|(id, _)| is_kept(id)).collect();
                    model.set_targets(&targets);
                    prober.handle(ProberInput::Targets(targets.into_iter().collect()), now);
                }
                ProberStep::Wait(millis) => {
                    let until = now + Duration::from_millis(millis);
                    // A driver may call `tick` late, but only for a deadline that the prober
                    // requested.
                    while let Some(due) = prober.deadline().filter(|due| *due <= until) {
                        now = now.max(due);
                        prober.tick(now);
                        model.check_outputs(&mut prober);
                    }
                    now = until;
                }
                ProberStep::End(n, passed) => {
                    if model.in_flight.is_empty() {
                        continue;
                    }
                    let (id, ticket) = model.in_flight.remove(n % model.in_flight.len());
                    model.end_probe(&id, passed);
                    let outcome = if passed { Ok(()) } else { Err("why".into()) };
                    prober.handle(ProberInput::Result { id, ticket, outcome }, now);
                }
                ProberStep::Repeat(n) => {
                    let Some((id, ticket)) = model.all.get(n % model.all.len().max(1)).cloned() else { continue };
                    if !model.in_flight.iter().any(|(_, other)| *other == ticket) {
                        prober.handle(ProberInput::Result { id, ticket, outcome: Err("late".into()) }, now);
                    }
                }
            }
            model.check_outputs(&mut prober);
            if model.has_room() {
                let due = prober.deadline().expect("the deadline of the next probe");
                prop_assert!(due > now && due.since(now) <= Duration::from_millis(150), "the next probe is due within an interval");
            }
        }
    }
}
