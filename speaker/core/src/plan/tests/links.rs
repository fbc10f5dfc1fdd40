//! Tests of the interfaces in the plan: selection and configuration.

use ferrolb_core::Machine;

use super::*;
use crate::claim::{ClaimConfig, ClaimMachine, Input};

#[test]
fn interfaces_are_selected_by_type_name_and_internal_ip() {
    let internal: IpAddr = "172.30.0.11".parse().unwrap();
    let cases = [
        ("plain", link(2, "eth0"), true),
        ("down", Link { up: false, ..link(2, "eth0") }, false),
        ("no broadcast", Link { broadcast: false, ..link(2, "wg0") }, false),
        ("no Ethernet", Link { ethernet: false, ..link(2, "ib0") }, false),
        ("a port of a bridge", Link { enslaved: true, ..link(2, "eth0") }, false),
        ("a macvlan of an unused interface", Link { parent: Some(9), ..link(2, "mac0") }, true),
        ("excluded by name", link(2, "cni0"), false),
        (
            "excluded by name, with another address",
            Link { addresses: addresses(&["10.0.0.1"]).into(), ..link(2, "cni0") },
            false,
        ),
        (
            "excluded by name, with the InternalIP",
            Link { addresses: vec![internal], ..link(2, "cni0") },
            true,
        ),
    ];
    for (what, link, expect) in cases {
        let own_node = Node { internal_addresses: vec![internal], ..node("node1") };
        let plan =
            Cluster { nodes: vec![own_node], links: vec![link], ..Cluster::default() }.plan();
        assert_eq!(plan.links.contains_key(&2), expect, "wrong use of an interface: {what}");
    }
}

