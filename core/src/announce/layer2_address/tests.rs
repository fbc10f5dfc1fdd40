//! Eligible nodes of an address, by examples and against a model.

mod model;

use ferrolb_proto::api;
use ferrolb_proto::facts::{Endpoint, EndpointCondition, Pool, TrafficPolicy};
use serde_json::json;

use super::*;
use crate::announce::{Interface, SelectedInterface};
use crate::eligibility::EligibleEndpoints;

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
    let endpoints = ["a", "b", "c", "d"].map(|node| ready(node, Family::V4));
    let service = local(&address, &endpoints);
    let address = Layer2Address::new(&view, address[0], [&service]).expect("an advertisement");
    let results = nodes.each_ref().map(|node| address.eligibility(&view, node));
    let expect = [
        Ok(Serving::default()),
        Err(Ineligible::Unreachable),
        Err(Ineligible::Excluded),
        Err(Ineligible::NotSelected),
        Err(Ineligible::NoLocalEndpoint),
    ];
    assert_eq!(results, expect);
    let names: Vec<_> =
        candidates(&address, &view).iter().map(|candidate| candidate.node.to_string()).collect();
    assert_eq!(names, ["a"]);
    assert!(address.has_endpoint());
    let ads = address.advertisements();
    let selected = |name| {
        let interface = || Interface { in_use: true, has_ipv6: true, subnets: Vec::new() };
        SelectedInterface::select(ads, &nodes[0].labels, name, interface)
    };
    assert!(selected("eth1").is_some() && selected("eth0").is_none());
}

/// Returns the candidates of an address.
fn candidates(address: &Layer2Address<'_, '_>, view: &ClusterView<'_>) -> Arc<[Candidate]> {
    address.candidates(&view.select_nodes(address.advertisements()))
}

/// Returns a Service with the policy `Local`.
fn local<'a>(assigned: &'a [IpAddr], endpoints: &[Endpoint]) -> ServiceView<'a> {
    let (policy, condition) = (TrafficPolicy::Local, EndpointCondition::default());
    ServiceView {
        assigned,
        from_pool: None,
        labels: &[],
        endpoints: EligibleEndpoints::new(policy, condition, endpoints),
        failing_on: Vec::new(),
    }
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
fn an_address_of_a_missing_pool_is_selected_by_the_name_of_the_pool() {
    let nodes = [node("a")];
    let address = IpAddr::from([10, 0, 0, 1]);
    let pool = |name: &str, range: &str| Pool {
        name: name.into(),
        ranges: vec![range.parse().expect("range")],
        ..Pool::default()
    };
    let not_private = json!({"matchExpressions": [
        {"key": "tier", "operator": "NotIn", "values": ["private"]}]});
    let (other, same) = (pool("other", "10.1.0.0/24"), pool("same", "10.0.0.0/24"));
    for (from_pool, spec, pools, is_selected) in [
        (Some("lan"), json!({}), vec![], true),
        (Some("lan"), json!({"ipAddressPools": ["lan"]}), vec![&other], true),
        (Some("lan"), json!({"ipAddressPools": ["other"]}), vec![&other], false),
        (Some("lan"), json!({"ipAddressPools": ["lan"]}), vec![&same], false),
        (Some("lan"), json!({"ipAddressPoolSelectors": [not_private]}), vec![], false),
        (Some("other"), json!({}), vec![&other], false),
        (None, json!({}), vec![&other], false),
    ] {
        let ad = advertisement(spec.clone());
        let view = ClusterView::new(nodes.iter(), pools.into_iter(), [&ad].into_iter(), false);
        let assigned = [address];
        let endpoints = [ready("a", Family::V4)];
        let service = ServiceView { from_pool, ..local(&assigned, &endpoints) };
        let found = Layer2Address::new(&view, address, [&service]);
        assert_eq!(found.is_some(), is_selected, "{from_pool:?} {spec}");
    }
}

#[test]
fn each_family_has_its_own_candidates_in_the_same_order() {
    let nodes = [node("a"), node("b"), node("c")];
    let pool = |name: &str, range: &str| Pool {
        name: name.into(),
        ranges: vec![range.parse().expect("range")],
        ..Pool::default()
    };
    let pools = [pool("v4", "10.0.0.0/24"), pool("v6", "fd00::/64")];
    let addresses: [IpAddr; 2] = ["10.0.0.1", "fd00::1"].map(|text| text.parse().expect("address"));
    let endpoints = [
        ready("a", Family::V4),
        ready("b", Family::V4),
        ready("b", Family::V6),
        ready("c", Family::V6),
    ];
    // Each case: the spec of the advertisement, and the candidates of each address.
    let cases: [(_, [&[&str]; 2]); 3] = [
        (json!({}), [&["a", "b"], &["b", "c"]]),
        (json!({"ipAddressPools": ["v4"]}), [&["a", "b"], &[]]),
        (json!({"ipAddressPools": ["other"]}), [&[], &[]]),
    ];
    for (spec, expect) in cases {
        let ad = advertisement(spec.clone());
        let view = ClusterView::new(nodes.iter(), pools.iter(), [&ad].into_iter(), false);
        let service = local(&addresses, &endpoints);
        let candidates = addresses.map(|address| {
            let address = Layer2Address::new(&view, address, [&service]);
            address.map(|address| candidates(&address, &view)).unwrap_or_default()
        });
        let names = candidates.each_ref().map(|candidates| {
            candidates.iter().map(|candidate| &*candidate.node).collect::<Vec<_>>()
        });
        assert_eq!(names, expect, "candidates with the advertisement {spec}");
    }
}

#[test]
fn only_services_that_an_advertisement_selects_decide() {
    let nodes = [node("a"), node("b")];
    let pool = Pool {
        name: "lan".into(),
        ranges: vec!["10.0.0.0/24".parse().expect("range")],
        ..Pool::default()
    };
    let web = [("app".into(), "web".into())];
    let address = [IpAddr::from([10, 0, 0, 1])];
    let (on_a, on_b) = ([ready("a", Family::V4)], [ready("b", Family::V4)]);
    let names = |spec: serde_json::Value| {
        let ad = advertisement(spec);
        let view = ClusterView::new(nodes.iter(), [&pool].into_iter(), [&ad].into_iter(), false);
        let services =
            [ServiceView { labels: &web, ..local(&address, &on_a) }, local(&address, &on_b)];
        let address = Layer2Address::new(&view, address[0], &services).expect("an advertisement");
        candidates(&address, &view).iter().map(|candidate| candidate.node.to_string()).collect()
    };
    let all: Vec<String> = names(json!({}));
    assert!(all.is_empty(), "no node serves both Services: {all:?}");
    let selected: Vec<String> =
        names(json!({"serviceSelectors": [{"matchLabels": {"app": "web"}}]}));
    assert_eq!(selected, ["a"]);
}
