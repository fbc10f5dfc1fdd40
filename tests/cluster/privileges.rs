//! Least privilege: the components run as their own ServiceAccounts, which have exactly the
//! permissions that the components use.

use crate::controller_policies;
use crate::scenario::{one_node, run_scenario, step};
use crate::segment;
use crate::services;
use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::{Lab, setup, wait};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// FerroLB's namespace, another namespace, and all namespaces.
pub(crate) const FERROLB: &str = "ferrolb-system";
const OTHER: &str = "default";
const ANY: &str = "";

/// Maximum time until an API server enforces a new admission policy.
pub(crate) const POLICY_MAX: Duration = Duration::from_secs(30);

/// ServiceAccount, verb, group, resource (with its subresource), name (empty: any), namespace, and
/// whether the request is allowed.
type PermissionCase =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, bool);

const CASES: &[PermissionCase] = &[
    ("speaker", "list", "", "services", "", ANY, true),
    ("speaker", "watch", "", "services", "", ANY, true),
    ("speaker", "list", "", "nodes", "", ANY, true),
    ("speaker", "watch", "", "nodes", "", ANY, true),
    ("speaker", "list", "discovery.k8s.io", "endpointslices", "", ANY, true),
    ("speaker", "watch", "discovery.k8s.io", "endpointslices", "", ANY, true),
    ("speaker", "list", "ferrolb.io", "ipaddresspools", "", FERROLB, true),
    ("speaker", "watch", "ferrolb.io", "ipaddresspools", "", FERROLB, true),
    ("speaker", "list", "ferrolb.io", "l2advertisements", "", FERROLB, true),
    ("speaker", "watch", "ferrolb.io", "l2advertisements", "", FERROLB, true),
    ("speaker", "create", "ferrolb.io", "speakerstatuses", "", FERROLB, true),
    ("speaker", "patch", "ferrolb.io", "speakerstatuses", "node1", FERROLB, true),
    ("speaker", "patch", "ferrolb.io", "speakerstatuses/status", "node1", FERROLB, true),
    ("speaker", "list", "ferrolb.io", "speakerstatuses", "", FERROLB, false),
    ("speaker", "watch", "ferrolb.io", "speakerstatuses", "", FERROLB, false),
    ("speaker", "get", "", "secrets", "ferrolb-hello", FERROLB, false),
    ("speaker", "list", "", "secrets", "ferrolb-hello", FERROLB, true),
    ("speaker", "watch", "", "secrets", "ferrolb-hello", FERROLB, true),
    ("speaker", "list", "", "secrets", "", ANY, false),
    ("speaker", "list", "", "secrets", "", FERROLB, false),
    ("speaker", "get", "", "secrets", "other", FERROLB, false),
    ("speaker", "get", "", "secrets", "ferrolb-hello", OTHER, false),
    ("speaker", "update", "", "secrets", "ferrolb-hello", FERROLB, false),
    ("speaker", "create", "", "secrets", "", FERROLB, false),
    ("speaker", "list", "", "configmaps", "ferrolb-address-memory", FERROLB, false),
    ("speaker", "patch", "", "configmaps", "ferrolb-address-memory", FERROLB, false),
    ("speaker", "patch", "", "services", "", OTHER, false),
    ("speaker", "update", "", "services", "", OTHER, false),
    ("speaker", "patch", "", "services/status", "", OTHER, false),
    ("speaker", "delete", "", "services", "", OTHER, false),
    ("speaker", "update", "", "nodes", "node1", ANY, false),
    ("speaker", "patch", "", "nodes", "node1", ANY, false),
    ("speaker", "patch", "", "nodes/status", "node1", ANY, false),
    ("speaker", "create", "", "pods", "", FERROLB, false),
    ("speaker", "list", "", "pods", "", ANY, false),
    ("speaker", "create", "", "pods/exec", "", FERROLB, false),
    ("speaker", "patch", "ferrolb.io", "ipaddresspools", "", FERROLB, false),
    ("speaker", "patch", "ferrolb.io", "ipaddresspools/status", "", FERROLB, false),
    ("speaker", "list", "", "namespaces", "", ANY, false),
    ("speaker", "list", "ferrolb.io", "communities", "", FERROLB, false),
    ("speaker", "patch", "ferrolb.io", "communities/status", "", FERROLB, false),
    ("speaker", "update", "coordination.k8s.io", "leases", "", FERROLB, false),
    ("speaker", "create", "", "serviceaccounts/token", "controller", FERROLB, false),
    ("speaker", "bind", "rbac.authorization.k8s.io", "clusterroles", "", ANY, false),
    ("controller", "list", "", "services", "", ANY, true),
    ("controller", "get", "", "services", "", OTHER, true),
    ("controller", "watch", "", "services", "", ANY, true),
    ("controller", "patch", "", "services/status", "", OTHER, true),
    ("controller", "list", "", "pods", "", FERROLB, true),
    ("controller", "watch", "", "pods", "", FERROLB, true),
    ("controller", "list", "", "pods", "", OTHER, false),
    ("controller", "get", "", "pods/status", "", OTHER, true),
    ("controller", "patch", "", "pods/status", "", OTHER, true),
    ("controller", "list", "", "nodes", "", ANY, true),
    ("controller", "watch", "", "nodes", "", ANY, true),
    ("controller", "list", "", "namespaces", "", ANY, true),
    ("controller", "watch", "", "namespaces", "", ANY, true),
    ("controller", "list", "ferrolb.io", "ipaddresspools", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "ipaddresspools", "", FERROLB, true),
    ("controller", "list", "ferrolb.io", "l2advertisements", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "l2advertisements", "", FERROLB, true),
    ("controller", "list", "ferrolb.io", "communities", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "communities", "", FERROLB, true),
    ("controller", "list", "ferrolb.io", "bgppeers", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "bgppeers", "", FERROLB, true),
    ("controller", "list", "ferrolb.io", "bgpadvertisements", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "bgpadvertisements", "", FERROLB, true),
    ("controller", "list", "ferrolb.io", "bfdprofiles", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "bfdprofiles", "", FERROLB, true),
    ("controller", "list", "ferrolb.io", "speakerstatuses", "", FERROLB, true),
    ("controller", "watch", "ferrolb.io", "speakerstatuses", "", FERROLB, true),
    ("controller", "list", "discovery.k8s.io", "endpointslices", "", ANY, true),
    ("controller", "watch", "discovery.k8s.io", "endpointslices", "", ANY, true),
    ("controller", "patch", "ferrolb.io", "ipaddresspools/status", "", FERROLB, true),
    ("controller", "patch", "ferrolb.io", "l2advertisements/status", "", FERROLB, true),
    ("controller", "patch", "ferrolb.io", "communities/status", "", FERROLB, true),
    ("controller", "patch", "ferrolb.io", "bgppeers/status", "", FERROLB, true),
    ("controller", "patch", "ferrolb.io", "bgpadvertisements/status", "", FERROLB, true),
    ("controller", "patch", "ferrolb.io", "bfdprofiles/status", "", FERROLB, true),
    ("controller", "patch", "ferrolb.io", "bgppeers", "", FERROLB, false),
    ("controller", "get", "coordination.k8s.io", "leases", "ferrolb-controller", FERROLB, true),
    ("controller", "create", "coordination.k8s.io", "leases", "", FERROLB, true),
    ("controller", "update", "coordination.k8s.io", "leases", "ferrolb-controller", FERROLB, true),
    ("controller", "create", "events.k8s.io", "events", "", OTHER, true),
    ("controller", "list", "", "configmaps", "ferrolb-address-memory", FERROLB, true),
    ("controller", "watch", "", "configmaps", "ferrolb-address-memory", FERROLB, true),
    ("controller", "patch", "", "configmaps", "ferrolb-address-memory", FERROLB, true),
    ("controller", "list", "", "configmaps", "", FERROLB, false),
    ("controller", "patch", "", "configmaps", "other", FERROLB, false),
    ("controller", "create", "", "configmaps", "ferrolb-address-memory", FERROLB, true),
    ("controller", "create", "", "configmaps", "", FERROLB, false),
    ("controller", "create", "", "secrets", "", FERROLB, true),
    ("controller", "get", "", "secrets", "ferrolb-hello", FERROLB, true),
    ("controller", "list", "", "secrets", "", ANY, false),
    ("controller", "list", "", "secrets", "", FERROLB, false),
    ("controller", "get", "", "secrets", "other", FERROLB, false),
    ("controller", "create", "", "secrets", "", OTHER, false),
    ("controller", "delete", "", "services", "", OTHER, false),
    ("controller", "create", "", "services", "", OTHER, false),
    ("controller", "patch", "", "services", "", OTHER, false),
    ("controller", "update", "", "services/status", "", OTHER, false),
    ("controller", "get", "", "namespaces", OTHER, ANY, false),
    ("controller", "patch", "", "namespaces", OTHER, ANY, false),
    ("controller", "delete", "", "namespaces", OTHER, ANY, false),
    ("controller", "list", "ferrolb.io", "communities", "", OTHER, false),
    ("controller", "patch", "ferrolb.io", "communities", "", FERROLB, false),
    ("controller", "update", "ferrolb.io", "communities/status", "", FERROLB, false),
    ("controller", "patch", "ferrolb.io", "l2advertisements", "", FERROLB, false),
    ("controller", "list", "events.k8s.io", "events", "", OTHER, false),
    ("controller", "update", "", "nodes", "node1", ANY, false),
    ("controller", "patch", "", "nodes", "node1", ANY, false),
    ("controller", "list", "", "pods", "", ANY, false),
    ("controller", "get", "", "pods", "", OTHER, false),
    ("controller", "patch", "", "pods", "", OTHER, false),
    ("controller", "update", "", "pods/status", "", OTHER, false),
    ("controller", "create", "", "pods", "", FERROLB, false),
    ("controller", "list", "", "configmaps", "", ANY, false),
    ("controller", "update", "coordination.k8s.io", "leases", "", OTHER, false),
    ("controller", "list", "ferrolb.io", "speakerstatuses", "", OTHER, false),
    ("controller", "create", "ferrolb.io", "speakerstatuses", "", FERROLB, false),
    ("controller", "patch", "ferrolb.io", "speakerstatuses", "node1", FERROLB, false),
    ("controller", "update", "discovery.k8s.io", "endpointslices", "", OTHER, false),
    ("controller", "patch", "ferrolb.io", "speakerstatuses/status", "node1", FERROLB, false),
    ("controller", "create", "ferrolb.io", "ipaddresspools", "", FERROLB, false),
    ("controller", "delete", "ferrolb.io", "ipaddresspools", "", FERROLB, false),
    ("controller", "create", "", "serviceaccounts/token", "speaker", FERROLB, false),
    ("controller", "bind", "rbac.authorization.k8s.io", "clusterroles", "", ANY, false),
    ("controller", "impersonate", "", "users", "", ANY, false),
];

