//! Random histories in which writes fail, are refused, or lose their replies: the final statuses
//! are those that a new controller finds correct.

use super::*;

/// Number of histories, and of changes in each.
const HISTORIES: u64 = 500;
const CHANGES: usize = 60;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Returns a cluster with six possible Services, of which each has endpoints on one or two nodes.
fn topology() -> Topology {
    let nodes = |i: usize| ["n1", "n2", "n3"].into_iter().skip(i % 3).take(2).collect::<Vec<_>>();
    let slices = NAMES.iter().enumerate().map(|(i, name)| endpoint_slice(name, &nodes(i)));
    Topology { services: Vec::new(), slices: slices.collect(), ..Topology::default() }
}

/// One of the due writes ends in one of five ways.
fn end_write(cluster: &mut Cluster, random: &mut Random) {
    let mut writes = cluster.writes();
    writes.sort_by_key(Write::target);
    let name = NAMES[random.below(NAMES.len())];
    let of_service = |write: &&Write| write.target() == Target::Service(key(name));
    let of_resource = |write: &&Write| !matches!(write.target(), Target::Service(_));
    let result = random.below(5);
    let Some(write) = writes.iter().find(of_service).or(writes.iter().find(of_resource)) else {
        return;
    };
    match result {
        0 | 1 => cluster.write(write),
        2 => {
            cluster.store_write(write);
            cluster.report(write, Outcome::Failed);
        }
        3 => cluster.report(write, Outcome::Failed),
        _ => cluster.report(write, Outcome::Refused),
    }
}

fn change(cluster: &mut Cluster, topology: &Topology, random: &mut Random) {
    let name = NAMES[random.below(NAMES.len())];
    let number = random.below(8) as u8;
    let exists = cluster.services.contains_key(&key(name));
    match random.below(20) {
        0..3 if !exists => cluster.apply(service(name)),
        0 => cluster.delete(name),
        1 if exists => cluster.change(name, |it| {
            it.demand.request.addresses = vec![[10, 0, 0, number].into()];
        }),
        2 if exists => cluster.change(name, |it| it.demand.request.addresses.clear()),
        3 if exists => cluster.change(name, |it| it.policy = TrafficPolicy::Local),
        4 if exists => cluster.clear_status(name),
        5 if exists => cluster.change(name, |it| it.record = None),
        6 if exists => cluster.change(name, |it| it.conditions = Box::default()),
        7 => cluster.apply_pool(pool("lan", [&["10.0.0.0/24"], &["10.0.0.4/30"]][random.below(2)])),
        8 => {
            let address = format!("10.0.0.{number}");
            let node = ["n1", "n2", "n3"][random.below(3)];
            let changed = speaker(node, &[&address]);
            cluster.handle(Event::of::<Speaker>(Change::Apply(changed)));
        }
        9 if random.below(4) == 0 => {
            cluster.handle(Event::Lease(Leadership::Lost));
            cluster.advance(Duration::from_secs(200));
            let deadline = cluster.state.deadline(cluster.now);
            assert!(deadline.is_none_or(|it| it > cluster.now), "no deadline is over");
            topology.report_lists(cluster, Order::ByName);
        }
        9..12 => {
            cluster.advance(Duration::from_millis(1 << random.below(14)));
        }
        _ => end_write(cluster, random),
    }
}

#[test]
fn after_failed_writes_a_new_controller_finds_nothing_to_write() {
    let (mut ended, topology) = (0, topology());
    for seed in 1..=HISTORIES {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut cluster = topology.clone().settled_cluster();
        for _ in 0..CHANGES {
            change(&mut cluster, &topology, &mut random);
        }
        for node in ["n1", "n2", "n3"] {
            cluster.handle(Event::of::<Speaker>(Change::Apply(speaker(node, &[]))));
        }
        cluster.settle();
        cluster.log.clear();
        let pool = cluster.pools.clone();
        let services = cluster.services.clone();
        cluster.state = State::new(config());
        topology.report_lists(&mut cluster, Order::ByName);
        cluster.settle();
        assert_eq!(cluster.log, Vec::<String>::new(), "history {seed}");
        assert!(cluster.services == services && cluster.pools == pool, "history {seed}");
        ended += services.len();
    }
    assert!(ended > 500, "{ended} Services at the end");
}
