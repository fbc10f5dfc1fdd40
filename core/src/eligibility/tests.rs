//! Comparison of [`serving`] with a simple model of `docs/configure/health.md` (eligible
//! endpoints), for every combination of its inputs.

use super::*;

/// Name of the node whose eligibility is computed.
const NODE: &str = "a";
const ADDRESSES: [&str; 2] = ["10.0.0.1", "fd00::1"];
const FAILING: [&[Family]; 4] = [&[], &[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
const CONDITIONS: [EndpointCondition; 3] =
    [EndpointCondition::ReadyOrTerminating, EndpointCondition::Ready, EndpointCondition::Serving];
/// The number of compared combinations: all sets of at most two of the 48 endpoints, times 2
/// policies, 3 endpoint conditions, 2 addresses and 4 sets of failing families.
const ROWS: usize = (1 + 48 + 48 * 47 / 2) * 2 * 3 * 2 * 4;
/// All results, each with a name.
const RESULTS: [(&str, Result<Serving, Ineligible>); 6] = [
    ("ready", Ok(Serving { terminating: false, failing: false })),
    ("terminating", Ok(Serving { terminating: true, failing: false })),
    ("failing", Ok(Serving { terminating: false, failing: true })),
    ("failing and terminating", Ok(Serving { terminating: true, failing: true })),
    ("no local endpoint", Err(Ineligible::NoLocalEndpoint)),
    ("no endpoint", Err(Ineligible::NoEndpoint)),
];

/// Returns one endpoint for every combination of conditions, node and family.
fn every_endpoint() -> Vec<Endpoint> {
    let mut all = Vec::new();
    for conditions in 0..8 {
        for node in [Some(NODE), Some("b"), None] {
            for family in [Family::V4, Family::V6] {
                let [ready, serving, terminating] = [1, 2, 4].map(|bit| conditions & bit != 0);
                all.push(Endpoint {
                    node: node.map(Into::into),
                    family,
                    ready,
                    serving,
                    terminating,
                });
            }
        }
    }
    all
}

/// Returns all sets of zero, one or two of these endpoints.
fn sets_up_to_two(all: &[Endpoint]) -> Vec<Vec<&Endpoint>> {
    let mut sets = vec![vec![]];
    for (i, one) in all.iter().enumerate() {
        sets.push(vec![one]);
        sets.extend(all[i + 1..].iter().map(|other| vec![one, other]));
    }
    sets
}

/// Returns whether an endpoint is eligible, as in the documentation: by default if it is ready, or
/// serving while it terminates. With the annotation, only if it is ready, or only if it is serving.
fn is_eligible(condition: EndpointCondition, endpoint: &Endpoint) -> bool {
    let alternatives = match condition {
        EndpointCondition::ReadyOrTerminating => {
            vec![vec!["ready"], vec!["serving", "terminating"]]
        }
        EndpointCondition::Ready => vec![vec!["ready"]],
        EndpointCondition::Serving => vec![vec!["serving"]],
    };
    let is_true = |name: &&str| match *name {
        "ready" => endpoint.ready,
        "serving" => endpoint.serving,
        "terminating" => endpoint.terminating,
        _ => panic!("unknown endpoint condition {name:?}"),
    };
    alternatives.iter().any(|all| all.iter().all(is_true))
}

/// Returns whether all these endpoints are terminating, whether or not they are ready.
fn all_terminating(local: &[&&Endpoint]) -> bool {
    local.iter().filter(|endpoint| endpoint.terminating).count() == local.len()
}

/// Returns how the node can serve an address of a Service with these properties.
fn serving_of(
    (policy, condition): (TrafficPolicy, EndpointCondition),
    address: &str,
    endpoints: &[&Endpoint],
    failing: &[Family],
) -> &'static str {
    let assigned = ADDRESSES.map(|address| address.parse().expect("an address"));
    let service = ServiceView {
        assigned: &assigned,
        from_pool: None,
        labels: &[],
        endpoints: EligibleEndpoints::new(policy, condition, endpoints.iter().copied()),
        failing_on: failing.iter().map(|family| (NODE, *family)).collect(),
    };
    let result = serving(address.parse().expect("an address"), NODE, [&service]);
    RESULTS.into_iter().find(|(_, of)| *of == result).expect("a known result").0
}

fn expected_result(
    (policy, condition): (TrafficPolicy, EndpointCondition),
    address: &str,
    endpoints: &[&Endpoint],
    failing: &[Family],
) -> &'static str {
    let family = if address.contains(':') { Family::V6 } else { Family::V4 };
    let all: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| endpoint.family == family && is_eligible(condition, endpoint))
        .collect();
    let local: Vec<_> =
        all.iter().copied().filter(|endpoint| endpoint.node == Some(NODE.into())).collect();
    match policy {
        _ if all.is_empty() => "no endpoint",
        TrafficPolicy::Cluster => "ready",
        TrafficPolicy::Local if local.is_empty() => "no local endpoint",
        TrafficPolicy::Local => match (failing.contains(&family), all_terminating(&local)) {
            (true, true) => "failing and terminating",
            (true, false) => "failing",
            (false, true) => "terminating",
            (false, false) => "ready",
        },
    }
}

