//! Rule table: objects in, addresses and conditions out.
//!
//! Each row runs many times: listed and live, in shuffled orders, with restarts between its steps
//! and in the middle of its writes. The result is always the same.

use super::script::{Op, Row, named, rows};
use super::*;

/// Every rule of address assignment that a user can meet.
const ROWS: [(&str, &str); 6] = [
    ("pools", include_str!("rows/pools.txt")),
    ("requests", include_str!("rows/requests.txt")),
    ("sharing", include_str!("rows/sharing.txt")),
    ("families", include_str!("rows/families.txt")),
    ("types", include_str!("rows/types.txt")),
    ("modes", include_str!("rows/modes.txt")),
];

/// Runs of each row per [`Manner`].
const SEEDS: u64 = 6;

/// Way to run a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// All objects of a step exist before the controller starts, in a shuffled order.
    Listed,
    /// The controller starts first. Its writes are done immediately or late.
    Live,
    /// As `Listed`, but another controller takes over after some of the writes.
    Restarted,
}

impl World {
    pub(super) fn undergo(&mut self, change: &Op, live: bool) {
        let event = self.event_of(change);
        if live {
            self.handle(event);
        }
    }

    /// Applies the change to the cluster, and returns the event that reports it.
    fn event_of(&mut self, change: &Op) -> Event {
        match change.clone() {
            Op::Service(service) => {
                let before = self
                    .services
                    .get(&service.key)
                    .filter(|_| service.assigned.is_empty() && !service.has_non_ip_ingress);
                let service = match before {
                    Some(Service {
                        assigned,
                        pool_annotation: from_pool,
                        sharing_parameters,
                        conditions,
                        ..
                    }) => Service {
                        assigned: assigned.clone(),
                        pool_annotation: from_pool.clone(),
                        sharing_parameters: *sharing_parameters,
                        conditions: conditions.clone(),
                        ..service
                    },
                    None => service,
                };
                self.services.insert(service.key.clone(), service.clone());
                Event::Service(Change::Apply(service))
            }
            Op::Pool(pool) => {
                let status =
                    self.pools.get(&pool.name).map(|pool| pool.status.clone()).unwrap_or_default();
                let pool = Pool { status, ..pool };
                self.pools.insert(pool.name.clone(), pool.clone());
                Event::Pool(Change::Apply(pool))
            }
            Op::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace.clone());
                Event::Namespace(Change::Apply(namespace))
            }
            Op::Node(node) => {
                self.nodes.insert(node.name.clone(), node.clone());
                Event::Node(Change::Apply(node))
            }
            Op::Gone(kind, name) => self.remove(&kind, &name),
        }
    }

    fn remove(&mut self, kind: &str, name: &str) -> Event {
        let key = named(name);
        match kind {
            "svc" => {
                assert!(self.services.remove(&key).is_some(), "{name}");
                Event::Service(Change::Delete(key))
            }
            "pool" => {
                assert!(self.pools.remove(name).is_some(), "{name}");
                Event::Pool(Change::Delete(Key::new(api::NAMESPACE, name)))
            }
            "node" => {
                assert!(self.nodes.remove(name).is_some(), "{name}");
                Event::Node(Change::Delete(Key::new("", name)))
            }
            "ns" => {
                assert!(self.namespaces.remove(name).is_some(), "{name}");
                Event::Namespace(Change::Delete(Key::new("", name)))
            }
            _ => panic!("{kind} is no kind"),
        }
    }

    /// Executes some of the due writes, or none.
    fn write_some(&mut self, chance: &mut Chance) {
        let writes = self.writes();
        for write in writes.iter().take(chance.below(writes.len() + 1)) {
            self.write(write);
        }
    }
}

fn play(row: &Row, manner: Manner, seed: u64) {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15 ^ (seed + 1));
    let mut world = World::new(vec![], vec![]);
    for (number, step) in row.steps.iter().enumerate() {
        let mut changes = step.changes.clone();
        // Changes of a later step keep their order. Services keep the order of the row.
        if number == 0 {
            let mut others: Vec<_> =
                changes.extract_if(.., |change| !matches!(change, Op::Service(_))).collect();
            chance.shuffle(&mut others);
            for (place, other) in others.into_iter().enumerate() {
                let place = if row.first_come { place } else { chance.below(changes.len() + 1) };
                changes.insert(place, other);
            }
        }
        // In `Live`, one pass may handle several changes.
        let mut pass = Vec::new();
        for change in &changes {
            pass.push(world.event_of(change));
            if manner == Manner::Live && chance.below(2) == 0 {
                world.handle_all(std::mem::take(&mut pass));
                world.write_some(&mut chance);
            }
        }
        if manner == Manner::Live {
            world.handle_all(pass);
        }
        if manner != Manner::Live {
            world.restart_in(Order::Shuffled(chance));
        }
        if manner == Manner::Restarted {
            world.write_some(&mut chance);
            world.restart_in(Order::Shuffled(chance));
        }
        world.settle();
        let context = format!("{} (step {}, {manner:?}, seed {seed})", row.name, number + 1);
        step.expected.iter().for_each(|expected| check(&world, expected, &context));
        let (shown, written) = (world.shown(), world.log.len());
        world.restart_in(Order::Shuffled(chance));
        world.settle();
        assert_eq!(
            world.log.len(),
            written,
            "{context}: a restart writes: {:?}",
            &world.log[written..]
        );
        assert_eq!(world.shown(), shown, "{context}: a restart changes something");
    }
}

