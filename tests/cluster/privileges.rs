//! Least privilege: the components run as their own ServiceAccounts, which have exactly the
//! permissions that the components use.

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

/// FerroLB's namespace, another one, and all of them.
const OURS: &str = "ferrolb-system";
const OTHER: &str = "default";
const ALL: &str = "";

/// Maximum time until an API server enforces a new admission policy.
const POLICY_MAX: Duration = Duration::from_secs(30);

/// Account, verb, group, resource (with its subresource), name (empty: any), namespace, and whether
/// it is allowed.
type PermissionCase =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, bool);

const CASES: &[PermissionCase] = &[
    ("speaker", "list", "", "services", "", ALL, true),
    ("speaker", "watch", "", "services", "", ALL, true),
    ("speaker", "list", "", "nodes", "", ALL, true),
    ("speaker", "watch", "", "nodes", "", ALL, true),
    ("speaker", "list", "discovery.k8s.io", "endpointslices", "", ALL, true),
    ("speaker", "watch", "discovery.k8s.io", "endpointslices", "", ALL, true),
    ("speaker", "list", "ferrolb.io", "ipaddresspools", "", OURS, true),
    ("speaker", "watch", "ferrolb.io", "ipaddresspools", "", OURS, true),
    ("speaker", "list", "ferrolb.io", "l2advertisements", "", OURS, true),
    ("speaker", "watch", "ferrolb.io", "l2advertisements", "", OURS, true),
    ("speaker", "create", "ferrolb.io", "speakerstatuses", "", OURS, true),
    ("speaker", "patch", "ferrolb.io", "speakerstatuses", "node1", OURS, true),
    ("speaker", "patch", "ferrolb.io", "speakerstatuses/status", "node1", OURS, true),
    ("speaker", "list", "ferrolb.io", "speakerstatuses", "", OURS, false),
    ("speaker", "watch", "ferrolb.io", "speakerstatuses", "", OURS, false),
    ("speaker", "get", "", "secrets", "ferrolb-hello", OURS, false),
    ("speaker", "list", "", "secrets", "ferrolb-hello", OURS, true),
    ("speaker", "watch", "", "secrets", "ferrolb-hello", OURS, true),
    ("speaker", "list", "", "secrets", "", ALL, false),
    ("speaker", "list", "", "secrets", "", OURS, false),
    ("speaker", "get", "", "secrets", "other", OURS, false),
    ("speaker", "get", "", "secrets", "ferrolb-hello", OTHER, false),
    ("speaker", "update", "", "secrets", "ferrolb-hello", OURS, false),
    ("speaker", "create", "", "secrets", "", OURS, false),
    ("speaker", "patch", "", "services", "", OTHER, false),
    ("speaker", "update", "", "services", "", OTHER, false),
    ("speaker", "patch", "", "services/status", "", OTHER, false),
    ("speaker", "delete", "", "services", "", OTHER, false),
    ("speaker", "update", "", "nodes", "node1", ALL, false),
    ("speaker", "patch", "", "nodes", "node1", ALL, false),
    ("speaker", "patch", "", "nodes/status", "node1", ALL, false),
    ("speaker", "create", "", "pods", "", OURS, false),
    ("speaker", "list", "", "pods", "", ALL, false),
    ("speaker", "create", "", "pods/exec", "", OURS, false),
    ("speaker", "patch", "ferrolb.io", "ipaddresspools", "", OURS, false),
    ("speaker", "patch", "ferrolb.io", "ipaddresspools/status", "", OURS, false),
    ("speaker", "list", "", "namespaces", "", ALL, false),
    ("speaker", "list", "ferrolb.io", "communities", "", OURS, false),
    ("speaker", "patch", "ferrolb.io", "communities/status", "", OURS, false),
    ("speaker", "update", "coordination.k8s.io", "leases", "", OURS, false),
    ("speaker", "create", "", "serviceaccounts/token", "controller", OURS, false),
    ("speaker", "bind", "rbac.authorization.k8s.io", "clusterroles", "", ALL, false),
    ("controller", "list", "", "services", "", ALL, true),
    ("controller", "get", "", "services", "", OTHER, true),
    ("controller", "watch", "", "services", "", ALL, true),
    ("controller", "patch", "", "services/status", "", OTHER, true),
    ("controller", "list", "", "nodes", "", ALL, true),
    ("controller", "watch", "", "nodes", "", ALL, true),
    ("controller", "list", "", "namespaces", "", ALL, true),
    ("controller", "watch", "", "namespaces", "", ALL, true),
    ("controller", "list", "ferrolb.io", "ipaddresspools", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "ipaddresspools", "", OURS, true),
    ("controller", "list", "ferrolb.io", "l2advertisements", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "l2advertisements", "", OURS, true),
    ("controller", "list", "ferrolb.io", "communities", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "communities", "", OURS, true),
    ("controller", "list", "ferrolb.io", "bgppeers", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "bgppeers", "", OURS, true),
    ("controller", "list", "ferrolb.io", "bgpadvertisements", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "bgpadvertisements", "", OURS, true),
    ("controller", "list", "ferrolb.io", "bfdprofiles", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "bfdprofiles", "", OURS, true),
    ("controller", "list", "ferrolb.io", "speakerstatuses", "", OURS, true),
    ("controller", "watch", "ferrolb.io", "speakerstatuses", "", OURS, true),
    ("controller", "list", "discovery.k8s.io", "endpointslices", "", ALL, true),
    ("controller", "watch", "discovery.k8s.io", "endpointslices", "", ALL, true),
    ("controller", "patch", "ferrolb.io", "ipaddresspools/status", "", OURS, true),
    ("controller", "patch", "ferrolb.io", "l2advertisements/status", "", OURS, true),
    ("controller", "patch", "ferrolb.io", "communities/status", "", OURS, true),
    ("controller", "patch", "ferrolb.io", "bgppeers/status", "", OURS, true),
    ("controller", "patch", "ferrolb.io", "bgpadvertisements/status", "", OURS, true),
    ("controller", "patch", "ferrolb.io", "bfdprofiles/status", "", OURS, true),
    ("controller", "patch", "ferrolb.io", "bgppeers", "", OURS, false),
    ("controller", "get", "coordination.k8s.io", "leases", "ferrolb-controller", OURS, true),
    ("controller", "create", "coordination.k8s.io", "leases", "", OURS, true),
    ("controller", "update", "coordination.k8s.io", "leases", "ferrolb-controller", OURS, true),
    ("controller", "create", "events.k8s.io", "events", "", OTHER, true),
    ("controller", "create", "", "secrets", "", OURS, true),
    ("controller", "get", "", "secrets", "ferrolb-hello", OURS, true),
    ("controller", "list", "", "secrets", "", ALL, false),
    ("controller", "list", "", "secrets", "", OURS, false),
    ("controller", "get", "", "secrets", "other", OURS, false),
    ("controller", "create", "", "secrets", "", OTHER, false),
    ("controller", "delete", "", "services", "", OTHER, false),
    ("controller", "create", "", "services", "", OTHER, false),
    ("controller", "patch", "", "services", "", OTHER, false),
    ("controller", "update", "", "services/status", "", OTHER, false),
    ("controller", "get", "", "namespaces", OTHER, ALL, false),
    ("controller", "patch", "", "namespaces", OTHER, ALL, false),
    ("controller", "delete", "", "namespaces", OTHER, ALL, false),
    ("controller", "list", "ferrolb.io", "communities", "", OTHER, false),
    ("controller", "patch", "ferrolb.io", "communities", "", OURS, false),
    ("controller", "update", "ferrolb.io", "communities/status", "", OURS, false),
    ("controller", "patch", "ferrolb.io", "l2advertisements", "", OURS, false),
    ("controller", "list", "events.k8s.io", "events", "", OTHER, false),
    ("controller", "update", "", "nodes", "node1", ALL, false),
    ("controller", "patch", "", "nodes", "node1", ALL, false),
    ("controller", "list", "", "pods", "", ALL, false),
    ("controller", "create", "", "pods", "", OURS, false),
    ("controller", "list", "", "configmaps", "", ALL, false),
    ("controller", "update", "coordination.k8s.io", "leases", "", OTHER, false),
    ("controller", "list", "ferrolb.io", "speakerstatuses", "", OTHER, false),
    ("controller", "create", "ferrolb.io", "speakerstatuses", "", OURS, false),
    ("controller", "patch", "ferrolb.io", "speakerstatuses", "node1", OURS, false),
    ("controller", "update", "discovery.k8s.io", "endpointslices", "", OTHER, false),
    ("controller", "patch", "ferrolb.io", "speakerstatuses/status", "node1", OURS, false),
    ("controller", "create", "ferrolb.io", "ipaddresspools", "", OURS, false),
    ("controller", "delete", "ferrolb.io", "ipaddresspools", "", OURS, false),
    ("controller", "create", "", "serviceaccounts/token", "speaker", OURS, false),
    ("controller", "bind", "rbac.authorization.k8s.io", "clusterroles", "", ALL, false),
    ("controller", "impersonate", "", "users", "", ALL, false),
];

