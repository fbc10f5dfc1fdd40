//! Tests of the rules that exclude a node, and of those that only lower its rank.

use super::*;

#[test]
fn every_hard_rule_excludes_a_node() {
    let local = |nodes: &[&str]| Cluster {
        services: vec![Service {
            policy: TrafficPolicy::Local,
            ..service("web", &["172.30.0.200"])
        }],
        slices: vec![slice("web", nodes)],
        ..Cluster::default()
    };
    let second = |change: fn(&mut Node)| {
        let mut nodes = vec![node("node1"), node("node2")];
        change(&mut nodes[1]);
        Cluster { nodes, ..Cluster::default() }
    };
    let cases: [(&str, Cluster, &[&str]); 11] = [
        ("no rule applies", Cluster::default(), &["node1", "node2"]),
        ("unreachable", second(|node| node.unreachable = true), &["node1"]),
        ("excluded by its label", second(|node| node.excluded = true), &["node1"]),
        (
            "the label is ignored",
            Cluster { ignore_label: true, ..second(|node| node.excluded = true) },
            &["node1", "node2"],
        ),
        ("cordoned only lowers the rank", second(|node| node.cordoned = true), &["node1", "node2"]),
        ("Local, an endpoint on one node", local(&["node2"]), &["node2"]),
        ("Local, no endpoint", local(&[]), &[]),
        ("no endpoint anywhere", Cluster { slices: Vec::new(), ..Cluster::default() }, &[]),
        (
            "selected by the advertisement",
            Cluster { advertisements: vec![select("node2")], ..Cluster::default() },
            &["node2"],
        ),
        (
            "advertisements add up",
            Cluster {
                advertisements: vec![select("node1"), select("node2")],
                ..Cluster::default()
            },
            &["node1", "node2"],
        ),
        (
            "deleted from the cluster",
            Cluster { nodes: vec![node("node1")], ..Cluster::default() },
            &["node1"],
        ),
    ];
    for (what, cluster, expect) in cases {
        assert_eq!(cluster.candidates(), expect, "the candidates are wrong: {what}");
    }
}

#[test]
fn the_exclude_label_on_every_node_is_ignored_and_reported() {
    let excluded = |name| Node { excluded: true, ..node(name) };
    let all = Cluster { nodes: vec![excluded("node1"), excluded("node2")], ..Cluster::default() };
    assert_eq!((all.candidates().len(), all.plan().exclusion_ignored), (2, true));
    let some = Cluster { nodes: vec![excluded("node1"), node("node2")], ..Cluster::default() };
    assert_eq!(
        (some.candidates(), some.plan().exclusion_ignored),
        (vec!["node2".to_owned()], false)
    );
    let label_ignored = Cluster { ignore_label: true, ..all };
    assert_eq!(
        (label_ignored.candidates().len(), label_ignored.plan().exclusion_ignored),
        (2, false),
        "the label is not reported, because the flag ignores it"
    );
}

#[test]
fn candidates_carry_the_facts_of_their_nodes() {
    let not_ready = Node { ready: false, ..node("node1") };
    let mut slice = slice("web", &["node1", "node2"]);
    slice.endpoints[1] =
        Endpoint { ready: false, serving: true, terminating: true, ..slice.endpoints[1].clone() };
    let services =
        vec![Service { policy: TrafficPolicy::Local, ..service("web", &["172.30.0.200"]) }];
    let cluster = Cluster {
        nodes: vec![not_ready, node("node2")],
        slices: vec![slice],
        services,
        ..Cluster::default()
    };
    let unit = &cluster.units()[0];
    let first =
        Candidate { node: "node1".into(), cordoned: true, terminating: false, preference: 0 };
    let second =
        Candidate { node: "node2".into(), cordoned: false, terminating: true, preference: 0 };
    assert_eq!(*unit.candidates, [first, second]);
    assert_eq!(unit.order("node2"), order("node2", "172.30.0.200"));
    assert!(unit.can_serve_here);
}
