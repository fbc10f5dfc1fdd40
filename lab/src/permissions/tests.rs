//! Table tests of granted, used and refused permissions.

use super::run::granted_by_deploy;
use super::{ApiRequest, Permission, PermissionUse, granted};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn right(
    account: &str,
    verb: &str,
    resource: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Permission {
    Permission {
        account: account.to_owned(),
        verb: verb.to_owned(),
        group: String::new(),
        resource: resource.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
    }
}

fn asked(
    account: &str,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    allowed: bool,
) -> ApiRequest {
    ApiRequest {
        account: account.to_owned(),
        verb: verb.to_owned(),
        group: String::new(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        allowed,
    }
}

/// A role in FerroLB's namespace, and its binding to an account.
fn objects(rule: &Value) -> [Value; 2] {
    let metadata = json!({"name": "a", "namespace": "ferrolb-system"});
    [
        json!({"kind": "Role", "metadata": metadata, "rules": [rule]}),
        json!({
            "kind": "RoleBinding", "metadata": metadata, "roleRef": {"kind": "Role", "name": "a"},
            "subjects": [{"kind": "ServiceAccount", "name": "speaker", "namespace": "ferrolb-system"}],
        }),
    ]
}

#[test]
fn a_rule_grants_each_verb_on_each_resource_to_who_is_bound() {
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"], "verbs": ["list", "watch"]});
    let of = |verb| right("speaker", verb, "secrets", Some("ferrolb-system"), Some("key"));
    assert_eq!(granted(&objects(&rule)).unwrap(), BTreeSet::from([of("list"), of("watch")]));
}

#[test]
fn what_cannot_be_held_to_its_use_is_refused() {
    let rule = |field: &str, value: Value| {
        let mut rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        rule[field] = value;
        rule
    };
    assert!(granted(&objects(&rule("verbs", json!(["get"])))).is_ok());
    for (field, value) in [
        ("apiGroups", json!(["*"])),
        ("resources", json!(["*"])),
        ("resources", json!(["*/status"])),
        ("verbs", json!(["get", "*"])),
        ("nonResourceURLs", json!(["/metrics"])),
    ] {
        assert!(granted(&objects(&rule(field, value.clone()))).is_err(), "{field}: {value}");
    }
    let [role, binding] = objects(&rule("verbs", json!(["get"])));
    assert!(granted(std::slice::from_ref(&role)).is_err(), "a role that nobody has");
    assert!(granted(std::slice::from_ref(&binding)).is_err(), "a binding of no role");
    let mut stranger = binding;
    stranger["subjects"][0]["namespace"] = json!("default");
    assert!(granted(&[role, stranger]).is_err(), "a stranger's account");
}

#[test]
fn a_right_is_used_by_the_request_that_needs_it() {
    let all = right("speaker", "list", "secrets", Some("ferrolb-system"), None);
    let one = right("speaker", "list", "secrets", Some("ferrolb-system"), Some("key"));
    let everywhere = right("controller", "get", "services", None, None);
    let granted = BTreeSet::from([all.clone(), one.clone(), everywhere.clone()]);
    for (asked, used) in [
        (asked("speaker", "list", "secrets", "ferrolb-system", "", true), Some(&all)),
        (asked("speaker", "list", "secrets", "ferrolb-system", "key", true), Some(&one)),
        (asked("speaker", "list", "secrets", "ferrolb-system", "other", true), Some(&all)),
        (asked("speaker", "watch", "secrets", "ferrolb-system", "", true), None),
        (asked("speaker", "list", "secrets", "default", "", true), None),
        (asked("speaker", "list", "secrets", "", "", true), None),
        (asked("speaker", "list", "secrets", "ferrolb-system", "", false), None),
        (asked("controller", "list", "secrets", "ferrolb-system", "", true), None),
        (asked("controller", "get", "services", "default", "web", true), Some(&everywhere)),
        (asked("controller", "get", "services/status", "default", "web", true), None),
    ] {
        let seen = PermissionUse::of(&BTreeSet::from([asked.clone()]), &granted);
        assert_eq!(
            seen.used.iter().collect::<Vec<_>>(),
            used.into_iter().collect::<Vec<_>>(),
            "{asked:?}"
        );
    }
}

#[test]
fn labs_add_up_and_what_none_of_them_used_is_said() {
    let (get, list) = (
        right("speaker", "get", "nodes", None, None),
        right("speaker", "list", "nodes", None, None),
    );
    let granted = BTreeSet::from([get, list]);
    let lab = |verb| {
        PermissionUse::of(
            &BTreeSet::from([asked("speaker", verb, "nodes", "", "", true)]),
            &granted,
        )
    };
    let mut all = lab("list");
    assert_eq!(
        all.unused_lines(&granted),
        ["granted, and used by nobody: speaker: get nodes in every namespace"]
    );
    all.extend(lab("get"));
    assert_eq!(all.unused_lines(&granted), [""; 0]);
}

#[test]
fn a_refusal_is_said_unless_it_is_of_what_is_granted() {
    let granted =
        BTreeSet::from([right("speaker", "list", "secrets", Some("ferrolb-system"), Some("key"))]);
    let refused = |name| {
        let asked = asked("speaker", "list", "secrets", "ferrolb-system", name, false);
        PermissionUse::of(&BTreeSet::from([asked]), &granted).refused_lines()
    };
    assert_eq!(refused("key"), [""; 0]);
    let said = "refused, and granted nowhere: speaker: list secrets other in ferrolb-system";
    assert_eq!(refused("other"), [said]);
}

#[test]
fn nothing_is_granted_beyond_what_bgp_adds_to_layer_2() {
    let (plain, with_bgp) = (granted_by_deploy(false).unwrap(), granted_by_deploy(true).unwrap());
    assert!(!plain.is_empty() && plain.is_subset(&with_bgp) && plain != with_bgp);
    let more: BTreeSet<_> =
        with_bgp.difference(&plain).map(|right| right.account.as_str()).collect();
    assert_eq!(more, BTreeSet::from(["speaker"]));
}

#[test]
fn in_metallbs_place_the_same_is_granted_for_its_kinds_and_no_status_but_the_pools() {
    let rights = granted_by_deploy(false).unwrap();
    let (theirs, ours): (Vec<_>, Vec<_>) = rights
        .iter()
        .filter(|right| right.namespace.is_some())
        .map(|right| (right.namespace.as_deref() == Some("metallb-system"), right.to_string()))
        .partition(|(theirs, _)| *theirs);
    let plain = |(_, text): &(bool, String)| {
        text.replace("metallb.io", "ferrolb.io").replace("metallb-system", "ferrolb-system")
    };
    let [theirs, ours] =
        [theirs, ours].map(|rights| rights.iter().map(plain).collect::<BTreeSet<_>>());
    let no_place = |right: &&String| {
        let status = right.contains("/status") && !right.contains("ipaddresspools/status");
        status || right.contains("speakerstatuses")
    };
    assert!(theirs.is_subset(&ours));
    assert_eq!(
        ours.difference(&theirs).filter(|right| !no_place(right)).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}