/// Verb, group and resource of a speaker's additional permissions with BGP, all in FerroLB's
/// namespace.
const WITH_BGP: &[[&str; 3]] = &[
    ["list", "ferrolb.io", "bgppeers"],
    ["watch", "ferrolb.io", "bgppeers"],
    ["list", "ferrolb.io", "bgpadvertisements"],
    ["watch", "ferrolb.io", "bgpadvertisements"],
    ["list", "ferrolb.io", "communities"],
    ["watch", "ferrolb.io", "communities"],
    ["list", "ferrolb.io", "bfdprofiles"],
    ["watch", "ferrolb.io", "bfdprofiles"],
    ["list", "ferrolb.io", "speakerstatuses"],
    ["watch", "ferrolb.io", "speakerstatuses"],
    ["list", "", "secrets"],
    ["watch", "", "secrets"],
];

/// Checks that the overlay for BGP grants exactly [`WITH_BGP`].
#[test]
fn permissions_for_bgp_are_exactly_those_of_its_table() {
    let rbac =
        fs::read_to_string(setup::repository().join("deploy/overlays/bgp/rbac.yaml")).unwrap();
    let objects = apply::objects(&rbac).unwrap();
    let roles: Vec<_> = objects.iter().filter(|object| object["rules"].is_array()).collect();
    let kinds: Vec<_> = roles
        .iter()
        .map(|role| (role["kind"].as_str(), role["metadata"]["namespace"].as_str()))
        .collect();
    assert_eq!(kinds, [(Some("Role"), Some(OURS))]);
    let granted = roles
        .iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten())
        .flat_map(permissions);
    let granted: BTreeSet<_> = granted.collect();
    assert_eq!(granted, WITH_BGP.iter().copied().collect::<BTreeSet<_>>());
}

