//! Random histories of what clusters do to Services, pools and annotations: an address changes only
//! if its user asks, or if a request takes it while its Service does not exist.

use proptest::prelude::*;

use super::*;
use crate::state::service::is_cleared;

/// The Services whose addresses must stay. Those of other users are in the namespace [`OTHERS`],
/// whose name precedes theirs.
const OWNERS: usize = 4;
const OTHERS: &str = "a-team";
const REQUESTING: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    /// Another client clears the status.
    Clear(usize),
    /// Another client removes the annotation.
    Strip(usize),
    /// The Service is deleted, and restored from a backup without status.
    Restore(usize),
    /// A new leader, some seconds later.
    Restart(u64),
    /// A new leader, before the former one has written anything.
    Crash,
    Wait(u64),
    RemovePool,
    CreatePool,
    /// A user copies a Service with all annotations into another namespace.
    Copy(usize),
    /// A user writes the record of another Service's address.
    Forge(usize),
    /// A user requests the address of another Service.
    Request(usize),
    /// A user creates a Service.
    New,
}

fn op() -> impl Strategy<Value = Op> {
    let owner = 0..OWNERS;
    let seconds = prop_oneof![Just(1), Just(30), Just(70), Just(700), Just(90_000)];
    prop_oneof![
        4 => owner.clone().prop_map(Op::Clear),
        1 => owner.clone().prop_map(Op::Strip),
        2 => owner.clone().prop_map(Op::Restore),
        2 => seconds.clone().prop_map(Op::Restart),
        2 => Just(Op::Crash),
        3 => seconds.prop_map(Op::Wait),
        2 => Just(Op::RemovePool),
        3 => Just(Op::CreatePool),
        1 => owner.clone().prop_map(Op::Copy),
        1 => owner.clone().prop_map(Op::Forge),
        2 => owner.prop_map(Op::Request),
        1 => Just(Op::New),
    ]
}

/// A cluster, and the addresses that must stay.
struct History {
    cluster: Cluster,
    /// The address of each owner; `None` if the address may change.
    expected: Vec<Option<IpAddr>>,
    /// The owners that did not exist for a moment.
    restored: Vec<bool>,
}

fn owner(n: usize) -> Key {
    key(&format!("s{n}"))
}

fn of_others(name: &str) -> Service {
    Service {
        key: Key::new(OTHERS, name),
        uid: format!("{name} of others").into(),
        ..service(name)
    }
}

fn the_pool() -> Pool {
    pool("lan", &["10.0.0.1-10.0.0.16"])
}

impl History {
    fn new() -> Self {
        let first = service("first");
        let owners = (0..OWNERS).map(|n| {
            let mut owner = service(&format!("s{n}"));
            // One of them requests the address that it has.
            let requested = (n == REQUESTING).then_some([10, 0, 0, 9].into());
            owner.demand.request.addresses = requested.into_iter().collect();
            owner
        });
        let mut cluster =
            Cluster::new([first].into_iter().chain(owners).collect(), vec![the_pool()]);
        // A lower address is free, so that a Service without a memory gets another one.
        cluster.delete("first");
        cluster.settle();
        let address = |n| Some(cluster.services[&owner(n)].assigned[0].address);
        let expected = (0..OWNERS).map(address).collect();
        Self { cluster, expected, restored: vec![false; OWNERS] }
    }

    fn has_pool(&self) -> bool {
        !self.cluster.pools.is_empty()
    }

    fn execute(&mut self, op: &Op) {
        let cluster = &mut self.cluster;
        match *op {
            Op::Clear(n) => cluster.clear_status(owner(n).name()),
            Op::Strip(n) => cluster.change(owner(n).name(), |service| service.record = None),
            Op::Restore(n) => {
                let backup = from_backup(&cluster.services[&owner(n)]);
                cluster.delete(owner(n).name());
                cluster.apply(backup);
                self.restored[n] = true;
            }
            Op::Restart(seconds) => {
                cluster.settle();
                cluster.now = cluster.now + Duration::from_secs(seconds);
                cluster.restart();
            }
            Op::Crash => cluster.restart(),
            Op::Wait(seconds) => {
                cluster.now = cluster.now + Duration::from_secs(seconds);
                cluster.handle(Event::Tick);
                cluster.settle();
            }
            Op::RemovePool => cluster.delete_pool("lan"),
            Op::CreatePool => cluster.apply_pool(the_pool()),
            Op::Copy(n) => {
                let copied = &cluster.services[&owner(n)];
                let text = copied.record.as_ref().map(|record| record.text(&copied.key));
                let copy = of_others("copy");
                let record = text.and_then(|text| AddressRecord::read(&text, &copy.key));
                cluster.apply(Service { record: record.map(Box::new), ..copy });
            }
            Op::Forge(n) => {
                let address = self.expected[n].into_iter().collect();
                let record = Some(Box::new(AddressRecord { addresses: address, sharing: None }));
                cluster.apply(Service { record, ..of_others("forged") });
            }
            Op::Request(n) => {
                let mut service = of_others(&format!("request{n}"));
                service.demand.request.addresses = self.expected[n].into_iter().collect();
                cluster.apply(service);
            }
            Op::New => cluster.apply(of_others("new")),
        }
    }

    /// Forgets the expected addresses that neither a status nor a record has.
    fn forget_lost(&mut self, op: &Op) {
        let is_forgotten =
            matches!(op, Op::Restart(_) | Op::Crash | Op::Restore(_)) || !self.has_pool();
        let forged = self.cluster.services.get(&Key::new(OTHERS, "forged"));
        let forged = forged.and_then(|it| it.record.as_ref()?.addresses.first().copied());
        for n in 0..OWNERS {
            let fact = &self.cluster.services[&owner(n)];
            let has_status = !fact.assigned.is_empty();
            let no_trace = is_forgotten && !has_status && fact.record.is_none();
            // After the pool was missing, no status tells a record from a forged one.
            let is_known = has_status || is_cleared(fact);
            let is_forged = !is_known && forged.is_some() && forged == self.expected[n];
            if no_trace || is_forged || self.is_taken(n) {
                self.expected[n] = None;
            }
        }
    }

    /// Returns whether a request has taken an address while its Service did not exist.
    fn is_taken(&self, n: usize) -> bool {
        let requester = Key::new(OTHERS, &format!("request{n}"));
        let entry = self.cluster.state.services.get(&requester);
        let assigned = entry.and_then(|entry| entry.assignment.as_ref());
        let has = |address| assigned.is_some_and(|it| it.addresses.contains(&address));
        self.restored[n] && self.expected[n].is_some_and(has)
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        self.cluster.settle();
        for n in 0..OWNERS {
            let Some(expected) = self.expected[n] else { continue };
            let service = &self.cluster.services[&owner(n)];
            let shown: Vec<_> = service.assigned.iter().map(|assigned| assigned.address).collect();
            prop_assert_eq!(shown, [expected], "s{}", n);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn an_address_changes_only_if_its_user_asks(ops in prop::collection::vec(op(), 1..24)) {
        let mut history = History::new();
        for op in &ops {
            history.execute(op);
            history.forget_lost(op);
        }
        history.execute(&Op::CreatePool);
        history.check()?;
        // Nothing moves later, either.
        history.execute(&Op::Restart(1));
        history.check()?;
    }
}
