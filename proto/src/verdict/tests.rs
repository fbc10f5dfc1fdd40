//! Comparison of the verdict with a simple model of `docs/configure/health.md` (eligible
//! endpoints), for every combination of its inputs.

use super::*;

/// Name of the node for which verdicts are computed.
const NODE: &str = "a";
const FAMILIES: [&[Family]; 3] = [&[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
const FAILING: [&[Family]; 4] = [&[], &[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
const CONDITIONS: [EndpointCondition; 3] =
    [EndpointCondition::ReadyOrTerminating, EndpointCondition::Ready, EndpointCondition::Serving];
/// The number of compared combinations: all sets of at most two of the 48 endpoints, times 2
/// policies, 3 endpoint conditions, 3 sets of families and 4 sets of failing families.
const ROWS: usize = (1 + 48 + 48 * 47 / 2) * 2 * 3 * 3 * 4;

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

fn expected_verdict(
    policy: TrafficPolicy,
    condition: EndpointCondition,
    families: &[Family],
    endpoints: &[&Endpoint],
    failing: &[Family],
) -> Verdict {
    let mut of_families = Vec::new();
    for family in families {
        let all: Vec<_> = endpoints
            .iter()
            .filter(|endpoint| endpoint.family == *family && is_eligible(condition, endpoint))
            .collect();
        if all.is_empty() {
            continue;
        }
        let local: Vec<_> =
            all.into_iter().filter(|endpoint| endpoint.node == Some(NODE.into())).collect();
        of_families.push(match policy {
            TrafficPolicy::Cluster => "any endpoint",
            TrafficPolicy::Local if local.is_empty() => "no local endpoint",
            TrafficPolicy::Local if failing.contains(family) => "local endpoints fail",
            TrafficPolicy::Local if all_terminating(&local) => "local endpoints terminate",
            TrafficPolicy::Local => "local endpoint remains",
        });
    }
    let has = |result: &str| of_families.contains(&result);
    if of_families.is_empty() {
        Verdict::NoEndpoint
    } else if has("no local endpoint") {
        Verdict::NoLocalEndpoint
    } else if has("local endpoints fail") {
        Verdict::Failing
    } else if has("local endpoints terminate") {
        Verdict::Terminating
    } else {
        Verdict::Ready
    }
}

#[test]
fn every_combination_of_inputs_matches_the_model() {
    let all = every_endpoint();
    let (mut rows, mut of_each) = (0, [0; Verdict::ALL.len()]);
    for set in sets_up_to_two(&all) {
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            for (condition, families) in CONDITIONS
                .iter()
                .flat_map(|condition| FAMILIES.map(|families| (*condition, families)))
            {
                for failing in FAILING {
                    let expect = expected_verdict(policy, condition, families, &set, failing);
                    let actual = verdict(
                        policy,
                        condition,
                        families.iter().copied(),
                        NODE,
                        set.iter().copied(),
                        failing,
                    );
                    assert_eq!(
                        actual, expect,
                        "the policy is {policy:?}, the condition {condition:?}, the families are \
                         {families:?}, the failing families {failing:?}, and the endpoints {set:#?}"
                    );
                    rows += 1;
                    of_each[actual as usize] += 1;
                }
            }
        }
    }
    assert_eq!(rows, ROWS, "the test compares {rows} combinations");
    assert!(
        of_each.iter().all(|count| *count > 400),
        "the verdicts {:?} occur {of_each:?} times",
        Verdict::ALL
    );
}

#[test]
fn a_dual_stack_local_service_needs_endpoints_of_both_families() {
    let ready = |node: &str, family| Endpoint {
        node: Some(node.into()),
        family,
        ready: true,
        serving: true,
        terminating: false,
    };
    let both = [ready("a", Family::V4), ready("b", Family::V4), ready("b", Family::V6)];
    let on = |node, families: &[Family], endpoints: &[Endpoint]| {
        verdict(
            TrafficPolicy::Local,
            EndpointCondition::default(),
            families.iter().copied(),
            node,
            endpoints,
            &[],
        )
    };
    assert_eq!(
        FAMILIES.map(|families| on("a", families, &both)),
        [Verdict::Ready, Verdict::NoLocalEndpoint, Verdict::NoLocalEndpoint]
    );
    assert_eq!(FAMILIES.map(|families| on("b", families, &both)), [Verdict::Ready; 3]);
    // A dual-stack Service with Pods of one family: the family without endpoints does not block the
    // other one.
    assert_eq!(on("a", FAMILIES[2], &both[..2]), Verdict::Ready);
    assert_eq!(on("a", FAMILIES[1], &both[..2]), Verdict::NoEndpoint);
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
        verdict(TrafficPolicy::Local, condition, [Family::V4], NODE, [endpoint], &[])
    };
    use Verdict::{NoEndpoint, Ready, Terminating};
    // Each row: whether the Pod is ready and deleted; the verdicts without publishNotReadyAddresses
    // for the three `CONDITIONS`; and the verdicts with publishNotReadyAddresses.
    let rows = [
        ((true, false), [Ready, Ready, Ready], [Ready, Ready, Ready]),
        ((false, false), [NoEndpoint, NoEndpoint, NoEndpoint], [Ready, Ready, NoEndpoint]),
        ((true, true), [Terminating, NoEndpoint, Terminating], [Terminating; 3]),
        (
            (false, true),
            [NoEndpoint, NoEndpoint, NoEndpoint],
            [Terminating, Terminating, NoEndpoint],
        ),
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
