//! Least privilege: the programs run as their own ServiceAccounts, which may do what the programs do, and nothing else.

use crate::client_wire;
use crate::services;
use crate::stage::{one_node, play, step};
use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_tests::cluster::apply;
use ferrolb_tests::{Lab, setup, wait};
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

/// How long an API server may take to apply a new admission policy.
const POLICY_MAX: Duration = Duration::from_secs(30);

/// Account, verb, group, resource (with its subresource), name (empty: any), namespace, and whether it may.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, bool);

const CASES: &[Case] = &[
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

/// Verb, group and resource of what a speaker may do beside that where there is BGP: all in our namespace.
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

/// The table of BGP is what is granted for it, no more and no less.
#[test]
fn what_is_granted_for_bgp_is_in_its_table() {
    let rbac = fs::read_to_string(setup::repository().join("deploy/overlays/bgp/rbac.yaml")).unwrap();
    let objects = apply::objects(&rbac).unwrap();
    let roles: Vec<_> = objects.iter().filter(|object| object["rules"].is_array()).collect();
    let kinds: Vec<_> =
        roles.iter().map(|role| (role["kind"].as_str(), role["metadata"]["namespace"].as_str())).collect();
    assert_eq!(kinds, [(Some("Role"), Some(OURS))]);
    let granted = roles.iter().flat_map(|role| role["rules"].as_array().into_iter().flatten()).flat_map(rights);
    let granted: BTreeSet<_> = granted.collect();
    assert_eq!(granted, WITH_BGP.iter().copied().collect::<BTreeSet<_>>());
}

/// The table holds every right, so none can be granted that nobody has thought of.
#[test]
fn no_right_is_granted_that_is_not_in_the_table() {
    let rbac = fs::read_to_string(setup::repository().join("deploy/base/rbac.yaml")).unwrap();
    let held = |account: &str, [verb, group, resource]: [&str; 3]| {
        CASES.iter().any(|case| case.6 && (case.0, case.1, case.2, case.3) == (account, verb, group, resource))
    };
    let (mut granted, mut missing) = (0, Vec::new());
    for role in apply::objects(&rbac).unwrap() {
        let account = role["metadata"]["name"].as_str().unwrap().trim_start_matches("ferrolb:").to_owned();
        for rule in role["rules"].as_array().into_iter().flatten() {
            for right in rights(rule) {
                granted += 1;
                if !held(&account, right) {
                    missing.push(format!("{account}: {right:?}"));
                }
            }
        }
    }
    assert!(granted > 0 && missing.is_empty(), "of {granted} rights these are not in the table: {missing:#?}");
}

/// Verb, group and resource of each right that a rule grants.
fn rights(rule: &Value) -> Vec<[&str; 3]> {
    let words = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let of = |verb| {
        words("apiGroups").flat_map(move |group| words("resources").map(move |resource| [verb, group, resource]))
    };
    words("verbs").flat_map(of).collect()
}

#[test]
fn the_programs_run_as_themselves_and_may_do_only_what_they_do() {
    play(&one_node("privileges"), |lab| {
        lab.start_ferrolb()?;
        step("their accounts may do this and not that", || lab.api(async |client| ask_all(&client).await))?;
        step("a speaker may write the SpeakerStatus of its own node, and no other's", || {
            lab.api(async |client| own_status_only(&client).await)
        })?;
        for (program, account) in [("controller", "controller"), ("speaker-node1", "speaker")] {
            step(&format!("{program} runs as its own account, which the API server holds to it"), || {
                runs_as(lab, program, account)
            })?;
        }
        step("which is enough to serve", || {
            services::furnish(lab, "node1")?;
            let address = services::serve(lab, "web")?;
            client_wire::wait_owner(lab, address)?;
            for program in ["controller", "speaker-node1"] {
                let log = lab.logs(program);
                let refused = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
                ensure!(refused.is_none(), "{program} was refused something: {refused:?}");
            }
            Ok(())
        })
    });
}

/// Asks the API server about every case, as `kubectl auth can-i` does.
async fn ask_all(client: &Client) -> Result<()> {
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
        let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
        let allowed = answer.status.context("a review has an answer")?.allowed;
        if allowed != may {
            wrong.push(format!("{case:?} is {allowed}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The program's settings are those of its account, and with them it is that account, and no administrator.
fn runs_as(lab: &Lab, program: &str, account: &str) -> Result<()> {
    let environment = fs::read_to_string(format!("/proc/{}/environ", lab.pid(program)?))?;
    let settings =
        environment.split('\0').find_map(|setting| setting.strip_prefix("KUBECONFIG=")).context("KUBECONFIG")?;
    ensure!(settings.ends_with(&format!("/{account}.kubeconfig")), "its settings are {settings}");
    let user = lab.api_as(account, async |client| {
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let answer = reviews.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {}}))?).await?;
        let secrets = Api::<Secret>::namespaced(client, OURS).list(&ListParams::default()).await;
        match secrets {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => return Err(anyhow!("it lists Secrets: {other:?}")),
        }
        Ok(answer.status.and_then(|status| status.user_info).and_then(|user| user.username))
    })?;
    ensure!(user.as_deref() == Some(&format!("system:serviceaccount:{OURS}:{account}")), "it is {user:?}");
    Ok(())
}

/// Creates the SpeakerStatus of node8 by a dry run, as speakers whose tokens name this node, another
/// one, and none, as tokens did before Kubernetes 1.32.
async fn own_status_only(client: &Client) -> Result<()> {
    let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "SpeakerStatus", "metadata": {"name": "node8"}});
    let statuses = kube::core::Request::new(format!("/apis/ferrolb.io/v1beta1/namespaces/{OURS}/speakerstatuses"));
    for (node, may) in [(Some("node8"), true), (None, true), (Some("node9"), false)] {
        wait::until_async("the API server applies the policy", POLICY_MAX, async || {
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let mut request = statuses.create(&dry_run, serde_json::to_vec(&object)?)?;
            let headers = request.headers_mut();
            headers.insert("impersonate-user", format!("system:serviceaccount:{OURS}:speaker").parse()?);
            if let Some(node) = node {
                headers.insert("impersonate-extra-authentication.kubernetes.io%2fnode-name", node.parse()?);
            }
            match client.request::<Value>(request).await {
                Ok(_) => ensure!(may, "the speaker of {node:?} writes the SpeakerStatus of node8"),
                Err(kube::Error::Api(status)) => {
                    let only = "the speaker of the node node9 may write the SpeakerStatus node9 only";
                    ensure!(!may && status.message.contains(only), "the speaker of {node:?}: {status:?}");
                }
                Err(error) => return Err(error.into()),
            }
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}