/// Compares one expectation with the cluster.
fn check(world: &World, expected: &str, context: &str) {
    let (words, says) = expected.split_once(" says ").unwrap_or((expected, ""));
    let words: Vec<&str> = words.split_whitespace().collect();
    if let ["pool", name, reason, counts @ ..] = words.as_slice() {
        let status = &world.pools[*name].status;
        let condition = &status.conditions[0];
        assert_eq!(&condition.reason, reason, "{context}: pool {name}: {}", condition.message);
        assert!(
            condition.message.contains(says),
            "{context}: pool {name} says {:?}",
            condition.message
        );
        let available =
            |count: Option<i64>| count.map_or_else(|| "huge".to_owned(), |count| count.to_string());
        let is = [
            format!("{}/{}", status.assigned_ipv4, available(status.available_ipv4)),
            format!("{}/{}", status.assigned_ipv6, available(status.available_ipv6)),
        ];
        assert_eq!(&is[..counts.len()], counts, "{context}: pool {name}");
        return;
    }
    let (name, rest) = words.split_first().expect("a name");
    let service = &world.services[&named(name)];
    let addresses =
        text(&service.assigned.iter().map(|assigned| assigned.address).collect::<Vec<_>>());
    let condition = service.conditions.first();
    match rest {
        ["cleared"] => {
            assert_eq!(
                (addresses.as_str(), &service.pool_annotation, condition),
                ("", &None, None),
                "{context}: {name}"
            );
        }
        ["untouched"] => {
            let written =
                world.log.iter().any(|line| line.starts_with(&format!("{} ", named(name).name)));
            assert!(!written, "{context}: {name} was written: {:?}", world.log);
        }
        [wanted, reason, more @ ..] => {
            let condition =
                condition.unwrap_or_else(|| panic!("{context}: {name} has no condition"));
            let is = (if addresses.is_empty() { "-" } else { &addresses }, &*condition.reason);
            assert_eq!(is, (*wanted, *reason), "{context}: {name} says {:?}", condition.message);
            assert!(
                condition.message.contains(says),
                "{context}: {name} says {:?}",
                condition.message
            );
            assert_eq!(
                condition.status == api::ConditionStatus::True,
                *reason == "Assigned",
                "{context}: {name}"
            );
            for (word, value) in more.iter().map(|word| word.split_once('=').expect("WORD=VALUE")) {
                let is = match word {
                    "pool" => service.pool_annotation.as_deref().unwrap_or_default().to_owned(),
                    "mode" => format!("{:?}", service.assigned[0].mode.expect("a mode")),
                    _ => panic!("{word} is no word of an expectation"),
                };
                assert_eq!(is, value, "{context}: {name} {word}");
            }
        }
        _ => panic!("{expected:?} is no expectation"),
    }
}

#[test]
fn every_row_of_the_table_comes_out_the_same_in_every_order_and_across_restarts() {
    let (mut played, mut failed) = (0, 0);
    for (file, text) in ROWS {
        for row in rows(text) {
            assert!(
                row.steps.iter().all(|step| !step.expected.is_empty()),
                "{file}: {} expects nothing",
                row.name
            );
            // Run all rows even if one fails: each failure names its row.
            let play_all = || {
                for seed in 0..SEEDS {
                    for manner in [Manner::Listed, Manner::Live, Manner::Restarted] {
                        play(&row, manner, seed);
                    }
                }
            };
            failed += usize::from(std::panic::catch_unwind(play_all).is_err());
            played += row.steps.len();
        }
    }
    assert_eq!(failed, 0, "rows have failed");
    assert!(played >= ROWS_MIN, "{played} rows are left of {ROWS_MIN}");
}

/// Lower limit for the steps with expectations in the table, so that a bug in reading the files
/// cannot lose any.
const ROWS_MIN: usize = 200;