/// Verb, group and resource of each permission that a speaker additionally has with BGP, in
/// FerroLB's namespace.
const BGP_PERMISSIONS: &[[&str; 3]] = &[
    ["list", "ferrolb.io", "bgppeers"],
    ["watch", "ferrolb.io", "bgppeers"],
    ["list", "ferrolb.io", "bgpadvertisements"],
    ["watch", "ferrolb.io", "bgpadvertisements"],
    ["list", "ferrolb.io", "communities"],
    ["watch", "ferrolb.io", "communities"],
    ["list", "ferrolb.io", "bfdprofiles"],
    ["watch", "ferrolb.io", "bfdprofiles"],
    ["list", "", "secrets"],
    ["watch", "", "secrets"],
];

/// Checks that the overlay for BGP grants exactly [`BGP_PERMISSIONS`].
#[test]
fn the_bgp_overlay_grants_exactly_the_permissions_in_the_table() {
    let rbac =
        fs::read_to_string(setup::repository().join("deploy/overlays/bgp/rbac.yaml")).unwrap();
    let objects = apply::objects(&rbac).unwrap();
    let roles: Vec<_> = objects.iter().filter(|object| object["rules"].is_array()).collect();
    let kinds: Vec<_> = roles
        .iter()
        .map(|role| (role["kind"].as_str(), role["metadata"]["namespace"].as_str()))
        .collect();
    assert_eq!(kinds, [(Some("Role"), Some(FERROLB))]);
    let granted = roles
        .iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten())
        .flat_map(permissions);
    let granted: BTreeSet<_> = granted.collect();
    assert_eq!(granted, BGP_PERMISSIONS.iter().copied().collect::<BTreeSet<_>>());
}

