//! Tests of a Node that is deleted while its speaker runs, and created again.

use super::*;
use ferrolb_proto::facts::Node;

#[test]
fn a_recreated_node_announces_as_before_its_deletion() {
    let mut state = Cluster::default().state();
    state.config.gobgp = true;
    let deletion = Change::Delete(Key::new("", "node1"));
    let before = plan(&state, Instant::ZERO);
    assert_eq!(before.not_ready_reason, None);

    let changes = state.handle(Event::of::<Node>(deletion), Instant::ZERO);
    assert!(!changes.is_empty(), "the plan changes");
    let without_node = plan(&state, Instant::ZERO);
    let missing = "Node \"node1\" does not exist: check --node-name";
    assert_eq!(without_node.not_ready_reason.as_deref(), Some(missing));
    let unit = first_unit(&without_node, 2);
    assert!(unit.candidates.iter().all(|candidate| &*candidate.node == "node2"), "{unit:?}");

    // Another object with the same name, as when a kubelet registers its Node again.
    let labels = [("name".to_owned(), "node1".to_owned())].into();
    let recreated = Node { name: "node1".into(), ready: true, labels, ..Node::default() };
    let changes = state.handle(Event::of::<Node>(Change::Apply(recreated)), Instant::ZERO);
    assert!(!changes.is_empty(), "the plan changes");
    let after = plan(&state, Instant::ZERO);
    assert_eq!(
        (after.not_ready_reason, after.links, after.bgp),
        (before.not_ready_reason, before.links, before.bgp)
    );
}
