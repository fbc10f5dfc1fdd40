//! Tests of the policies of classes: the mapping of every attribute, and the content of marks.

use super::*;

fn community(texts: &[&str]) -> BTreeSet<CommunityValue> {
    texts.iter().map(|text| text.parse().expect("a community")).collect()
}

const PLAIN: ExportAttributes = ExportAttributes {
    communities: BTreeSet::new(),
    local_pref: 0,
    med: None,
    prepend: None,
    next_hop: None,
};

fn policy(groups: &[(&ExportAttributes, &[&str])]) -> PolicyConfig {
    let group = |(attributes, texts): &(&ExportAttributes, &[&str])| {
        let routers = texts.iter().map(|text| text.parse().expect("an address"));
        ((*attributes).clone(), routers.collect())
    };
    PolicyConfig::new(&groups.iter().map(group).collect())
}

/// Returns the actions of the policy of a class whose routers receive these attributes.
fn actions_of(attributes: &ExportAttributes) -> api::Actions {
    let policy = policy(&[(attributes, &["192.0.2.1"])]);
    let [statement] = &policy.statements[..] else { panic!("{:?}", policy.statements) };
    statement.actions.clone().expect("actions")
}

#[test]
fn each_group_has_a_statement() {
    let full = ExportAttributes {
        communities: community(&["1:2", "large:3:4:5"]),
        local_pref: 200,
        med: Some(7),
        prepend: Some((64512, 2)),
        next_hop: "fd30::11".parse().ok(),
    };
    let class = policy(&[(&full, &["192.0.2.1", "192.0.2.2"]), (&PLAIN, &["192.0.2.3"])]);
    let [first, second] = &class.statements[..] else { panic!("{:?}", class.statements) };
    let set = |statement: &api::Statement| {
        let conditions = statement.conditions.clone().expect("conditions");
        let name = conditions.neighbor_set.expect("a neighbor set").name;
        assert_eq!(
            conditions.large_community_set.expect("the set with the mark").name,
            class.sets[0].name
        );
        class
            .sets
            .iter()
            .find(|set| set.name == name)
            .map(|set| set.list.join(" "))
            .expect("the set of the statement")
    };
    let (full_statement, plain_statement) =
        if set(first) == "192.0.2.3" { (second, first) } else { (first, second) };
    assert_eq!(
        (set(full_statement), set(plain_statement)),
        ("192.0.2.1 192.0.2.2".to_owned(), "192.0.2.3".to_owned())
    );
    let actions = full_statement.actions.clone().expect("actions");
    assert_eq!(actions.community.expect("communities").communities, ["1:2"]);
    assert_eq!(
        actions.large_community.expect("large communities").communities,
        ["3:4:5"],
        "the large communities replace the mark"
    );
    assert_eq!(actions.local_pref, Some(api::LocalPrefAction { value: 200 }));
    assert_eq!(actions.as_prepend, Some(api::AsPrependAction { asn: 64512, repeat: 2 }));
    assert_eq!(actions.med.map(|med| med.value), Some(7));
    assert_eq!(actions.nexthop.map(|hop| hop.address), Some("fd30::11".to_owned()));
    let actions = plain_statement.actions.clone().expect("actions");
    let mark_removal = actions.large_community.expect("the removal of the mark");
    assert_eq!(
        (mark_removal.r#type(), mark_removal.communities),
        (api::community_action::Type::Remove, class.sets[0].list.clone())
    );
    assert_eq!(
        (actions.community, actions.local_pref, actions.med, actions.as_prepend, actions.nexthop),
        (None, None, None, None, None)
    );
}

#[test]
fn a_local_pref_of_0_and_an_absent_med_need_no_action() {
    let local_pref = |local_pref| {
        actions_of(&ExportAttributes { local_pref, ..PLAIN }).local_pref.map(|action| action.value)
    };
    assert_eq!((local_pref(0), local_pref(100)), (None, Some(100)));
    let med = |med| actions_of(&ExportAttributes { med, ..PLAIN }).med.map(|action| action.value);
    assert_eq!((med(None), med(Some(0))), (None, Some(0)), "an absent MED differs from 0");
}

#[test]
fn a_mark_identifies_the_content_of_a_class() {
    let with = |texts: &[&str]| ExportAttributes { communities: community(texts), ..PLAIN };
    let mark = |attributes: &ExportAttributes, router| policy(&[(attributes, &[router])]).hash;
    let one = mark(&with(&["1:2"]), "192.0.2.1");
    assert_eq!(mark(&with(&["1:2"]), "192.0.2.1"), one);
    let others = [
        mark(&with(&["1:3"]), "192.0.2.1"),
        mark(&with(&[]), "192.0.2.1"),
        mark(&with(&["1:2"]), "192.0.2.9"),
        mark(&ExportAttributes { prepend: Some((64512, 1)), ..with(&["1:2"]) }, "192.0.2.1"),
    ];
    assert_eq!(others.iter().chain([&one]).collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(ContentHash::from_community(&one.community()), Some(one));
    assert_eq!(
        ContentHash::from_community(&api::LargeCommunity { global_admin: 1, ..one.community() }),
        None
    );
    assert_eq!(ContentHash::from_statement_name(&format!("ferrolb-{one}-0")), Some(one));
    assert_eq!(
        ["ferrolb-own", "own", "ferrolb-x-0"].map(ContentHash::from_statement_name),
        [None; 3]
    );
}