#[test]
fn every_combination_of_inputs_matches_the_model() {
    let all = every_endpoint();
    let (mut rows, mut of_each) = (0, std::collections::BTreeMap::new());
    for set in sets_up_to_two(&all) {
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            for (condition, address) in CONDITIONS
                .into_iter()
                .flat_map(|condition| ADDRESSES.map(|address| (condition, address)))
            {
                for failing in FAILING {
                    let expect = expected_result((policy, condition), address, &set, failing);
                    let actual = serving_of((policy, condition), address, &set, failing);
                    assert_eq!(
                        actual, expect,
                        "the policy is {policy:?}, the condition {condition:?}, the address \
                         {address}, the failing families {failing:?}, and the endpoints {set:#?}"
                    );
                    rows += 1;
                    *of_each.entry(actual).or_insert(0) += 1;
                }
            }
        }
    }
    assert_eq!(rows, ROWS, "the test compares {rows} combinations");
    assert!(
        of_each.len() == RESULTS.len() && of_each.values().all(|count| *count > 400),
        "the results occur {of_each:?} times"
    );
}

fn ready(node: &str, family: Family) -> Endpoint {
    Endpoint { node: Some(node.into()), family, ready: true, serving: true, terminating: false }
}

#[test]
fn each_address_needs_endpoints_of_its_own_family() {
    let local = (TrafficPolicy::Local, EndpointCondition::default());
    let here_v4 = [&ready(NODE, Family::V4), &ready("b", Family::V4), &ready("b", Family::V6)];
    let results = |endpoints: &[&Endpoint]| {
        ADDRESSES.map(|address| serving_of(local, address, endpoints, &[]))
    };
    assert_eq!(results(&here_v4), ["ready", "no local endpoint"]);
    assert_eq!(results(&here_v4[..2]), ["ready", "no endpoint"]);
}

#[test]
fn a_node_must_serve_every_service_that_has_an_endpoint() {
    let address = ["10.0.0.1".parse().expect("an address")];
    let service =
        |policy, endpoints: &[Endpoint], failing_on: &[(&'static str, Family)]| ServiceView {
            assigned: &address,
            from_pool: None,
            labels: &[],
            endpoints: EligibleEndpoints::new(policy, EndpointCondition::default(), endpoints),
            failing_on: failing_on.to_vec(),
        };
    let (here, away) = ([ready(NODE, Family::V4)], [ready("b", Family::V4)]);
    let terminating = [Endpoint { terminating: true, ..ready(NODE, Family::V4) }];
    let local = |endpoints: &[Endpoint]| service(TrafficPolicy::Local, endpoints, &[]);
    let failing = || service(TrafficPolicy::Local, &here, &[(NODE, Family::V4)]);
    let cluster = || service(TrafficPolicy::Cluster, &away, &[]);
    let serves = |terminating, failing| Ok(Serving { terminating, failing });
    for (case, services, expect) in [
        ("no Service", vec![], Err(Ineligible::NoEndpoint)),
        ("one without endpoints", vec![local(&[]), local(&here)], serves(false, false)),
        ("all without endpoints", vec![local(&[]), local(&[])], Err(Ineligible::NoEndpoint)),
        ("one away", vec![local(&here), local(&away)], Err(Ineligible::NoLocalEndpoint)),
        ("one on every node", vec![local(&here), cluster()], serves(false, false)),
        ("one terminates", vec![local(&here), local(&terminating)], serves(true, false)),
        ("one fails", vec![failing(), cluster()], serves(false, true)),
        ("one fails, one terminates", vec![failing(), local(&terminating)], serves(true, true)),
    ] {
        assert_eq!(serving(address[0], NODE, &services), expect, "{case}");
    }
}

#[test]
fn publish_not_ready_addresses_makes_not_ready_pods_eligible() {
    // reconciler.go of endpointslice: serving = the pod is ready; terminating = it is being
    // deleted; ready = publishNotReadyAddresses, or serving and not terminating.
    let pod = |pod_ready: bool, deleted: bool, publish: bool| Endpoint {
        node: Some(NODE.into()),
        family: Family::V4,
        ready: publish || (pod_ready && !deleted),
        serving: pod_ready,
        terminating: deleted,
    };
    let of = |condition, endpoint: &Endpoint| {
        serving_of((TrafficPolicy::Local, condition), ADDRESSES[0], &[endpoint], &[])
    };
    const READY: &str = "ready";
    const TERMINATING: &str = "terminating";
    const NONE: &str = "no endpoint";
    // Each row: whether the Pod is ready and deleted; the results without publishNotReadyAddresses
    // for the three `CONDITIONS`; and the results with publishNotReadyAddresses.
    let rows = [
        ((true, false), [READY, READY, READY], [READY, READY, READY]),
        ((false, false), [NONE, NONE, NONE], [READY, READY, NONE]),
        ((true, true), [TERMINATING, NONE, TERMINATING], [TERMINATING; 3]),
        ((false, true), [NONE, NONE, NONE], [TERMINATING, TERMINATING, NONE]),
    ];
    for ((pod_ready, deleted), plain, publishing) in rows {
        for (publish, expect) in [(false, plain), (true, publishing)] {
            let endpoint = pod(pod_ready, deleted, publish);
            assert_eq!(
                CONDITIONS.map(|condition| of(condition, &endpoint)),
                expect,
                "the endpoint is {endpoint:?}"
            );
        }
    }
}
