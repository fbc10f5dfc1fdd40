//! Tests of the configuration of the second path.

use super::*;
use ferrolb_proto::wire::hello::HelloKeyRing;

fn with_addresses(name: &str, internal: &[&str]) -> Node {
    Node { internal_addresses: addresses(internal).into(), ..node(name) }
}

fn config(own: &[&str]) -> Arc<SecondPathConfig> {
    let nodes = vec![
        with_addresses("node1", own),
        with_addresses("node2", &["fd30::12", "172.30.0.12"]),
        with_addresses("node3", &["169.254.0.13", "fe80::13", "172.30.0.13"]),
        with_addresses("node4", &[]),
    ];
    Cluster { nodes, ..Cluster::default() }.plan().second_path
}

#[test]
fn datagrams_go_to_the_first_internal_ip_of_a_family_that_this_node_has() {
    let cases: [(&[&str], [Option<&str>; 3]); 4] = [
        (&["172.30.0.11", "fd30::11"], [Some("fd30::12"), Some("172.30.0.13"), None]),
        (&["172.30.0.11"], [Some("172.30.0.12"), Some("172.30.0.13"), None]),
        (&["fd30::11"], [Some("fd30::12"), None, None]),
        (&["fe80::11"], [None, None, None]),
    ];
    for (own, expect) in cases {
        let config = config(own);
        let found = ["node2", "node3", "node4"].map(|node| config.address_of(node));
        let expect = expect.map(|text| text.map(|text| text.parse().unwrap()));
        assert_eq!(found, expect, "the InternalIPs of node1 are {own:?}");
        assert_eq!(config.address_of("node9"), None);
        let kubelet = config.kubelet_of("node2").map(|kubelet| (kubelet.ip(), kubelet.port()));
        assert_eq!(kubelet, expect[0].map(|address| (address, 10_250)));
    }
}

#[test]
fn the_first_internal_ip_of_each_family_receives_datagrams_of_other_nodes() {
    let config = config(&["fd30::11", "fe80::11", "172.30.0.11", "172.30.9.9"]);
    let own: [IpAddr; 2] = ["172.30.0.11".parse().unwrap(), "fd30::11".parse().unwrap()];
    assert_eq!(config.own, own);
    let sources = ["172.30.0.12", "172.30.0.13", "fd30::12"].map(|text| text.parse().unwrap());
    assert_eq!(config.sources, sources.into());
    assert!(!config.keys.is_empty());
}

#[test]
fn a_change_of_the_keys_replaces_the_configuration() {
    let mut state = Cluster::default().state();
    let mut memo = Memo::default();
    let before = super::super::plan(&state, &mut memo, Instant::ZERO).second_path;
    let again = super::super::plan(&state, &mut memo, Instant::ZERO).second_path;
    assert!(Arc::ptr_eq(&before, &again), "nothing has changed");
    let keys = HelloKeyRing::new(vec![HelloKey::new([9; KEY_LENGTH])]);
    memo.add(state.handle(Event::of::<HelloKeyRing>(Change::Apply(keys.clone())), Instant::ZERO));
    assert_eq!(super::super::plan(&state, &mut memo, Instant::ZERO).second_path.keys, keys);
}
