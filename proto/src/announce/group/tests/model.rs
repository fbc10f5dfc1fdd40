//! Eligible nodes and the description of each candidate, against a slow model of the rules in
//! `docs/l2.md` ("Candidates and ranks"): every combination of one node's facts with every kind of
//! second node.

use super::*;

/// Reported state of a node, and its properties.
#[derive(Clone, Copy, Debug)]
struct Signals {
    name: &'static str,
    ready: bool,
    cordoned: bool,
    unreachable: bool,
    excluded: bool,
    /// An advertisement selects it.
    selected: bool,
    endpoint: Kind,
    /// The node reports that none of its endpoints passes its health check.
    failing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Ready,
    Going,
}

/// 32 sets of signals, 3 kinds of endpoint, failing or not.
fn every_node() -> Vec<Signals> {
    let mut all = Vec::new();
    for bits in 0..32 {
        let [ready, cordoned, unreachable, excluded, selected] =
            [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
        for endpoint in [Kind::None, Kind::Ready, Kind::Going] {
            for failing in [false, true] {
                let name = "a";
                all.push(Signals {
                    name,
                    ready,
                    cordoned,
                    unreachable,
                    excluded,
                    selected,
                    endpoint,
                    failing,
                });
            }
        }
    }
    all
}

/// Returns the cases of the second node: none, a healthy one, and one per fault.
fn second_nodes() -> Vec<Option<Signals>> {
    let sound = Signals {
        name: "b",
        ready: true,
        cordoned: false,
        unreachable: false,
        excluded: false,
        selected: true,
        endpoint: Kind::Ready,
        failing: false,
    };
    vec![
        None,
        Some(sound),
        Some(Signals { cordoned: true, ..sound }),
        Some(Signals { unreachable: true, ..sound }),
        Some(Signals { excluded: true, ..sound }),
        Some(Signals { selected: false, ..sound }),
        Some(Signals { failing: true, ..sound }),
        Some(Signals { endpoint: Kind::None, ..sound }),
        Some(Signals { endpoint: Kind::Going, ..sound }),
    ]
}

/// Verdict of the rules on a node: the obstacle, or (cordoned, terminating).
type Expected = Result<(bool, bool), Ineligible>;

fn model(node: Signals, all: &[Signals], policy: TrafficPolicy, ignore_label: bool) -> Expected {
    let everybody_has_the_label = all.iter().all(|node| node.excluded);
    let usable: Vec<_> =
        all.iter().filter(|node| node.endpoint != Kind::None).map(|node| node.name).collect();
    let can_serve = match policy {
        TrafficPolicy::Cluster => !usable.is_empty(),
        TrafficPolicy::Local => usable.contains(&node.name),
    };
    let rules = [
        (node.unreachable, Ineligible::Unreachable),
        (node.excluded && !everybody_has_the_label && !ignore_label, Ineligible::Excluded),
        (!node.selected, Ineligible::NotSelected),
        (!can_serve, Ineligible::CannotServe),
    ];
    if let Some((_, bar)) = rules.into_iter().find(|(broken, _)| *broken) {
        return Err(bar);
    }
    let terminating = policy == TrafficPolicy::Local && node.endpoint == Kind::Going;
    Ok((node.cordoned || !node.ready, terminating))
}

fn fact(signals: &Signals) -> Node {
    let Signals { name, ready, cordoned, unreachable, excluded, selected, .. } = *signals;
    let labels = [("selected".to_owned(), selected.to_string())].into();
    Node { name: name.into(), ready, cordoned, unreachable, excluded, labels, ..Node::default() }
}

fn endpoint(signals: &Signals) -> Option<Endpoint> {
    let here = ready(signals.name, Family::V4);
    match signals.endpoint {
        Kind::None => None,
        Kind::Ready => Some(here),
        Kind::Going => Some(Endpoint { ready: false, terminating: true, ..here }),
    }
}

#[test]
fn every_combination_of_signals_and_endpoints_is_as_the_model_says() {
    let pool = Pool {
        name: "lan".into(),
        ranges: vec!["10.0.0.0/24".parse().expect("range")],
        ..Pool::default()
    };
    let ad = bare_ad(json!({"nodeSelectors": [{"matchLabels": {"selected": "true"}}]}));
    let address = [IpAddr::from([10, 0, 0, 1])];
    let (mut rows, mut candidates, mut all_excluded) = (0, 0, 0);
    for (first, second) in
        every_node().iter().flat_map(|node| second_nodes().into_iter().map(|other| (*node, other)))
    {
        let all: Vec<_> = [first].into_iter().chain(second).collect();
        let nodes: Vec<_> = all.iter().map(fact).collect();
        let endpoints: Vec<_> = all.iter().filter_map(endpoint).collect();
        let failing_on: Vec<_> =
            all.iter().filter(|node| node.failing).map(|node| (node.name, Family::V4)).collect();
        for (policy, ignore_label) in [TrafficPolicy::Cluster, TrafficPolicy::Local]
            .into_iter()
            .flat_map(|it| [(it, false), (it, true)])
        {
            let scene = ClusterView::new(
                nodes.iter(),
                [&pool].into_iter(),
                [&ad].into_iter(),
                ignore_label,
            );
            let served = ServiceView {
                policy,
                eligible: EndpointCondition::default(),
                assigned: &address,
                from_pool: None,
                labels: &[],
                endpoints: endpoints.iter().collect(),
                failing_on: failing_on.clone(),
            };
            let group = SharingGroup::of(&scene, vec![served]).expect("a group");
            let named = group.candidates(&scene);
            let is: Vec<Expected> = group
                .eligibility(&scene)
                .map(|(node, bar)| {
                    match (bar, named.iter().find(|candidate| *candidate.node == *node.name)) {
                        (Some(bar), None) => Err(bar),
                        (None, Some(candidate)) => Ok((candidate.cordoned, candidate.terminating)),
                        (bar, candidate) => panic!("{bar:?} and {candidate:?}"),
                    }
                })
                .collect();
            let expect: Vec<_> =
                all.iter().map(|node| model(*node, &all, policy, ignore_label)).collect();
            assert_eq!(is, expect, "{policy:?}, label ignored {ignore_label}: {all:#?}");
            for node in &all {
                let fails =
                    policy == TrafficPolicy::Local && node.failing && node.endpoint != Kind::None;
                assert_eq!(group.failing_on(node.name).eq(address), fails, "{policy:?} {node:?}");
            }
            rows += 1;
            candidates += named.len();
            all_excluded += usize::from(all.iter().all(|node| node.excluded));
        }
    }
    assert_eq!(rows, 192 * 9 * 4, "{rows} rows");
    assert!(
        candidates > 1_000 && all_excluded > 500,
        "{candidates} candidates, {all_excluded} with the label everywhere"
    );
}