/// Checks that every granted permission is in the table, so a new one needs a decision.
#[test]
fn every_granted_permission_is_in_the_table() {
    let rbac = fs::read_to_string(setup::repository().join("deploy/base/rbac.yaml")).unwrap();
    let held = |account: &str, [verb, group, resource]: [&str; 3]| {
        CASES.iter().any(|case| {
            case.6 && (case.0, case.1, case.2, case.3) == (account, verb, group, resource)
        })
    };
    let (mut granted, mut missing) = (0, Vec::new());
    for role in apply::objects(&rbac).unwrap() {
        let account =
            role["metadata"]["name"].as_str().unwrap().trim_start_matches("ferrolb:").to_owned();
        for rule in role["rules"].as_array().into_iter().flatten() {
            for right in permissions(rule) {
                granted += 1;
                if !held(&account, right) {
                    missing.push(format!("{account}: {right:?}"));
                }
            }
        }
    }
    assert!(
        granted > 0 && missing.is_empty(),
        "of {granted} permissions these are not in the table: {missing:#?}"
    );
}

/// Returns verb, group and resource of each permission that a rule grants.
fn permissions(rule: &Value) -> Vec<[&str; 3]> {
    let words =
        |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let of = |verb| {
        words("apiGroups")
            .flat_map(move |group| words("resources").map(move |resource| [verb, group, resource]))
    };
    words("verbs").flat_map(of).collect()
}

