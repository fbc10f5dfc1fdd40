//! Tests of the effect of changes, and of its text.

use std::time::Duration;

use ferrolb_core::bgp::Prefix;

use super::*;
use crate::plan::Changes;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

/// Returns an outlook with Services, each with its addresses: `web=10.0.0.1,10.0.0.2`.
fn outlook(services: &[&str]) -> Outlook {
    let service = |text: &&str| {
        let (name, addresses) = text.split_once('=').expect("NAME=ADDRESSES");
        let addresses = addresses.split(',').filter_map(|it| it.parse().ok()).collect();
        let reason = if text.ends_with('=') { "NoPoolMatches" } else { "Assigned" };
        (key(name), ServiceOutlook { addresses, pool: None, reason })
    };
    Outlook { services: services.iter().map(service).collect(), ..Outlook::default() }
}

/// Sets the present and the next owner of 10.0.0.1.
fn owned(mut outlook: Outlook, present: &str, next: &str) -> Outlook {
    let nodes = |name: &str| vec![name.to_owned()];
    let owner = OwnerOutlook { present: nodes(present), next: nodes(next) };
    outlook.owners.insert([10, 0, 0, 1].into(), owner);
    outlook
}

/// Sets the nodes that advertise 10.0.0.1/32 to `tor`; a name with `-` has a de-preferred route.
fn routed(mut outlook: Outlook, nodes: &[&str]) -> Outlook {
    let node = |name: &&str| (name.trim_end_matches('-').into(), name.ends_with('-'));
    let prefix = Prefix::of([10, 0, 0, 1].into(), 32);
    outlook.routes.insert(("tor".into(), prefix), nodes.iter().map(node).collect());
    outlook
}

#[test]
fn each_effect_on_addresses_has_its_kind() {
    use AddressEffect::{Added, Lost, Moved, New, Released};
    let before = outlook(&[
        "a=10.0.0.1",
        "b=10.0.0.2",
        "c=10.0.0.3",
        "d=10.0.0.4",
        "e=10.0.0.5,fd00::5",
        "f=",
    ]);
    let after = outlook(&[
        "a=10.0.0.1",
        "b=",
        "c=10.0.0.9",
        "d=10.0.0.4,fd00::4",
        "e=10.0.0.5",
        "f=",
        "g=10.0.0.7",
    ]);
    let effect = Effect::between(&before, &after, &after);
    let kinds: Vec<_> = effect.services.iter().map(|it| (&*it.service, it.effect)).collect();
    let expected = [
        ("default/b", Lost),
        ("default/c", Moved),
        ("default/d", Added),
        ("default/e", Moved),
        ("default/g", New),
    ];
    assert_eq!((kinds.as_slice(), effect.kept), (expected.as_slice(), 1));
    assert!(effect.loses_addresses());
    let reverse = Effect::between(&after, &before, &before);
    assert_eq!(reverse.services.last().map(|it| it.effect), Some(Released));
    let only_new = Effect::between(&outlook(&[]), &before, &before);
    assert!(!only_new.loses_addresses());
}

#[test]
fn an_effect_after_the_grace_of_a_missing_pool_is_marked() {
    let (before, after) = (outlook(&["a=10.0.0.1"]), outlook(&["a="]));
    let effect = Effect::between(&before, &before, &after);
    assert!(effect.services[0].after_pool_grace);
    let text = effect.text(&Changes::default(), Duration::from_secs(60));
    assert!(text.contains("lost: NoPoolMatches, after 60 s (--pool-grace)"), "{text}");
}

#[test]
fn an_owner_that_changes_in_any_case_is_no_effect() {
    let services = || outlook(&["a=10.0.0.1"]);
    let effect = |before, after| Effect::between(&before, &after, &after).owners;
    let settled = owned(services(), "node1", "node1");
    assert_eq!(effect(settled.clone(), settled.clone()), []);
    let returning = owned(services(), "node1", "node2");
    assert_eq!(effect(returning.clone(), returning.clone()), []);
    let changed = effect(settled, returning);
    assert_eq!(
        (&*changed[0].before, &*changed[0].after),
        (&["node1".to_owned()][..], &["node2".to_owned()][..])
    );
    assert_eq!(changed[0].services, ["default/a"]);
}

#[test]
fn the_text_has_a_table_for_each_kind_of_effect() {
    let before = routed(
        owned(outlook(&["a=10.0.0.1", "b=10.0.0.2"]), "node1", "node1"),
        &["node1", "node2", "node3-"],
    );
    let after = routed(
        owned(outlook(&["a=10.0.0.1", "b=10.0.0.3"]), "node1", "node2"),
        &["node2-", "node3", "node4"],
    );
    let changes = Changes {
        described: (0..10).map(|n| format!("apply Node node{n}")).collect(),
        ignored: vec!["Deployment web".to_owned()],
        ..Changes::default()
    };
    let effect = Effect::between(&before, &after, &after);
    assert_eq!(
        effect.text(&changes, Duration::ZERO),
        "changes: apply Node node0, apply Node node1, apply Node node2, apply Node node3, apply \
         Node node4 and 5 others\n\
         not predicted, because FerroLB does not read them: Deployment web\n\
         \n\
         SERVICE     BEFORE     AFTER      EFFECT\n\
         default/b   10.0.0.2   10.0.0.3   moved\n\
         \n\
         ADDRESS    SERVICES    NODE BEFORE   NODE AFTER\n\
         10.0.0.1   default/a   node1         node2\n\
         \n\
         BGPPEER   PREFIX        EFFECT\n\
         tor       10.0.0.1/32   advertised by node4; withdrawn by node1; de-preferred by node2; \
         preferred again by node3\n\
         \n\
         addresses of Services: 1 moved, 1 kept; owners changed: 1; routes changed: 1\n"
    );
}
