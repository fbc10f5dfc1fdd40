//! Table tests of granted, used and refused permissions.

use super::run::granted_by_deploy;
use super::{ApiRequest, Permission, PermissionUse, granted};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn permission(
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

fn request(
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

/// Returns a Role with `rule` in FerroLB's namespace, and its RoleBinding to the speaker's account.
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
fn a_rule_grants_each_verb_to_the_bound_account() {
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"], "verbs": ["list", "watch"]});
    let with_verb =
        |verb| permission("speaker", verb, "secrets", Some("ferrolb-system"), Some("key"));
    assert_eq!(
        granted(&objects(&rule)).unwrap(),
        BTreeSet::from([with_verb("list"), with_verb("watch")])
    );
}

#[test]
fn wildcards_and_incomplete_bindings_are_rejected() {
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
    assert!(granted(std::slice::from_ref(&role)).is_err(), "no binding refers to the role");
    assert!(granted(std::slice::from_ref(&binding)).is_err(), "the binding refers to no role");
    let mut foreign = binding;
    foreign["subjects"][0]["namespace"] = json!("default");
    assert!(granted(&[role, foreign]).is_err(), "the account is not in FerroLB's namespace");
}

#[test]
fn a_request_uses_the_most_specific_permission() {
    let all = permission("speaker", "list", "secrets", Some("ferrolb-system"), None);
    let one = permission("speaker", "list", "secrets", Some("ferrolb-system"), Some("key"));
    let everywhere = permission("controller", "get", "services", None, None);
    let granted = BTreeSet::from([all.clone(), one.clone(), everywhere.clone()]);
    for (request, used) in [
        (request("speaker", "list", "secrets", "ferrolb-system", "", true), Some(&all)),
        (request("speaker", "list", "secrets", "ferrolb-system", "key", true), Some(&one)),
        (request("speaker", "list", "secrets", "ferrolb-system", "other", true), Some(&all)),
        (request("speaker", "watch", "secrets", "ferrolb-system", "", true), None),
        (request("speaker", "list", "secrets", "default", "", true), None),
        (request("speaker", "list", "secrets", "", "", true), None),
        (request("speaker", "list", "secrets", "ferrolb-system", "", false), None),
        (request("controller", "list", "secrets", "ferrolb-system", "", true), None),
        (request("controller", "get", "services", "default", "web", true), Some(&everywhere)),
        (request("controller", "get", "services/status", "default", "web", true), None),
    ] {
        let permission_use = PermissionUse::of(&BTreeSet::from([request.clone()]), &granted);
        assert_eq!(
            permission_use.used.iter().collect::<Vec<_>>(),
            used.into_iter().collect::<Vec<_>>(),
            "{request:?}"
        );
    }
}

#[test]
fn permissions_unused_by_all_labs_are_reported() {
    let (get, list) = (
        permission("speaker", "get", "nodes", None, None),
        permission("speaker", "list", "nodes", None, None),
    );
    let granted = BTreeSet::from([get, list]);
    let lab = |verb| {
        PermissionUse::of(
            &BTreeSet::from([request("speaker", verb, "nodes", "", "", true)]),
            &granted,
        )
    };
    let mut all = lab("list");
    assert_eq!(
        all.unused_lines(&granted),
        ["granted, but not used by any request: speaker: get nodes in every namespace"]
    );
    all.extend(lab("get"));
    assert_eq!(all.unused_lines(&granted), [""; 0]);
}

#[test]
fn refused_requests_are_reported_unless_granted() {
    let granted = BTreeSet::from([permission(
        "speaker",
        "list",
        "secrets",
        Some("ferrolb-system"),
        Some("key"),
    )]);
    let refused = |name| {
        let request = request("speaker", "list", "secrets", "ferrolb-system", name, false);
        PermissionUse::of(&BTreeSet::from([request]), &granted).refused_lines()
    };
    assert_eq!(refused("key"), [""; 0]);
    let expect =
        "refused, and not granted by deploy/: speaker: list secrets other in ferrolb-system";
    assert_eq!(refused("other"), [expect]);
}

#[test]
fn bgp_adds_permissions_only_to_the_speaker() {
    let (plain, with_bgp) = (granted_by_deploy(false).unwrap(), granted_by_deploy(true).unwrap());
    assert!(!plain.is_empty() && plain.is_subset(&with_bgp) && plain != with_bgp);
    let more: BTreeSet<_> =
        with_bgp.difference(&plain).map(|permission| permission.account.as_str()).collect();
    assert_eq!(more, BTreeSet::from(["speaker"]));
}

#[test]
fn migration_permissions_match_except_status_writes() {
    let permissions = granted_by_deploy(false).unwrap();
    let (in_metallb, in_ferrolb): (Vec<_>, Vec<_>) = permissions
        .iter()
        .filter(|permission| permission.namespace.is_some())
        .map(|permission| {
            (permission.namespace.as_deref() == Some("metallb-system"), permission.to_string())
        })
        .partition(|(is_metallb, _)| *is_metallb);
    let as_ferrolb = |(_, text): &(bool, String)| {
        text.replace("metallb.io", "ferrolb.io").replace("metallb-system", "ferrolb-system")
    };
    let [in_metallb, in_ferrolb] = [in_metallb, in_ferrolb]
        .map(|permissions| permissions.iter().map(as_ferrolb).collect::<BTreeSet<_>>());
    let is_ferrolb_only = |permission: &&String| {
        // The pods only show which SpeakerStatuses are those of stopped speakers.
        permission.contains("/status")
            || permission.contains("speakerstatuses")
            || permission.ends_with(" pods in ferrolb-system")
    };
    assert!(in_metallb.is_subset(&in_ferrolb));
    assert_eq!(
        in_ferrolb
            .difference(&in_metallb)
            .filter(|permission| !is_ferrolb_only(permission))
            .collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}
