//! Random changes of a cluster, whose results are compared with the model.

use proptest::prelude::*;

use super::super::script::{Op, rows, service_key};
use super::*;

/// Generates a line of a row, as in [`super::script`], from few words of each type, so that
/// different lines refer to the same objects.
pub(super) fn line() -> impl Strategy<Value = String> {
    let pool = (0..4u8, 0..7usize, prop::sample::subsequence(POOL_WORDS.to_vec(), 0..3)).prop_map(
        |(name, ranges, words)| format!("pool p{name} {} {}", RANGES[ranges], words.join(" ")),
    );
    let service = (0..10u8, 0..6usize, prop::sample::subsequence(SERVICE_WORDS.to_vec(), 0..5))
        .prop_map(|(name, families, words)| {
            let namespace = ["red", "blue"][usize::from(name % 2)];
            format!("svc {namespace}/s{name} {} {}", FAMILIES[families], words.join(" "))
        });
    prop_oneof![
        4 => pool,
        12 => service,
        1 => (0..9u8).prop_map(|last| format!("node n 10.0.0.{last}")),
        1 => (0..9u8, 0..9u8, prop_oneof![Just(30), Just(29)]).prop_map(|(host, gateway, length)| {
            format!("speaker n1 hosts=10.0.0.{host} gateways=10.0.0.{gateway} subnets=10.0.0.0/{length}")
        }),
        1 => (0..9u8).prop_map(|last| format!("apiserver 10.0.0.{last}")),
        1 => any::<bool>().prop_map(|warm| format!("ns red colour={}", if warm { "warm" } else { "cold" })),
        3 => (0..10u8).prop_map(|name| format!("gone svc {}/s{name}", ["red", "blue"][usize::from(name % 2)])),
        1 => (0..4u8).prop_map(|name| format!("gone pool p{name}")),
    ]
}

const RANGES: [&str; 7] = [
    "10.0.0.0-10.0.0.3",
    "10.0.0.2-10.0.0.5,fd00::/127",
    "10.0.0.8,10.0.0.4-10.0.0.6",
    "fd00::2-fd00::4",
    "10.0.0.255-10.0.1.1,fd01::1",
    "10.0.0.3-10.0.0.1",
    "10.0.2.0/31,fd02::/127",
];
const POOL_WORDS: [&str; 10] = [
    "sticky=24h",
    "made=5",
    "manual",
    "buggy",
    "exclude=10.0.0.4,10.0.2.0",
    "prio=3",
    "prio=7",
    "ns=red",
    "nssel=colour:warm",
    "svcsel=tier:web",
];
const FAMILIES: [&str; 6] =
    ["v4", "v6", "v4 v6 require", "v6 v4 prefer", "v4 v6 prefer", "v4 require"];
const SERVICE_WORDS: [&str; 15] = [
    "key=k",
    "key=l",
    "ports=TCP/1",
    "ports=TCP/1,UDP/2",
    "ports=UDP/1",
    "ports=",
    "local",
    "sel=one",
    "label=tier:web",
    "pool=p1",
    "ips=10.0.0.2",
    "ips=10.0.0.5,fd00::1",
    "ips=fd00::",
    "external=10.0.0.4",
    "type=NodePort",
];

impl Cluster {
    /// Returns true if the objects that the change deletes exist.
    pub(super) fn is_possible(&self, op: &Op) -> bool {
        match op {
            Op::Delete(kind, name) if kind == "svc" => {
                self.services.contains_key(&service_key(name))
            }
            Op::Delete(_, name) => self.pools.contains_key(name.as_str()),
            Op::Service(_)
            | Op::Pool(_)
            | Op::Namespace(_)
            | Op::Node(_)
            | Op::Speaker(_)
            | Op::Slice(_) => true,
        }
    }
}

/// Applies one change to the cluster, and compares the result with the model.
fn apply_and_check(cluster: &mut Cluster, op: &Op) -> Result<(), TestCaseError> {
    let before = AssignmentModel::new(cluster).assigned;
    let expected = match op {
        // A new Service is the only one that changes, so the model can predict its addresses.
        Op::Service(service)
            if !cluster.services.contains_key(&service.key) && service.load_balancer =>
        {
            let has_request = !service.demand.request.addresses.is_empty()
                || service.demand.request.problem.is_some();
            let external = !service.demand.external_ips.is_empty();
            let mut cluster_with_service = Cluster {
                services: cluster.services.clone(),
                ..Cluster::without_leader(vec![], vec![])
            };
            cluster_with_service.services.insert(service.key.clone(), service.clone());
            cluster_with_service.copy_inputs(cluster);
            let remembered = AssignmentModel::new(cluster).remembered;
            let assigned = before.clone();
            let model = AssignmentModel { cluster: &cluster_with_service, assigned, remembered };
            (!has_request && !external)
                .then(|| (service.key.clone(), model.expected_addresses(service)))
        }
        Op::Service(_)
        | Op::Pool(_)
        | Op::Namespace(_)
        | Op::Node(_)
        | Op::Speaker(_)
        | Op::Slice(_)
        | Op::Delete(..) => None,
    };
    cluster.apply_change(op, true);
    cluster.settle();
    let model = AssignmentModel::new(cluster);
    prop_assert_eq!(model.illegal_assignment(&before), None);
    prop_assert_eq!(model.unserved_service(), None);
    if let Some((key, expected_addresses)) = expected {
        prop_assert_eq!(model.assigned.get(&key), Some(&expected_addresses), "{}", key);
    }
    // A change of one Service or of a host must not remove another one's addresses, unless that one
    // gets more.
    let changed = match op {
        Op::Service(service) => Some(Some(&service.key)),
        Op::Node(_) | Op::Speaker(_) | Op::Slice(_) => Some(None),
        Op::Pool(_) | Op::Namespace(_) | Op::Delete(..) => None,
    };
    if let Some(changed) = changed {
        let others = before.iter().filter(|(key, had)| Some(*key) != changed && !had.is_empty());
        for (key, had) in others {
            let has = &model.assigned[key];
            prop_assert!(
                had.iter().all(|address| has.contains(address)) || has.len() > had.len(),
                "Service {} had {:?} and has {:?}",
                key,
                had,
                has
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn assignments_are_legal_and_all_possible_requests_are_met(lines in prop::collection::vec(line(), 1..40)) {
        let mut cluster = Cluster::new(vec![], vec![]);
        for name in ["red", "blue"] {
            cluster.apply_change(&Op::Namespace(Namespace { name: name.into(), ..Namespace::default() }), true);
        }
        for line in lines {
            let row = rows(&format!("row: one\n{line}")).remove(0);
            let op = &row.steps[0].changes[0];
            if cluster.is_possible(op) {
                apply_and_check(&mut cluster, op)?;
            }
        }
        let (statuses, written) = (cluster.statuses(), cluster.log.len());
        cluster.restart();
        cluster.settle();
        prop_assert_eq!(cluster.statuses(), statuses);
        prop_assert_eq!(cluster.log.len(), written, "the new leader writes after a restart: {:?}", &cluster.log[written..]);
    }
}