#[test]
fn the_status_has_the_addresses_of_all_interfaces_and_the_gateways() {
    let with = |index, name, texts: &[&str]| Link {
        addresses: addresses(texts).into(),
        ..link(index, name)
    };
    let many: Vec<_> = (0..100).map(|n| format!("10.9.0.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let links = vec![
        with(1, "lo", &["127.0.0.1", "192.0.2.7", "::1"]),
        with(2, "eth0", &["172.30.0.9", "fd30::9", "fe80::9"]),
        with(3, "kube-ipvs0", &["172.30.0.200"]),
        with(4, "kube-dummy-if", &["172.30.0.201"]),
        with(5, "kube-lb0", &["172.30.0.202"]),
        with(6, "cni0", &["10.244.0.1"]),
    ];
    let status = |links: &[Link]| {
        let mut state = Cluster { links: links.to_vec(), ..Cluster::default() }.state();
        let routes = Routes { gateways: addresses(&["172.30.0.1"]), ..Routes::default() };
        state.handle(Event::Routes(routes), Instant::ZERO);
        plan(&state, Instant::ZERO).status.as_ref().clone()
    };
    let found = status(&links);
    let expect = addresses(&["10.244.0.1", "172.30.0.9", "192.0.2.7", "fd30::9"]);
    assert_eq!(found.host_addresses, *expect);
    assert_eq!(found.gateways, *addresses(&["172.30.0.1"]));
    let found = status(&[links, vec![with(7, "eth1", &many)]].concat()).host_addresses;
    assert_eq!(found.len(), 64);
    assert!(expect.iter().all(|address| found.contains(address)), "the first interfaces count");
}

#[test]
fn a_pods_end_of_a_veth_pair_is_not_used() {
    let into_namespace = |prefixes: &[(&str, u8)]| Link {
        into_namespace: true,
        addresses: prefixes.iter().map(|(address, _)| address.parse().unwrap()).collect(),
        prefixes: prefixes
            .iter()
            .map(|(address, length)| (address.parse().unwrap(), *length))
            .collect(),
        ..link(2, "eni0123")
    };
    let cases = [
        ("without addresses", into_namespace(&[]), false),
        (
            "with a link-local address",
            into_namespace(&[("fe80::1", 64), ("169.254.1.1", 16)]),
            false,
        ),
        ("with a gateway's address and no subnet", into_namespace(&[("10.0.0.1", 32)]), false),
        ("of a node that is a container", into_namespace(&[("10.0.0.1", 24)]), true),
        ("with only the InternalIP", into_namespace(&[("172.30.0.11", 32)]), true),
        (
            "whose other end is in this namespace",
            Link { into_namespace: false, ..into_namespace(&[]) },
            true,
        ),
    ];
    for (what, link, expect) in cases {
        let own_node =
            Node { internal_addresses: vec!["172.30.0.11".parse().unwrap()], ..node("node1") };
        let plan =
            Cluster { nodes: vec![own_node], links: vec![link], ..Cluster::default() }.plan();
        assert_eq!(plan.links.contains_key(&2), expect, "wrong use of an interface: {what}");
    }
}

#[test]
fn a_node_without_other_speakers_announces_only_on_its_subnet() {
    let internal: IpAddr = "10.1.0.11".parse().unwrap();
    let bridge = |prefixes: &[(&str, u8)]| Link {
        addresses: prefixes.iter().map(|(address, _)| address.parse().unwrap()).collect(),
        prefixes: prefixes
            .iter()
            .map(|(address, length)| (address.parse().unwrap(), *length))
            .collect(),
        ..link(2, "kube-bridge")
    };
    let named_for = |node: &str| {
        let mut ad = select(node);
        ad["interfaces"] = json!(["kube-bridge"]);
        vec![json!({}), ad]
    };
    let everywhere = || vec![json!({})];
    let cases = [
        ("a bridge of pods", bridge(&[("10.244.1.1", 24), ("fe80::1", 64)]), everywhere(), false),
        ("no address at all", bridge(&[]), everywhere(), false),
        ("the InternalIP", bridge(&[("10.1.0.11", 32)]), everywhere(), true),
        ("a subnet with an address of a pool", bridge(&[("172.30.0.9", 24)]), everywhere(), true),
        ("a subnet with an IPv6 address of a pool", bridge(&[("fd30::9", 64)]), everywhere(), true),
        ("an address without its subnet", bridge(&[("172.30.0.9", 32)]), everywhere(), false),
        ("named by an advertisement", bridge(&[]), named_for("node1"), true),
        ("named for another node", bridge(&[]), named_for("node2"), false),
    ];
    for (what, link, advertisements, expect) in cases {
        let own_node = Node { internal_addresses: vec![internal], ..node("node1") };
        let cluster = Cluster {
            nodes: vec![own_node, node("node2")],
            links: vec![link],
            advertisements,
            ..Cluster::default()
        };
        let mut state = cluster.state();
        let announced = |state: &State| {
            let plan = plan(state, Instant::ZERO);
            let link = &plan.links[&2];
            assert_eq!(
                (link.config.units.len(), plan.waiting_for_speaker.len()),
                if link.selected { (1, 0) } else { (0, 1) },
                "{what}"
            );
            link.selected
        };
        assert_eq!(announced(&state), expect, "wrong choice to announce: {what}");
        // The announcement starts when another speaker is received, and continues when it fails.
        for speakers in [vec!["node2".into()], vec![]] {
            let report = LinkReport { speakers, ..LinkReport::default() };
            state.handle(Event::Report { link: 2, report }, Instant::ZERO);
            assert!(announced(&state), "a speaker was received: {what}");
        }
    }
}

#[test]
fn owned_addresses_stay_when_the_interface_loses_its_subnet() {
    let mut state = Cluster::default().state();
    let without = || Event::Links(vec![Link { prefixes: vec![], ..link(2, "eth0") }]);
    let owned = |owned: &[&str]| {
        let report = LinkReport { owned: super::owned(addresses(owned)), ..LinkReport::default() };
        Event::Report { link: 2, report }
    };
    state.handle(owned(&["172.30.0.200"]), Instant::ZERO);
    state.handle(without(), Instant::ZERO);
    assert_eq!(plan(&state, Instant::ZERO).links[&2].config.units.len(), 1);
    state.handle(owned(&[]), Instant::ZERO);
    assert_eq!(plan(&state, Instant::ZERO).links[&2].config.units.len(), 0);
}

#[test]
fn an_address_announced_on_two_interfaces_counts_once() {
    let mut state =
        Cluster { links: vec![link(2, "eth0"), link(3, "eth1")], ..Cluster::default() }.state();
    for (index, owned) in [(2, &["172.30.0.200"][..]), (3, &["172.30.0.200", "172.30.0.201"])] {
        let report = LinkReport { owned: super::owned(addresses(owned)), ..LinkReport::default() };
        state.handle(Event::Report { link: index, report }, Instant::ZERO);
    }
    assert_eq!(plan(&state, Instant::ZERO).status.owned_addresses, 2);
}

#[test]
fn solicitations_are_not_sent_from_tentative_addresses() {
    let sources = |tentative: &[&str]| {
        let addresses = addresses(&["10.0.0.9", "fd30::9", "fe80::1", "fe80::2"]).into();
        let tentative = tentative.iter().map(|text| text.parse().unwrap()).collect();
        let cluster = Cluster {
            links: vec![Link { addresses, tentative, ..link(2, "eth0") }],
            ..Cluster::default()
        };
        cluster.plan().links[&2].config.source_v6
    };
    assert_eq!(sources(&[]), Some("fe80::1".parse().unwrap()));
    assert_eq!(sources(&["fe80::1"]), Some("fe80::2".parse().unwrap()));
    assert_eq!(sources(&["fe80::1", "fe80::2"]), Some("fd30::9".parse().unwrap()));
    assert_eq!(sources(&["fd30::9", "fe80::1", "fe80::2"]), None);
}

#[test]
fn an_owned_address_whose_group_is_not_joined_is_an_issue() {
    let mut state = Cluster::default().state();
    let [owned, other]: [Ipv6Addr; 2] = ["fd30::1".parse().unwrap(), "fd30::2".parse().unwrap()];
    let report = LinkReport { owned: super::owned([owned.into()]), ..LinkReport::default() };
    state.handle(Event::Report { link: 2, report }, Instant::ZERO);
    assert_eq!(plan(&state, Instant::ZERO).status.interfaces[0].issues, []);
    let event = Event::GroupsNotJoined { link: 2, addresses: [owned, other].into() };
    assert!(!state.handle(event, Instant::ZERO).is_empty());
    let (reason, mac) = (InterfaceIssueReason::MulticastJoinFailed, "33:33:ff:00:00:01".to_owned());
    let expect = [InterfaceIssue { address: owned.into(), reason, mac, node: None }];
    assert_eq!(plan(&state, Instant::ZERO).status.interfaces[0].issues, expect);
    state.handle(Event::GroupsNotJoined { link: 2, addresses: [].into() }, Instant::ZERO);
    assert_eq!(plan(&state, Instant::ZERO).status.interfaces[0].issues, []);
}

#[test]
fn unheard_nodes_are_in_the_status() {
    let mut state = Cluster::default().state();
    let conflict = AddressConflict {
        address: "172.30.0.200".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 2]),
        kind: ConflictKind::UnheardPeer("node3".into()),
    };
    let report = LinkReport {
        speakers: vec!["node2".into()],
        unheard: vec!["node2".into()],
        conflicts: [conflict].into(),
        ..LinkReport::default()
    };
    state.handle(Event::Report { link: 2, report }, Instant::ZERO);
    let interface = plan(&state, Instant::ZERO).status.interfaces[0].clone();
    assert_eq!((interface.heard, interface.unheard), (vec!["node2".into()], vec!["node2".into()]));
    let issues: Vec<_> = interface.issues.iter().map(|it| (it.reason, it.node.clone())).collect();
    assert_eq!(issues, [(InterfaceIssueReason::HellosFiltered, Some("node3".to_owned()))]);
}

