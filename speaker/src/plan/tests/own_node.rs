//! The Node of this speaker is deleted while the speaker runs, and created again.

use super::*;

#[test]
fn a_node_that_is_deleted_announces_nothing_and_one_that_is_created_again_announces_as_before() {
    let mut state = Cluster::default().state();
    state.config.gobgp = true;
    let gone = Change::Delete(Key::new("", "node1"));
    let before = plan(&state, Instant::ZERO);
    assert_eq!(before.not_ready, None);

    assert!(state.handle(Event::Node(gone), Instant::ZERO), "the plan changes");
    let without = plan(&state, Instant::ZERO);
    let missing = "the cluster has no Node \"node1\": see --node-name";
    assert_eq!(without.not_ready.as_deref(), Some(missing));
    let unit = &without.links.values().next().expect("a link").order.units[0];
    assert!(unit.candidates.iter().all(|candidate| &*candidate.node == "node2"), "{unit:?}");

    // Another object of the same name, as when a kubelet registers again.
    let labels = [("name".to_owned(), "node1".to_owned())].into();
    let again = Node { name: "node1".into(), ready: true, labels, ..Node::default() };
    assert!(state.handle(Event::Node(Change::Apply(again)), Instant::ZERO), "the plan changes");
    let after = plan(&state, Instant::ZERO);
    assert_eq!((after.not_ready, after.links, after.bgp), (before.not_ready, before.links, before.bgp));
}
