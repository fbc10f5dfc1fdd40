//! Eligible nodes of a group, by examples and against a model.

mod model;

use serde_json::json;

use super::*;
use crate::api;
use crate::facts::{Endpoint, EndpointCondition, Pool, TrafficPolicy};

fn node(name: &str) -> Node {
    let labels = [("name".to_owned(), name.to_owned())].into();
    Node { name: name.into(), ready: true, labels, ..Node::default() }
}

#[test]
fn every_node_is_a_candidate_or_has_a_reason_not_to_be() {
    let nodes = [
        node("a"),
        Node { unreachable: true, excluded: true, ..node("b") },
        Node { excluded: true, ..node("c") },
        node("d"),
        node("e"),
    ];
    let pool = Pool {
        name: "lan".into(),
        ranges: vec!["10.0.0.0/24".parse().expect("range")],
        ..Pool::default()
    };
    let not_d =
        json!({"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["d"]}]});
    let spec = json!({"metadata": {"name": "l2"}, "spec": {"nodeSelectors": [not_d], "interfaces": ["eth1"]}});
    let ad: L2Advertisement =
        serde_json::from_value::<api::L2AdvertisementObject>(spec).expect("advertisement").into();
    let view = ClusterView::new(nodes.iter(), [&pool].into_iter(), [&ad].into_iter(), false);
    let address = [IpAddr::from([10, 0, 0, 1])];
    let endpoint_on = |node: &str| Endpoint {
        node: Some(node.into()),
        family: Family::V4,
        ready: true,
        serving: true,
        terminating: false,
    };
    let endpoints = ["a", "b", "c", "d"].map(endpoint_on);
    let served = ServiceView {
        policy: TrafficPolicy::Local,
        eligible: EndpointCondition::default(),
        assigned: &address,
        from_pool: None,
        labels: &[],
        endpoints: endpoints.iter().collect(),
        failing_on: Vec::new(),
    };
    let group = SharingGroup::of(&view, vec![served]).expect("a group");
    let ineligible: Vec<_> =
        group.eligibility(&view).map(|(node, reason)| (&*node.name, reason)).collect();
    let expect = [
        ("a", None),
        ("b", Some(Ineligible::Unreachable)),
        ("c", Some(Ineligible::Excluded)),
        ("d", Some(Ineligible::NotSelected)),
        ("e", Some(Ineligible::CannotServe)),
    ];
    assert_eq!(ineligible, expect);
    let names: Vec<_> =
        group.candidates(&view).iter().map(|candidate| candidate.node.to_string()).collect();
    assert_eq!(names, ["a"]);
    assert!(group.has_eligible_endpoint() && group.is_served_on("b") && !group.is_served_on("e"));
    assert!(
        group.selects_interface(&nodes[0], "eth1") && !group.selects_interface(&nodes[0], "eth0")
    );
}

#[test]
fn services_are_joined_by_directly_or_indirectly_shared_addresses() {
    let addresses =
        |last: &[u8]| last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect::<Vec<_>>();
    let services =
        [addresses(&[1, 2]), addresses(&[3]), addresses(&[]), addresses(&[3, 2]), addresses(&[4])];
    let joined = sharing_groups(services.iter().map(Vec::as_slice));
    assert_eq!(joined, [vec![0, 1, 3], vec![2], vec![4]]);
}

fn ready(node: &str, family: Family) -> Endpoint {
    Endpoint { node: Some(node.into()), family, ready: true, serving: true, terminating: false }
}

fn advertisement(spec: serde_json::Value) -> L2Advertisement {
    serde_json::from_value::<api::L2AdvertisementObject>(
        json!({"metadata": {"name": "l2"}, "spec": spec}),
    )
    .expect("advertisement")
    .into()
}

#[test]
fn only_the_families_of_announced_addresses_count() {
    let nodes = [node("a"), node("b")];
    let pool = |name: &str, range: &str| Pool {
        name: name.into(),
        ranges: vec![range.parse().expect("range")],
        ..Pool::default()
    };
    let pools = [pool("v4", "10.0.0.0/24"), pool("v6", "fd00::/64")];
    let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let endpoints = [ready("a", Family::V4), ready("b", Family::V4), ready("b", Family::V6)];
    // Each case: the spec of the advertisement, the candidates, and the verdicts of the Service for
    // the two nodes.
    let cases = [
        (json!({}), vec!["b"], [Verdict::NoLocalEndpoint, Verdict::Ready]),
        (json!({"ipAddressPools": ["v4"]}), vec!["a", "b"], [Verdict::Ready, Verdict::Ready]),
        (json!({"ipAddressPools": ["v6"]}), vec!["b"], [Verdict::NoLocalEndpoint, Verdict::Ready]),
        // No address is announced, so the families of all addresses count.
        (
            json!({"ipAddressPools": ["other"]}),
            vec!["b"],
            [Verdict::NoLocalEndpoint, Verdict::Ready],
        ),
    ];
    for (spec, candidates, verdicts) in cases {
        let ad = advertisement(spec.clone());
        let view = ClusterView::new(nodes.iter(), pools.iter(), [&ad].into_iter(), false);
        let served = ServiceView {
            policy: TrafficPolicy::Local,
            eligible: EndpointCondition::default(),
            assigned: &addresses,
            from_pool: None,
            labels: &[],
            endpoints: endpoints.iter().collect(),
            failing_on: Vec::new(),
        };
        let group = SharingGroup::of(&view, vec![served]).expect("a group");
        let names: Vec<_> =
            group.candidates(&view).iter().map(|candidate| candidate.node.to_string()).collect();
        assert_eq!(names, candidates, "candidates with the advertisement {spec}");
        assert_eq!(
            ["a", "b"].map(|node| group.verdicts(node).next().expect("a verdict")),
            verdicts,
            "verdicts with the advertisement {spec}"
        );
    }
}
