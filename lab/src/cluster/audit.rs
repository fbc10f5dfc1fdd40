//! Audit log of the API server: the policy that selects the requests of FerroLB's accounts, and the
//! parser of the log.

use super::ferrolb::NAMESPACE;
use super::kubeadm::machine;
use crate::permissions::ApiRequest;
use crate::state::{LabFacts, LabState};
use crate::topology::{Host, node_name};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// File names of the audit policy and of the log.
pub const POLICY: &str = "audit-policy.json";
const LOG_FILE: &str = "audit.log";
/// Directory of the audit policy and of the log on a machine of a kubeadm cluster.
pub const FOLDER: &str = "/var/log/audit";
pub const MACHINE_POLICY: &str = "/var/log/audit/audit-policy.json";
/// ServiceAccounts of FerroLB.
const ACCOUNTS: [&str; 2] = ["controller", "speaker"];
/// Status code of a created object (RFC 9110 section 15.3.2).
const CREATED: u64 = 201;

/// Returns the audit policy. With `audit`, it logs the metadata of requests of FerroLB's accounts,
/// without the bodies of request and response; otherwise it logs nothing.
pub fn policy(audit: bool) -> String {
    let level = if audit { "Metadata" } else { "None" };
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [{"level": level, "users": ACCOUNTS.map(user)}, {"level": "None"}],
    })
    .to_string()
}

/// Returns the API server's flags for the audit log. `file` returns a file's path as the API server
/// sees it.
pub fn flags(file: impl Fn(&str) -> String) -> [(&'static str, String); 2] {
    [("audit-policy-file", file(POLICY)), ("audit-log-path", file(LOG_FILE))]
}

/// Returns the path of a lab's audit log.
pub fn log(state: &LabState, facts: &LabFacts) -> PathBuf {
    if !facts.kubeadm {
        return state.file(LOG_FILE);
    }
    machine::inside_file(state, &node_name(1), on_machine(LOG_FILE).trim_start_matches('/'))
}

/// Returns the path of an audit file on a machine of a kubeadm cluster.
pub fn on_machine(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// Returns the user name of an account of FerroLB.
pub fn user(account: &str) -> String {
    format!("system:serviceaccount:{NAMESPACE}:{account}")
}

/// Parses the log and returns the distinct requests. An unfinished line, from an API server that
/// was killed, is ignored.
pub fn requests(log: &str) -> BTreeSet<ApiRequest> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.flat_map(|event| parse_event(&event)).collect()
}

/// Parses an event (audit.k8s.io/v1) into requests. An apply that creates the object needs the
/// permissions `patch` and `create`, so it results in two requests.
fn parse_event(event: &Value) -> Vec<ApiRequest> {
    let account = ACCOUNTS.into_iter().find(|account| event["user"]["username"] == user(account));
    // Test scenarios also send requests as these accounts, from the client's host.
    let by_scenario = event["sourceIPs"].as_array().into_iter().flatten().any(is_client);
    let decision = event["annotations"]["authorization.k8s.io/decision"].as_str();
    let (Some(account), Some(decision), false) = (account, decision, by_scenario) else {
        return Vec::new();
    };
    let object = &event["objectRef"];
    let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    if !object.is_object() {
        return Vec::new();
    }
    let subresource = field("subresource");
    let slash = if subresource.is_empty() { "" } else { "/" };
    let request = ApiRequest {
        account: account.to_owned(),
        verb: event["verb"].as_str().unwrap_or_default().to_owned(),
        group: field("apiGroup"),
        resource: format!("{}{slash}{subresource}", field("resource")),
        namespace: field("namespace"),
        name: field("name"),
        allowed: decision == "allow",
    };
    let created = request.verb == "patch" && event["responseStatus"]["code"] == CREATED;
    let create = created.then(|| ApiRequest { verb: "create".to_owned(), ..request.clone() });
    [Some(request), create].into_iter().flatten().collect()
}

fn is_client(address: &Value) -> bool {
    let addresses = Host::client().addresses();
    address
        .as_str()
        .and_then(|address| address.parse().ok())
        .is_some_and(|address| addresses.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an event of a speaker on node1 as Kubernetes 1.36 writes it, without the unused
    /// fields.
    fn event() -> Value {
        json!({
            "stage": "ResponseComplete", "verb": "patch", "sourceIPs": ["172.30.0.11"],
            "user": {"username": "system:serviceaccount:ferrolb-system:speaker"},
            "objectRef": {
                "resource": "speakerstatuses", "subresource": "status", "namespace": "ferrolb-system", "name": "node1",
                "apiGroup": "ferrolb.io", "apiVersion": "v1beta1",
            },
            "responseStatus": {"code": 200},
            "annotations": {"authorization.k8s.io/decision": "allow"},
        })
    }

    fn verbs(event: &Value) -> Vec<String> {
        parse_event(event).into_iter().map(|request| request.verb).collect()
    }

    #[test]
    fn an_event_is_parsed_as_a_request() {
        let expect = ApiRequest {
            account: "speaker".to_owned(),
            verb: "patch".to_owned(),
            group: "ferrolb.io".to_owned(),
            resource: "speakerstatuses/status".to_owned(),
            namespace: "ferrolb-system".to_owned(),
            name: "node1".to_owned(),
            allowed: true,
        };
        let log = format!("{0}\n{0}\n{{\"kind\":\"Ev{0}\n", event());
        assert_eq!(requests(&log), BTreeSet::from([expect]));
    }

    #[test]
    fn an_apply_that_creates_an_object_is_also_a_create() {
        let mut created = event();
        created["responseStatus"]["code"] = json!(201);
        assert_eq!(verbs(&created), ["patch", "create"]);
    }

    #[test]
    fn events_of_other_senders_or_without_object_are_ignored() {
        for (path, value) in [
            ("/user/username", json!("system:serviceaccount:default:speaker")),
            ("/sourceIPs/0", json!("172.30.0.100")),
            ("/sourceIPs/0", json!("fd30::100")),
            ("/objectRef", Value::Null),
            ("/annotations", Value::Null),
        ] {
            let mut event = event();
            *event.pointer_mut(path).unwrap() = value;
            assert_eq!(verbs(&event), [""; 0], "{path}");
        }
    }

    #[test]
    fn a_forbidden_request_is_not_allowed() {
        let mut forbidden = event();
        forbidden["annotations"]["authorization.k8s.io/decision"] = json!("forbid");
        assert!(!parse_event(&forbidden)[0].allowed);
    }
}
