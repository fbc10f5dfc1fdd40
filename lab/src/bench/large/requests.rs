//! Requests of the controller and of one speaker to the API server in a large cluster at rest, and
//! their open watches.
//!
//! # Method
//!
//! - The API server's audit log has the account and the address of the client of each request. For
//!   a watch, it has one line when the watch starts and one when it ends.
//! - Nothing changes for [`REST`]. A request counts when it ends, and a watch when it starts. Each
//!   watch ends after 290 s, and the component starts the next one.
//! - A watch is open at the end of the rest if the log has its start only.

use crate::Lab;
use crate::bench::report::Findings;
use crate::bench::targets::{self, MeasureSpec};
use crate::cluster::audit;
use crate::topology::CONTROL_PLANE;
use crate::wait;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Time without changes in which requests count. Each watch starts once in this time.
const REST: Duration = Duration::from_secs(290);
const WATCH: &str = "watch";
/// Stage of the event that reports the start of a watch.
const STARTED: &str = "ResponseStarted";

/// Event of the audit log (audit.k8s.io/v1), with the used fields only.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditEvent {
    #[serde(rename = "auditID")]
    id: String,
    stage: String,
    verb: String,
    user: AuditUser,
    #[serde(rename = "sourceIPs", default)]
    sources: Vec<String>,
}

#[derive(Deserialize)]
struct AuditUser {
    username: String,
}

/// A client of the API server: its user name and its address.
struct ApiClient {
    user: String,
    address: String,
}

/// Measures the requests and watches of the controller and of the first node's speaker.
pub(super) fn measure(lab: &Lab, findings: &mut Findings) -> Result<()> {
    let file = audit::log(lab.state(), &lab.state().facts()?);
    let read =
        || fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()));
    let (start, earlier) = (wait::now(), read()?.len());
    wait::during(REST, || Ok(()))?;
    let (minutes, log) = (start.elapsed().as_secs_f64() / 60.0, read()?);
    let rest = log.get(earlier..).context("the API server has rotated its audit log")?;
    let node = lab.nodes().into_iter().next().context("the lab has no node")?;
    let components: [(_, _, &[MeasureSpec; 2]); 2] = [
        ("controller", CONTROL_PLANE, &targets::CLUSTER_CONTROLLER_REQUESTS),
        ("speaker", &node, &targets::CLUSTER_SPEAKER_REQUESTS),
    ];
    for (account, host, [requests, watches]) in components {
        let client =
            ApiClient { user: audit::user(account), address: lab.address(host)?.to_string() };
        findings.add(requests, count_requests(rest, &client) as f64 / minutes);
        findings.add(watches, count_open_watches(&log, &client) as f64);
    }
    Ok(())
}

/// Returns the events of a client. An unfinished line is ignored.
fn events<'a>(log: &'a str, client: &'a ApiClient) -> impl Iterator<Item = AuditEvent> + 'a {
    // Most lines are of other clients. The search is faster than the parser.
    let lines = log.lines().filter(|line| line.contains(&client.address));
    let events = lines.filter_map(|line| serde_json::from_str::<AuditEvent>(line).ok());
    events.filter(|event| {
        event.user.username == client.user && event.sources.first() == Some(&client.address)
    })
}

fn count_requests(log: &str, client: &ApiClient) -> usize {
    let counts = |event: &AuditEvent| (event.stage == STARTED) == (event.verb == WATCH);
    events(log, client).filter(counts).count()
}

fn count_open_watches(log: &str, client: &ApiClient) -> usize {
    let mut open = BTreeSet::new();
    for event in events(log, client).filter(|event| event.verb == WATCH) {
        if event.stage == STARTED {
            open.insert(event.id);
        } else {
            open.remove(&event.id);
        }
    }
    open.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn watches_count_at_their_start_and_requests_at_their_end() {
        let client = ApiClient { user: audit::user("speaker"), address: "172.30.0.11".to_owned() };
        let event = |id: &str, verb: &str, stage: &str, address: &str| {
            let user = json!({"username": client.user});
            json!({"auditID": id, "verb": verb, "stage": stage, "user": user, "sourceIPs": [address]})
                .to_string()
        };
        let log = [
            event("a", "watch", "ResponseStarted", "172.30.0.11"),
            event("b", "watch", "ResponseStarted", "172.30.0.11"),
            event("c", "watch", "ResponseStarted", "172.30.0.12"),
            event("d", "patch", "ResponseComplete", "172.30.0.11"),
            event("e", "get", "ResponseComplete", "172.30.0.12"),
            event("a", "watch", "ResponseComplete", "172.30.0.11"),
            event("f", "get", "ResponseComplete", "172.30.0.11")[..30].to_owned(),
        ]
        .join("\n");
        assert_eq!(count_requests(&log, &client), 3);
        assert_eq!(count_open_watches(&log, &client), 1);
    }
}
