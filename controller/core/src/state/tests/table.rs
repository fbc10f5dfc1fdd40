//! Tests of the rule table: each row has the objects of a cluster, and the expected addresses and
//! conditions.
//!
//! Each row runs many times: in every [`RunMode`], in shuffled orders, and with restarts of the
//! controller between the steps and between the writes of a step. The result must always be the
//! same.

use super::script::{Op, Row, rows, service_key};
use super::*;
use ferrolb_proto::facts::{EndpointSlice, Namespace, Node, Pool, Service, Speaker};

/// Files with the rows: every rule of address assignment that users can observe.
const ROW_FILES: [(&str, &str); 7] = [
    ("pools", include_str!("rows/pools.txt")),
    ("hosts", include_str!("rows/hosts.txt")),
    ("requests", include_str!("rows/requests.txt")),
    ("sharing", include_str!("rows/sharing.txt")),
    ("families", include_str!("rows/families.txt")),
    ("types", include_str!("rows/types.txt")),
    ("modes", include_str!("rows/modes.txt")),
];

/// Number of runs of each row per [`RunMode`], each with its own random seed.
const SEED_COUNT: u64 = 6;

/// Time at which the controller starts, relative to the changes of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RunMode {
    /// All objects of a step exist before the controller starts, in a shuffled order.
    Listed,
    /// The controller starts before the objects exist. Its writes are executed immediately or
    /// later.
    Live,
    /// As `Listed`, but another controller takes over after some of the writes.
    Restarted,
}

impl Cluster {
    pub(super) fn apply_change(&mut self, change: &Op, live: bool) {
        let event = self.event_of(change);
        if live {
            self.handle(event);
        }
    }

    /// Applies the change to the cluster, and returns the event by which a watch reports the
    /// change.
    pub(super) fn event_of(&mut self, change: &Op) -> Event {
        match change.clone() {
            Op::Service(service) => {
                let before = self
                    .services
                    .get(&service.key)
                    .filter(|_| service.assigned.is_empty() && !service.has_foreign_ingress);
                let service = match before {
                    Some(Service {
                        assigned,
                        pool_annotation: from_pool,
                        record,
                        conditions,
                        ingress_manager,
                        has_own_fields,
                        ..
                    }) => Service {
                        ingress_manager: ingress_manager.clone(),
                        has_own_fields: *has_own_fields,
                        assigned: assigned.clone(),
                        pool_annotation: from_pool.clone(),
                        record: record.clone(),
                        conditions: conditions.clone(),
                        ..service
                    },
                    None => service,
                };
                self.services.insert(service.key.clone(), service.clone());
                Event::of::<Service>(Change::Apply(service))
            }
            Op::Pool(pool) => {
                let status =
                    self.pools.get(&pool.name).map(|pool| pool.status.clone()).unwrap_or_default();
                let pool = Pool { status, ..pool };
                self.pools.insert(pool.name.clone(), pool.clone());
                Event::of::<Pool>(Change::Apply(pool))
            }
            Op::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace.clone());
                Event::of::<Namespace>(Change::Apply(namespace))
            }
            Op::Node(node) => {
                self.nodes.insert(node.name.clone(), node.clone());
                Event::of::<Node>(Change::Apply(node))
            }
            Op::Speaker(speaker) => {
                self.speakers.insert(speaker.node.clone(), speaker.clone());
                Event::of::<Speaker>(Change::Apply(speaker))
            }
            Op::Slice(slice) => {
                self.api_server = Some(slice.clone());
                Event::of::<EndpointSlice>(Change::Apply(slice))
            }
            Op::Delete(kind, name) => self.remove(&kind, &name),
        }
    }

    fn remove(&mut self, kind: &str, name: &str) -> Event {
        let key = service_key(name);
        match kind {
            "svc" => {
                assert!(self.services.remove(&key).is_some(), "{name}");
                Event::of::<Service>(Change::Delete(key))
            }
            "pool" => {
                assert!(self.pools.remove(name).is_some(), "{name}");
                Event::of::<Pool>(Change::Delete(Key::new(api::NAMESPACE, name)))
            }
            "node" => {
                assert!(self.nodes.remove(name).is_some(), "{name}");
                Event::of::<Node>(Change::Delete(Key::new("", name)))
            }
            "speaker" => {
                assert!(self.speakers.remove(name).is_some(), "{name}");
                Event::of::<Speaker>(Change::Delete(Key::new(api::NAMESPACE, name)))
            }
            "ns" => {
                assert!(self.namespaces.remove(name).is_some(), "{name}");
                Event::of::<Namespace>(Change::Delete(Key::new("", name)))
            }
            _ => panic!("{kind} is not a valid kind"),
        }
    }

    /// Executes a random number of the due writes.
    fn write_some(&mut self, random: &mut Random) {
        let writes = self.writes();
        for write in writes.iter().take(random.below(writes.len() + 1)) {
            self.write(write);
        }
    }
}

