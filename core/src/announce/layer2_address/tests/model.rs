//! Eligible nodes and their candidates, compared with a simple model of the rules in
//! `docs/configure/l2.md` ("Candidates and ranks"): every combination of the facts of one node,
//! with nine cases of a second node.

use proptest::prelude::*;

use super::*;

/// Facts of a node that decide whether it may announce.
#[derive(Clone, Copy, Debug)]
struct NodeFacts {
    name: &'static str,
    ready: bool,
    cordoned: bool,
    unreachable: bool,
    excluded: bool,
    /// True if an advertisement selects the node.
    selected: bool,
    endpoint: EndpointKind,
    /// True if the node reports that none of its endpoints passes its health check.
    failing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndpointKind {
    None,
    Ready,
    Terminating,
}

/// Returns node `a` with all combinations of its facts.
fn every_node() -> Vec<NodeFacts> {
    let mut all = Vec::new();
    for bits in 0..32 {
        let [ready, cordoned, unreachable, excluded, selected] =
            [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
        for endpoint in [EndpointKind::None, EndpointKind::Ready, EndpointKind::Terminating] {
            for failing in [false, true] {
                let name = "a";
                all.push(NodeFacts {
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
fn second_nodes() -> Vec<Option<NodeFacts>> {
    let healthy = NodeFacts {
        name: "b",
        ready: true,
        cordoned: false,
        unreachable: false,
        excluded: false,
        selected: true,
        endpoint: EndpointKind::Ready,
        failing: false,
    };
    vec![
        None,
        Some(healthy),
        Some(NodeFacts { cordoned: true, ..healthy }),
        Some(NodeFacts { unreachable: true, ..healthy }),
        Some(NodeFacts { excluded: true, ..healthy }),
        Some(NodeFacts { selected: false, ..healthy }),
        Some(NodeFacts { failing: true, ..healthy }),
        Some(NodeFacts { endpoint: EndpointKind::None, ..healthy }),
        Some(NodeFacts { endpoint: EndpointKind::Terminating, ..healthy }),
    ]
}

/// Result of the rules for a node: `cordoned` and `terminating` of its candidate, and whether the
/// node fails, or why the node is ineligible.
type Expected = Result<(bool, bool, bool), Ineligible>;

fn expected_result(
    node: NodeFacts,
    all: &[NodeFacts],
    policy: TrafficPolicy,
    ignore_label: bool,
) -> Expected {
    let all_excluded = all.iter().all(|node| node.excluded);
    let with_endpoint: Vec<_> = all
        .iter()
        .filter(|node| node.endpoint != EndpointKind::None)
        .map(|node| node.name)
        .collect();
    let can_serve = match policy {
        TrafficPolicy::Cluster => !with_endpoint.is_empty(),
        TrafficPolicy::Local => with_endpoint.contains(&node.name),
    };
    let rules = [
        (node.unreachable, Ineligible::Unreachable),
        (node.excluded && !all_excluded && !ignore_label, Ineligible::Excluded),
        (!node.selected, Ineligible::NotSelected),
        (with_endpoint.is_empty(), Ineligible::NoEndpoint),
        (!can_serve, Ineligible::NoLocalEndpoint),
    ];
    if let Some((_, reason)) = rules.into_iter().find(|(applies, _)| *applies) {
        return Err(reason);
    }
    let terminating = policy == TrafficPolicy::Local && node.endpoint == EndpointKind::Terminating;
    let failing = policy == TrafficPolicy::Local && node.failing;
    Ok((node.cordoned || !node.ready, terminating, failing))
}

fn node_fact(facts: &NodeFacts) -> Node {
    let NodeFacts { name, ready, cordoned, unreachable, excluded, selected, .. } = *facts;
    let labels = [("selected".to_owned(), selected.to_string())].into();
    Node { name: name.into(), ready, cordoned, unreachable, excluded, labels, ..Node::default() }
}

fn endpoint(facts: &NodeFacts) -> Option<Endpoint> {
    let endpoint = ready(facts.name, Family::V4);
    match facts.endpoint {
        EndpointKind::None => None,
        EndpointKind::Ready => Some(endpoint),
        EndpointKind::Terminating => Some(Endpoint { ready: false, terminating: true, ..endpoint }),
    }
}

#[test]
fn every_combination_of_node_facts_matches_the_model() {
    let pool = Pool {
        name: "lan".into(),
        ranges: vec!["10.0.0.0/24".parse().expect("range")],
        ..Pool::default()
    };
    let ad = advertisement(json!({"nodeSelectors": [{"matchLabels": {"selected": "true"}}]}));
    let address = [IpAddr::from([10, 0, 0, 1])];
    let (mut rows, mut candidates, mut all_excluded) = (0, 0, 0);
    for (first, second) in
        every_node().iter().flat_map(|node| second_nodes().into_iter().map(|other| (*node, other)))
    {
        let all: Vec<_> = [first].into_iter().chain(second).collect();
        let nodes: Vec<_> = all.iter().map(node_fact).collect();
        let endpoints: Vec<_> = all.iter().filter_map(endpoint).collect();
        let failing_on: Vec<_> =
            all.iter().filter(|node| node.failing).map(|node| (node.name, Family::V4)).collect();
        for (policy, ignore_label) in [TrafficPolicy::Cluster, TrafficPolicy::Local]
            .into_iter()
            .flat_map(|policy| [(policy, false), (policy, true)])
        {
            let view = ClusterView::new(
                nodes.iter(),
                [&pool].into_iter(),
                [&ad].into_iter(),
                ignore_label,
            );
            let service = ServiceView {
                endpoints: EligibleEndpoints::new(policy, EndpointCondition::default(), &endpoints),
                failing_on: failing_on.clone(),
                ..local(&address, &[])
            };
            let layer2 =
                Layer2Address::new(&view, address[0], [&service]).expect("an advertisement");
            let found = super::candidates(&layer2, &view);
            let candidate = |node: &Node| found.iter().find(|found| *found.node == *node.name);
            let actual: Vec<Expected> = nodes
                .iter()
                .map(|node| match (layer2.eligibility(&view, node), candidate(node)) {
                    (Err(reason), None) => Err(reason),
                    (Ok(serving), Some(candidate)) => {
                        assert_eq!(serving.terminating, candidate.terminating);
                        Ok((candidate.cordoned, candidate.terminating, serving.failing))
                    }
                    (result, candidate) => panic!("result {result:?}, candidate {candidate:?}"),
                })
                .collect();
            let expect: Vec<_> =
                all.iter().map(|node| expected_result(*node, &all, policy, ignore_label)).collect();
            assert_eq!(actual, expect, "{policy:?}, label is ignored: {ignore_label}, {all:#?}");
            rows += 1;
            candidates += found.len();
            all_excluded += usize::from(all.iter().all(|node| node.excluded));
        }
    }
    assert_eq!(rows, 192 * 9 * 4, "the test has {rows} rows");
    assert!(
        candidates > 1_000 && all_excluded > 500,
        "only {candidates} candidates and {all_excluded} cases with only excluded nodes"
    );
}

/// Facts of a Service that has the address.
#[derive(Clone, Copy, Debug)]
struct ServiceFacts {
    policy: TrafficPolicy,
    /// Bit for each node that has an eligible endpoint of IPv4.
    ready_on: u8,
    /// Bit for each node that has a terminating endpoint of IPv4.
    terminating_on: u8,
    /// True if the Service has an eligible endpoint of IPv4 without a node, and one of IPv6.
    other_endpoints: bool,
}

/// Number of nodes of [`every_candidate_is_an_eligible_node`].
const NODES: u8 = 5;

fn node_name(n: u8) -> String {
    format!("node{n}")
}

fn has_bit(bits: u8, n: u8) -> bool {
    bits & (1 << n) != 0
}

fn endpoints(facts: ServiceFacts) -> Vec<Endpoint> {
    let on = |bits: u8| (0..NODES).filter(move |n| has_bit(bits, *n)).map(node_name);
    let terminating = |endpoint| Endpoint { ready: false, terminating: true, ..endpoint };
    let mut all: Vec<_> = on(facts.ready_on).map(|name| ready(&name, Family::V4)).collect();
    all.extend(on(facts.terminating_on).map(|name| terminating(ready(&name, Family::V4))));
    if facts.other_endpoints {
        all.push(Endpoint { node: None, ..ready("", Family::V4) });
        all.push(ready("node0", Family::V6));
    }
    all
}

fn service_facts() -> impl Strategy<Value = ServiceFacts> {
    let policy = prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    (policy, 0_u8..32, 0_u8..32, any::<bool>()).prop_map(
        |(policy, ready_on, terminating_on, other_endpoints)| ServiceFacts {
            policy,
            ready_on,
            terminating_on,
            other_endpoints,
        },
    )
}

proptest! {
    #[test]
    fn every_candidate_is_an_eligible_node(
        services in prop::collection::vec(service_facts(), 1..4),
        selected_by in prop::array::uniform2(0_u8..32),
        [unreachable, excluded, cordoned]: [u8; 3],
    ) {
        let nodes: Vec<_> = (0..NODES)
            .map(|n| {
                let select = |ad: usize| (format!("ad{ad}"), has_bit(selected_by[ad], n).to_string());
                let (unreachable, excluded) = (has_bit(unreachable, n), has_bit(excluded, n));
                let (name, labels) = (node_name(n).into(), [select(0), select(1)].into());
                let cordoned = has_bit(cordoned, n);
                Node { name, labels, ready: true, unreachable, excluded, cordoned, ..Node::default() }
            })
            .collect();
        let ads = [0, 1].map(|ad| {
            let labels = json!({"matchLabels": {format!("ad{ad}"): "true"}});
            let preferred = json!([{"weight": 10 << ad, "preference": labels}]);
            advertisement(json!({"nodeSelectors": [labels], "preferredNodeSelectors": preferred}))
        });
        let ranges = vec!["10.0.0.0/24".parse().expect("range")];
        let pool = Pool { name: "lan".into(), ranges, ..Pool::default() };
        let view = ClusterView::new(nodes.iter(), [&pool].into_iter(), ads.iter(), false);
        let (address, condition) = ([IpAddr::from([10, 0, 0, 1])], EndpointCondition::default());
        let views = services.iter().map(|facts| ServiceView {
            endpoints: EligibleEndpoints::new(facts.policy, condition, &endpoints(*facts)),
            ..local(&address, &[])
        });
        let views: Vec<_> = views.collect();
        let layer2 = Layer2Address::new(&view, address[0], &views).expect("an advertisement");
        let selected = view.select_nodes(layer2.advertisements());
        let found = layer2.candidates(&selected);
        let expect: Vec<_> = nodes
            .iter()
            .zip(0..)
            .filter_map(|(node, n)| {
                let Serving { terminating, .. } = layer2.eligibility(&view, node).ok()?;
                let preference = [0, 1].map(|ad| u32::from(has_bit(selected_by[ad], n)) * (10 << ad));
                Some(Candidate {
                    node: Arc::clone(&node.name),
                    terminating,
                    cordoned: node.cordoned,
                    preference: preference.iter().sum::<u32>().try_into().expect("small weights"),
                })
            })
            .collect();
        prop_assert_eq!(&*found, expect);
        let is_local = |facts: &ServiceFacts| {
            facts.policy == TrafficPolicy::Local && !endpoints(*facts).is_empty()
        };
        let any_endpoint = services.iter().any(|facts| !endpoints(*facts).is_empty());
        if any_endpoint && !services.iter().any(is_local) {
            prop_assert!(Arc::ptr_eq(&found, &selected), "all addresses share one list");
        }
    }
}