#[test]
fn an_interface_selector_removes_only_this_node_from_its_other_interfaces() {
    let links = vec![link(2, "eth0"), link(3, "eth1")];
    let plan = Cluster {
        advertisements: vec![json!({"interfaces": ["eth1"]})],
        links,
        ..Cluster::default()
    }
    .plan();
    let is_candidate = |index: u32| {
        let unit = first_unit(&plan, index);
        (unit.own_candidate("node1").is_some(), unit.candidate("node2").is_some())
    };
    assert_eq!((is_candidate(2), is_candidate(3)), ((false, true), (true, true)));
    assert_eq!((plan.links[&2].selected, plan.links[&3].selected), (false, true));
}

#[test]
fn bridges_and_bonds_are_used_and_their_ports_are_not() {
    let port = |index, name| Link { enslaved: true, ..link(index, name) };
    let unbonded = [link(2, "eno1"), link(3, "eno2")];
    let bond = [port(2, "eno1"), port(3, "eno2"), link(4, "bond0")];
    let trunk = [port(2, "eno1"), port(3, "eno2"), link(4, "bond0"), link(5, "bond0.5")];
    let bridge = [port(2, "eno1"), port(4, "bond0"), link(5, "br0"), port(6, "tap0")];
    let failed_bond = [port(2, "eno1"), port(3, "eno2"), Link { up: false, ..link(4, "bond0") }];
    let cases: [(&str, &[Link], &[&str]); 5] = [
        ("two interfaces that are no ports", &unbonded, &["eno1", "eno2"]),
        ("a bond of both", &bond, &["bond0"]),
        ("a VLAN of the bond: a network of its own", &trunk, &["bond0", "bond0.5"]),
        ("a bridge with the bond as its port", &bridge, &["br0"]),
        ("a bond without a carrier: its ports are not used instead", &failed_bond, &[]),
    ];
    for (what, links, expect) in cases {
        let plan = Cluster { links: links.to_vec(), ..Cluster::default() }.plan();
        let names: Vec<&str> = plan.links.values().map(|link| &*link.name).collect();
        assert_eq!(names, expect, "{what}");
    }
}