/// Checks that [`CASES`] contains every granted permission, so that each new permission needs a new
/// case.
#[test]
fn every_granted_permission_is_in_the_table() {
    let rbac = fs::read_to_string(setup::repository().join("deploy/base/rbac.yaml")).unwrap();
    let is_expected = |account: &str, [verb, group, resource]: [&str; 3]| {
        CASES.iter().any(|case| {
            case.6 && (case.0, case.1, case.2, case.3) == (account, verb, group, resource)
        })
    };
    let (mut granted, mut missing) = (0, Vec::new());
    for role in apply::objects(&rbac).unwrap() {
        let label = &role["metadata"]["labels"]["app.kubernetes.io/component"];
        let account = label.as_str().unwrap();
        for rule in role["rules"].as_array().into_iter().flatten() {
            for permission in permissions(rule) {
                granted += 1;
                if !is_expected(account, permission) {
                    missing.push(format!("{account}: {permission:?}"));
                }
            }
        }
    }
    assert!(
        granted > 0 && missing.is_empty(),
        "{granted} permissions are granted, and these of them are not in CASES: {missing:#?}"
    );
}

/// Returns verb, group and resource of each permission that a rule grants.
fn permissions(rule: &Value) -> Vec<[&str; 3]> {
    let list = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let of_verb = |verb| {
        list("apiGroups")
            .flat_map(move |group| list("resources").map(move |resource| [verb, group, resource]))
    };
    list("verbs").flat_map(of_verb).collect()
}