fn run_row(file: &str, row: &Row, mode: RunMode, seed: u64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed + 1));
    let mut cluster = Cluster::new(vec![], vec![]);
    for (number, step) in row.steps.iter().enumerate() {
        let mut changes = step.changes.clone();
        // In the first step, Services keep the order of the row, and other objects get random
        // places.
        if number == 0 {
            let mut others: Vec<_> =
                changes.extract_if(.., |change| !matches!(change, Op::Service(_))).collect();
            random.shuffle(&mut others);
            for (position, other) in others.into_iter().enumerate() {
                let index = if row.first_come { position } else { random.below(changes.len() + 1) };
                changes.insert(index, other);
            }
        }
        // In mode `Live`, one pass of the main loop may handle several changes.
        let mut pass = Vec::new();
        for change in &changes {
            pass.push(cluster.event_of(change));
            if mode == RunMode::Live && random.below(2) == 0 {
                cluster.handle_all(std::mem::take(&mut pass));
                cluster.write_some(&mut random);
            }
        }
        if mode == RunMode::Live {
            cluster.handle_all(pass);
        }
        if mode != RunMode::Live {
            cluster.restart_with(Order::Shuffled(random));
        }
        if mode == RunMode::Restarted {
            cluster.write_some(&mut random);
            cluster.restart_with(Order::Shuffled(random));
        }
        cluster.settle();
        let step_number = number + 1;
        let context =
            format!("{file}.txt: {} (step {step_number}, {mode:?}, seed {seed})", row.name);
        step.expected.iter().for_each(|expected| check(&cluster, expected, &context));
        let (statuses, written) = (cluster.statuses(), cluster.log.len());
        cluster.restart_with(Order::Shuffled(random));
        cluster.settle();
        assert_eq!(
            cluster.log.len(),
            written,
            "{context}: the new leader writes after a restart: {:?}",
            &cluster.log[written..]
        );
        assert_eq!(cluster.statuses(), statuses, "{context}: a restart changes a status");
    }
}

/// Compares one expectation with the cluster.
fn check(cluster: &Cluster, expected: &str, context: &str) {
    let (words, text) = expected.split_once(" says ").unwrap_or((expected, ""));
    let words: Vec<&str> = words.split_whitespace().collect();
    if let ["pool", name, reason, counts @ ..] = words.as_slice() {
        let status = &cluster.pools[*name].status;
        let condition = &status.conditions[0];
        assert_eq!(&condition.reason, reason, "{context}: pool {name}: {}", condition.message);
        check_text(&condition.message, text, &format!("{context}: pool {name}"));
        let available =
            |count: Option<i64>| count.map_or_else(|| "huge".to_owned(), |count| count.to_string());
        let actual = [
            format!("{}/{}", status.assigned_ipv4, available(status.available_ipv4)),
            format!("{}/{}", status.assigned_ipv6, available(status.available_ipv6)),
        ];
        assert_eq!(&actual[..counts.len()], counts, "{context}: pool {name} has these counts");
        return;
    }
    let (name, rest) = words.split_first().expect("the expectation begins with a name");
    let service = &cluster.services[&service_key(name)];
    let addresses =
        joined(&service.assigned.iter().map(|assigned| assigned.address).collect::<Vec<_>>());
    let condition = service.conditions.first();
    match rest {
        ["cleared"] => {
            assert_eq!(
                (addresses.as_str(), &service.pool_annotation, condition),
                ("", &None, None),
                "{context}: Service {name} is cleared"
            );
        }
        ["untouched"] => {
            let written = cluster
                .log
                .iter()
                .any(|line| line.starts_with(&format!("{} ", service_key(name).name())));
            assert!(!written, "{context}: {name} was written: {:?}", cluster.log);
        }
        [wanted, reason, more @ ..] => {
            let condition =
                condition.unwrap_or_else(|| panic!("{context}: {name} has no condition"));
            let actual = (if addresses.is_empty() { "-" } else { &addresses }, &*condition.reason);
            assert_eq!(actual, (*wanted, *reason), "{context}: {name}: {:?}", condition.message);
            check_text(&condition.message, text, &format!("{context}: {name}"));
            assert_eq!(
                condition.status == api::ConditionStatus::True,
                *reason == "Assigned",
                "{context}: the condition of Service {name} is True only if its reason is Assigned"
            );
            for (word, value) in more.iter().map(|word| word.split_once('=').expect("WORD=VALUE")) {
                let actual = match word {
                    "pool" => service.pool_annotation.as_deref().unwrap_or_default().to_owned(),
                    "mode" => format!("{:?}", service.assigned[0].mode.expect("an ipMode")),
                    _ => panic!("{word} is not a valid word of an expectation"),
                };
                assert_eq!(actual, value, "{context}: Service {name} has the expected {word}");
            }
        }
        _ => panic!("{expected:?} is not a valid expectation"),
    }
}

fn check_text(message: &str, text: &str, context: &str) {
    assert!(message.contains(text), "{context}: the message {message:?} lacks {text:?}");
}

#[test]
fn every_row_has_its_result_in_every_order_and_after_restarts() {
    let (mut step_count, mut failed) = (0, 0);
    for (file, text) in ROW_FILES {
        for row in rows(text) {
            assert!(
                row.steps.iter().all(|step| !step.expected.is_empty()),
                "{file}: a step of row \"{}\" has no expectation",
                row.name
            );
            // Run all rows even if one fails: each failure names its row.
            let run_all = || {
                for seed in 0..SEED_COUNT {
                    for mode in [RunMode::Listed, RunMode::Live, RunMode::Restarted] {
                        run_row(file, &row, mode, seed);
                    }
                }
            };
            failed += usize::from(std::panic::catch_unwind(run_all).is_err());
            step_count += row.steps.len();
        }
    }
    assert_eq!(failed, 0, "all rows must succeed");
    assert!(step_count >= STEPS_MIN, "the table has {step_count} steps, fewer than {STEPS_MIN}");
}

/// Minimum number of steps in the table, so that a bug in reading the files does not skip any.
const STEPS_MIN: usize = 200;