#[test]
fn a_macvlan_is_unused_if_its_parent_is_used() {
    let macvlan = Link { parent: Some(2), ..link(3, "mac0") };
    let used_interfaces = |parent: Link| {
        let plan = Cluster { links: vec![parent, macvlan.clone()], ..Cluster::default() }.plan();
        plan.links.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(used_interfaces(link(2, "eth0")), [2]);
    assert_eq!(used_interfaces(Link { enslaved: true, ..link(2, "eth0") }), [3]);
}

#[test]
fn a_failed_interface_is_unused_until_its_retry() {
    let mut state = Cluster::default().state();
    let now = Instant::from_millis(60_000);
    state.handle(Event::LinkFailed { link: 2, why: "why".into() }, now);
    let desired = plan(&state, now);
    let retry_at = now + Duration::from_secs(1);
    assert_eq!((desired.links.len(), desired.replan_at), (0, Some(retry_at)));
    assert_eq!(desired.status.interfaces.len(), 1, "the failed interface stays in the status");
    let desired = plan(&state, retry_at);
    assert_eq!((desired.links.len(), desired.replan_at), (1, None));
}

#[test]
fn the_process_may_end_after_every_interface_has_handed_over() {
    let mut state =
        Cluster { links: vec![link(2, "eth0"), link(3, "eth1")], ..Cluster::default() }.state();
    let report = |handed_over| LinkReport {
        speakers: vec!["node2".into()],
        owned: owned(addresses(&["172.30.0.200"])),
        handed_over,
        ..LinkReport::default()
    };
    state.handle(Event::Report { link: 2, report: report(false) }, Instant::ZERO);
    let desired = plan(&state, Instant::ZERO);
    assert!(!desired.handed_over && !desired.status.draining && !desired.links[&2].config.leaving);
    assert_eq!(desired.status.owned_addresses, 1);
    let complete = with_addresses(&desired.status, &desired.owned);
    assert_eq!(*complete.interfaces[0].addresses, *addresses(&["172.30.0.200"]));
    assert_eq!(
        (&*desired.status.interfaces[0].name, &desired.status.interfaces[0].heard[..]),
        ("eth0", &["node2".to_owned()][..])
    );
    state.handle(Event::StopRequested, Instant::ZERO);
    for link in [2, 3] {
        let desired = plan(&state, Instant::ZERO);
        assert!(
            !desired.handed_over && desired.status.draining && desired.links[&link].config.leaving
        );
        state.handle(Event::Report { link, report: report(true) }, Instant::ZERO);
    }
    assert!(plan(&state, Instant::ZERO).handed_over);
    let none = Cluster { links: Vec::new(), ..Cluster::default() };
    let mut state = none.state();
    state.handle(Event::StopRequested, Instant::ZERO);
    assert!(
        plan(&state, Instant::ZERO).handed_over,
        "without interfaces there is nothing to hand over"
    );
}

#[test]
fn a_node_announces_no_ipv6_address_on_an_interface_without_ipv6() {
    let announced = |addresses: &[&str]| {
        let mut link = link(2, "eth0");
        link.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let services = vec![service("web", &["172.30.0.200", "fd30::200"])];
        let mut both = slice("web", &["node1"]);
        let v6 = both.endpoints.iter().cloned();
        let v6: Vec<_> = v6.map(|endpoint| Endpoint { family: Family::V6, ..endpoint }).collect();
        both.endpoints.extend(v6);
        let slices = vec![both];
        let cluster = Cluster { services, slices, links: vec![link], ..Cluster::default() };
        let units = cluster.units();
        let plan = cluster.plan();
        let interface = &plan.status.interfaces[0];
        assert_eq!(interface.ipv6_disabled, addresses.len() == 1);
        units.iter().map(|unit| unit.announced_here).collect::<Vec<_>>()
    };
    assert_eq!(announced(&["172.30.0.11", "fe80::1"]), [true, true]);
    assert_eq!(announced(&["172.30.0.11"]), [true, false]);
}

#[test]
fn an_address_is_announced_on_the_interface_with_its_subnet() {
    let announced = |spec: serde_json::Value, address: &str| {
        let with_subnet = |index, name: &str, subnet: &str| {
            let mut link = link(index, name);
            link.prefixes = vec![(subnet.parse().unwrap(), 24)];
            link
        };
        let links =
            vec![with_subnet(2, "eth0", "172.30.0.9"), with_subnet(3, "eth1", "172.30.9.9")];
        let services = vec![service("web", &[address])];
        let plan =
            Cluster { services, links, advertisements: vec![spec], ..Cluster::default() }.plan();
        let units = plan.links.values().map(|link| link.config.units.values().next().unwrap());
        units.map(|unit| unit.announced_here).collect::<Vec<_>>()
    };
    assert_eq!(announced(json!({}), "172.30.0.200"), [true, false]);
    assert_eq!(announced(json!({}), "172.30.9.200"), [false, true]);
    assert_eq!(announced(json!({}), "172.30.5.200"), [true, true], "no subnet contains it");
    assert_eq!(announced(json!({"allInterfaces": true}), "172.30.0.200"), [true, true]);
    let named = json!({"interfaces": ["eth0", "eth1"]});
    assert_eq!(announced(named, "172.30.0.200"), [true, true]);
    assert_eq!(announced(json!({"interfaces": ["eth1"]}), "172.30.0.200"), [false, true]);
}

#[test]
fn another_interface_announces_in_place_of_a_standby_one_or_one_that_is_down() {
    let with_subnet = |index, name: &str, subnet: &str| Link {
        prefixes: vec![(subnet.parse().unwrap(), 24)],
        ..link(index, name)
    };
    let links = vec![with_subnet(2, "eth0", "172.30.0.9"), with_subnet(3, "eth1", "172.30.9.9")];
    let services = vec![service("web", &["172.30.9.200"])];
    let mut state = Cluster { services, links: links.clone(), ..Cluster::default() }.state();
    let mut memo = Memo::default();
    let mut announced = |state: &mut State, event: Event| {
        memo.add(state.handle(event, Instant::ZERO));
        let plan = super::super::plan(state, &mut memo, Instant::ZERO);
        let eth0 = plan.links.get(&2).unwrap();
        eth0.config.units.values().next().unwrap().announced_here
    };
    let report = |standby| Event::Report {
        link: 3,
        report: LinkReport { standby, ..LinkReport::default() },
    };
    assert!(!announced(&mut state, report(false)));
    assert!(announced(&mut state, report(true)), "eth1 is a standby interface");
    assert!(!announced(&mut state, report(false)));
    let mut down = links;
    down[1].up = false;
    assert!(announced(&mut state, Event::Links(down)), "eth1 is down");
}

/// Runs the machine of an interface until a time. No other host replies.
fn run(machine: &mut ClaimMachine, end: Instant) {
    while let Some(at) = machine.deadline().filter(|at| *at <= end) {
        machine.tick(at);
        while machine.poll().is_some() {}
    }
}

#[test]
fn the_status_states_how_late_the_hellos_of_an_owner_were() {
    let cluster = Cluster::default();
    let config = ClaimConfig {
        node: "node1".into(),
        epoch: 1,
        hello_interval: Duration::from_millis(50),
        hello_misses: 3,
        detection_time_max: Duration::from_secs(2),
        failback_delay: None,
    };
    let mut machine = ClaimMachine::new(config, Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.handle(Input::Units { changed: cluster.units(), removed: Vec::new() }, Instant::ZERO);
    let stated = |machine: &ClaimMachine| {
        let (owned, late_hellos) = (machine.owned().clone(), machine.members().own().late_hellos());
        let report = LinkReport { owned, late_hellos, ..LinkReport::default() };
        let mut state = cluster.state();
        state.handle(Event::Report { link: 2, report }, Instant::ZERO);
        plan(&state, Instant::ZERO).status.interfaces[0].late_hellos
    };
    run(&mut machine, Instant::from_millis(10_000));
    assert_eq!((machine.owned().len(), stated(&machine)), (1, None));
    let late = machine.deadline().unwrap() + Duration::from_millis(850);
    machine.tick(late);
    run(&mut machine, late + Duration::from_secs(1));
    // The time of a calm node is 190 ms, and the allowance 800 ms.
    let expect = LateHellos { milliseconds: 850, detection_milliseconds: 990 };
    assert_eq!(stated(&machine), Some(expect));
}