#[test]
fn components_run_as_their_own_accounts_with_least_privilege() {
    run_scenario(&one_node("privileges"), |lab| {
        lab.start_ferrolb()?;
        step("the ServiceAccounts have exactly the permissions of the table", || {
            lab.api(async |client| check_all(&client).await)
        })?;
        step("a speaker may write only the SpeakerStatus of its own node", || {
            lab.api(async |client| check_own_status_only(&client).await)
        })?;
        services::apply_pool_and_pod(lab, "node1")?;
        step("the controller may change only the condition Ready of pods, by its reason", || {
            lab.api(async |client| controller_policies::check_conditions(&client).await)
        })?;
        step("the controller may create only its own Lease and Secret", || {
            lab.api(async |client| controller_policies::check_created(&client).await)
        })?;
        for (component, account) in [("controller", "controller"), ("speaker-node1", "speaker")] {
            step(
                &format!("{component} runs as its own ServiceAccount with limited permissions"),
                || check_account(lab, component, account),
            )?;
        }
        step("these permissions suffice to serve a Service", || {
            let address = services::serve(lab, "web")?;
            segment::wait_owner(lab, address)?;
            for component in ["controller", "speaker-node1"] {
                let log = lab.logs(component);
                let refused = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
                ensure!(refused.is_none(), "a request of {component} was refused: {refused:?}");
            }
            Ok(())
        })
    });
}

/// Checks every case of [`CASES`] with the API server, as `kubectl auth can-i` does.
async fn check_all(client: &Client) -> Result<()> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut wrong = Vec::new();
    for case in CASES {
        let &(account, verb, group, resource, name, namespace, expected) = case;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "metadata": {},
            "spec": {
                "user": format!("system:serviceaccount:{FERROLB}:{account}"),
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{FERROLB}"), "system:authenticated"],
                "resourceAttributes": {
                    "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name, "namespace": namespace,
                },
            },
        });
        let review =
            reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
        let allowed = review.status.context("the review has no status")?.allowed;
        if allowed != expected {
            wrong.push(format!("{case:?}: the API server replies {allowed}"));
        }
    }
    ensure!(wrong.is_empty(), "these permissions are wrong:\n{}", wrong.join("\n"));
    Ok(())
}

/// Checks that a component uses the kubeconfig of its own ServiceAccount, and that this account may
/// not list Secrets.
fn check_account(lab: &Lab, component: &str, account: &str) -> Result<()> {
    let environment = fs::read_to_string(format!("/proc/{}/environ", lab.pid(component)?))?;
    let kubeconfig = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("KUBECONFIG="))
        .context("the component has no KUBECONFIG")?;
    ensure!(
        kubeconfig.ends_with(&format!("/{component}.kubeconfig")),
        "KUBECONFIG is {kubeconfig}"
    );
    let user = lab.api_as(component, async |client| {
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let review = reviews
            .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {}}))?)
            .await?;
        let secrets = Api::<Secret>::namespaced(client, FERROLB).list(&ListParams::default()).await;
        match secrets {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => return Err(anyhow!("the account can list Secrets: {other:?}")),
        }
        Ok(review.status.and_then(|status| status.user_info).and_then(|user| user.username))
    })?;
    ensure!(
        user.as_deref() == Some(&format!("system:serviceaccount:{FERROLB}:{account}")),
        "the account is {user:?}"
    );
    Ok(())
}

/// Creates the SpeakerStatus of node8 by a dry run, as speakers whose tokens name node8, node9, and
/// no node.
async fn check_own_status_only(client: &Client) -> Result<()> {
    let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "SpeakerStatus", "metadata": {"name": "node8"}});
    let statuses = kube::core::Request::new(format!(
        "/apis/ferrolb.io/v1beta1/namespaces/{FERROLB}/speakerstatuses"
    ));
    for (node, refusal) in [
        (Some("node8"), None),
        (
            Some("node9"),
            Some("the speaker of the node node9 may write the SpeakerStatus node9 only"),
        ),
        (None, Some("the token of the speaker names no node")),
    ] {
        wait::until_async("the API server enforces the policy", POLICY_MAX, async || {
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let mut request = statuses.create(&dry_run, serde_json::to_vec(&object)?)?;
            let headers = request.headers_mut();
            headers.insert(
                "impersonate-user",
                format!("system:serviceaccount:{FERROLB}:speaker").parse()?,
            );
            if let Some(node) = node {
                headers.insert(
                    "impersonate-extra-authentication.kubernetes.io%2fnode-name",
                    node.parse()?,
                );
            }
            match client.request::<Value>(request).await {
                Ok(_) => ensure!(
                    refusal.is_none(),
                    "the speaker of {node:?} may write the SpeakerStatus of node8"
                ),
                Err(kube::Error::Api(status)) => ensure!(
                    refusal.is_some_and(|refusal| status.message.contains(refusal)),
                    "the API server refuses the speaker of {node:?}: {status:?}"
                ),
                Err(error) => return Err(error.into()),
            }
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}