#[test]
fn components_run_as_their_own_accounts_with_least_privilege() {
    run_scenario(&one_node("privileges"), |lab| {
        lab.start_ferrolb()?;
        step("their accounts may do this and not that", || {
            lab.api(async |client| check_all(&client).await)
        })?;
        step("a speaker may write the SpeakerStatus of its own node, and no other's", || {
            lab.api(async |client| own_status_only(&client).await)
        })?;
        for (program, account) in [("controller", "controller"), ("speaker-node1", "speaker")] {
            step(
                &format!("{program} runs as its own account, which the API server holds to it"),
                || runs_as(lab, program, account),
            )?;
        }
        step("which is enough to serve", || {
            services::apply_pool_and_pod(lab, "node1")?;
            let address = services::serve(lab, "web")?;
            segment::wait_owner(lab, address)?;
            for program in ["controller", "speaker-node1"] {
                let log = lab.logs(program);
                let refused = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
                ensure!(refused.is_none(), "a request of {program} was refused: {refused:?}");
            }
            Ok(())
        })
    });
}

/// Checks every case with the API server, as `kubectl auth can-i` does.
async fn check_all(client: &Client) -> Result<()> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut wrong = Vec::new();
    for case in CASES {
        let &(account, verb, group, resource, name, namespace, may) = case;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "metadata": {},
            "spec": {
                "user": format!("system:serviceaccount:{OURS}:{account}"),
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{OURS}"), "system:authenticated"],
                "resourceAttributes": {
                    "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name, "namespace": namespace,
                },
            },
        });
        let answer =
            reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
        let allowed = answer.status.context("a review has a status")?.allowed;
        if allowed != may {
            wrong.push(format!("{case:?} is {allowed}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Checks that a component uses the kubeconfig of its own account, and that this account is not an
/// administrator.
fn runs_as(lab: &Lab, program: &str, account: &str) -> Result<()> {
    let environment = fs::read_to_string(format!("/proc/{}/environ", lab.pid(program)?))?;
    let settings = environment
        .split('\0')
        .find_map(|setting| setting.strip_prefix("KUBECONFIG="))
        .context("KUBECONFIG")?;
    ensure!(settings.ends_with(&format!("/{account}.kubeconfig")), "KUBECONFIG is {settings}");
    let user = lab.api_as(account, async |client| {
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let answer = reviews
            .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {}}))?)
            .await?;
        let secrets = Api::<Secret>::namespaced(client, OURS).list(&ListParams::default()).await;
        match secrets {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => return Err(anyhow!("the account can list Secrets: {other:?}")),
        }
        Ok(answer.status.and_then(|status| status.user_info).and_then(|user| user.username))
    })?;
    ensure!(
        user.as_deref() == Some(&format!("system:serviceaccount:{OURS}:{account}")),
        "the account is {user:?}"
    );
    Ok(())
}

/// Creates the SpeakerStatus of node8 by a dry run, as speakers whose tokens name this node,
/// another node, and none. Tokens named no node before Kubernetes 1.32.
async fn own_status_only(client: &Client) -> Result<()> {
    let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "SpeakerStatus", "metadata": {"name": "node8"}});
    let statuses = kube::core::Request::new(format!(
        "/apis/ferrolb.io/v1beta1/namespaces/{OURS}/speakerstatuses"
    ));
    for (node, may) in [(Some("node8"), true), (None, true), (Some("node9"), false)] {
        wait::until_async("the API server applies the policy", POLICY_MAX, async || {
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let mut request = statuses.create(&dry_run, serde_json::to_vec(&object)?)?;
            let headers = request.headers_mut();
            headers.insert(
                "impersonate-user",
                format!("system:serviceaccount:{OURS}:speaker").parse()?,
            );
            if let Some(node) = node {
                headers.insert(
                    "impersonate-extra-authentication.kubernetes.io%2fnode-name",
                    node.parse()?,
                );
            }
            match client.request::<Value>(request).await {
                Ok(_) => ensure!(may, "the speaker of {node:?} writes the SpeakerStatus of node8"),
                Err(kube::Error::Api(status)) => {
                    let only =
                        "the speaker of the node node9 may write the SpeakerStatus node9 only";
                    ensure!(
                        !may && status.message.contains(only),
                        "the speaker of {node:?}: {status:?}"
                    );
                }
                Err(error) => return Err(error.into()),
            }
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}
