//! The verdict against a slow model of the documentation (`docs/health.md`, which endpoints count),
//! for every combination of its inputs.

use super::*;

const HERE: &str = "a";
const FAMILIES: [&[Family]; 3] = [&[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
const FAILING: [&[Family]; 4] = [&[], &[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
const USABLE: [EndpointCondition; 3] =
    [EndpointCondition::ReadyOrTerminating, EndpointCondition::Ready, EndpointCondition::Serving];
/// Sets of zero, one or two of the 48 endpoints; for each 2 policies, 3 endpoint conditions, 3 sets
/// of families, 4 sets of failing families.
const ROWS: usize = (1 + 48 + 48 * 47 / 2) * 2 * 3 * 3 * 4;

/// Returns every distinct endpoint: conditions, node, family.
fn every_endpoint() -> Vec<Endpoint> {
    let mut all = Vec::new();
    for conditions in 0..8 {
        for node in [Some(HERE), Some("b"), None] {
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

/// Returns all sets of zero, one or two of these.
fn sets(all: &[Endpoint]) -> Vec<Vec<&Endpoint>> {
    let mut sets = vec![vec![]];
    for (i, one) in all.iter().enumerate() {
        sets.push(vec![one]);
        sets.extend(all[i + 1..].iter().map(|other| vec![one, other]));
    }
    sets
}

/// Literal form of the documentation: an endpoint counts if it is ready, or serving while it
/// terminates. With the annotation it counts only if it is ready, or only if it is serving.
fn counts(usable: EndpointCondition, endpoint: &Endpoint) -> bool {
    let words = match usable {
        EndpointCondition::ReadyOrTerminating => {
            vec![vec!["ready"], vec!["serving", "terminating"]]
        }
        EndpointCondition::Ready => vec![vec!["ready"]],
        EndpointCondition::Serving => vec![vec!["serving"]],
    };
    let holds = |word: &&str| match *word {
        "ready" => endpoint.ready,
        "serving" => endpoint.serving,
        "terminating" => endpoint.terminating,
        _ => panic!("no such condition: {word}"),
    };
    words.iter().any(|all| all.iter().all(holds))
}

/// Returns whether all endpoints of a family on the node are terminating, whatever their readiness.
fn is_going(here: &[&&Endpoint]) -> bool {
    here.iter().filter(|endpoint| endpoint.terminating).count() == here.len()
}

fn model(
    policy: TrafficPolicy,
    usable: EndpointCondition,
    families: &[Family],
    endpoints: &[&Endpoint],
    failing: &[Family],
) -> Verdict {
    let mut of_families = Vec::new();
    for family in families {
        let all: Vec<_> =
            endpoints.iter().filter(|it| it.family == *family && counts(usable, it)).collect();
        if all.is_empty() {
            continue;
        }
        let here: Vec<_> = all.into_iter().filter(|it| it.node == Some(HERE.into())).collect();
        of_families.push(match policy {
            TrafficPolicy::Cluster => "any node forwards to any endpoint",
            TrafficPolicy::Local if here.is_empty() => "none of its own",
            TrafficPolicy::Local if failing.contains(family) => "none of its own passes",
            TrafficPolicy::Local if is_going(&here) => "those of its own are going",
            TrafficPolicy::Local => "one of its own stays",
        });
    }
    let says = |what: &str| of_families.contains(&what);
    if of_families.is_empty() {
        Verdict::NoEndpoint
    } else if says("none of its own") {
        Verdict::NoLocalEndpoint
    } else if says("none of its own passes") {
        Verdict::Failing
    } else if says("those of its own are going") {
        Verdict::Terminating
    } else {
        Verdict::Ready
    }
}

#[test]
fn every_row_of_the_table_is_as_the_model_says() {
    let all = every_endpoint();
    let (mut rows, mut of_each) = (0, [0; Verdict::ALL.len()]);
    for set in sets(&all) {
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            for (usable, families) in
                USABLE.iter().flat_map(|usable| FAMILIES.map(|families| (*usable, families)))
            {
                for failing in FAILING {
                    let expect = model(policy, usable, families, &set, failing);
                    let is = verdict(
                        policy,
                        usable,
                        families.iter().copied(),
                        HERE,
                        set.iter().copied(),
                        failing,
                    );
                    assert_eq!(
                        is, expect,
                        "{policy:?} {usable:?} {families:?} failing {failing:?}: {set:#?}"
                    );
                    rows += 1;
                    of_each[is as usize] += 1;
                }
            }
        }
    }
    assert_eq!(rows, ROWS, "{rows} rows");
    assert!(of_each.iter().all(|count| *count > 400), "{of_each:?} of {:?}", Verdict::ALL);
}

#[test]
fn a_node_without_endpoints_of_one_family_cannot_serve_a_local_service_of_two() {
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
    // A Service with two families and Pods of one: a family without endpoints does not block the
    // other.
    assert_eq!(on("a", FAMILIES[2], &both[..2]), Verdict::Ready);
    assert_eq!(on("a", FAMILIES[1], &both[..2]), Verdict::NoEndpoint);
}

#[test]
fn what_the_controller_manager_writes_with_publish_not_ready_addresses_counts() {
    // reconciler.go of endpointslice: serving = the pod is ready; terminating = it is being
    // deleted; ready = publishNotReadyAddresses, or serving and not terminating.
    let pod = |pod_ready: bool, deleted: bool, publish: bool| Endpoint {
        node: Some(HERE.into()),
        family: Family::V4,
        ready: publish || (pod_ready && !deleted),
        serving: pod_ready,
        terminating: deleted,
    };
    let of = |usable, endpoint: &Endpoint| {
        verdict(TrafficPolicy::Local, usable, [Family::V4], HERE, [endpoint], &[])
    };
    use Verdict::{NoEndpoint, Ready, Terminating};
    // State of the Pod; then the verdicts by default, with `ready` and with `serving`: first
    // without publishNotReadyAddresses, then with it.
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
            assert_eq!(USABLE.map(|usable| of(usable, &endpoint)), expect, "{endpoint:?}");
        }
    }
}
