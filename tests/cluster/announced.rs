//! The condition `Announced` on a real cluster: where an address is announced, or why it is not,
//! while the cluster changes.

use crate::pools::{self, object};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::services::{self, ANNOUNCED, WEB, wait_announced};
use crate::statuses::restart;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::CustomResourceKind;
use ferrolb_proto::facts::IP_MODE_ANNOTATION;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Maximum time until the condition names the new owner of an address. The new owner claims the
/// address after about 200 ms and reports it a second later. On a busy machine, both take up to
/// three times as long.
const MOVE_REPORTED_MAX: Duration = Duration::from_secs(5);
/// Time after a restart in which the controller may write nothing. The time is longer than the
/// delay after which the controller reports a failure.
const QUIET: Duration = Duration::from_secs(6);
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[test]
fn a_service_reports_where_it_is_announced_or_why_it_is_not() {
    run_scenario(&Options::named("announced"), |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[pools::pool("lan", &["172.30.0.200-172.30.0.209"])])?;
        lab.pod("web", "node1", &WEB)?;
        let address = services::serve(lab, "web")?;
        step("without an advertisement, the condition is False and names the pool", || {
            let condition =
                wait_announced(lab, "web", "NoAdvertisement", "selects IPAddressPool lan")?;
            ensure!(condition.status == "False", "{condition:#?}");
            Ok(())
        })?;
        step("with an advertisement, the condition names the owner", || {
            lab.apply_objects(&[pools::advertisement()])?;
            condition_names_owner(lab, address)
        })?;
        step("a restart of the controller writes nothing", || {
            let version = services::version(&services::get(lab, "web")?)?;
            restart(lab)?;
            wait::during(QUIET, || {
                let now = services::get(lab, "web")?;
                ensure!(
                    services::version(&now)? == version,
                    "the controller wrote the Service: {:#?}",
                    now.status
                );
                Ok(())
            })
        })?;
        step("without a ready endpoint the condition is NoEndpoints, until one is ready", || {
            lab.set_ready("web", false)?;
            wait_announced(lab, "web", "NoEndpoints", "no endpoint")?;
            lab.set_ready("web", true)?;
            condition_names_owner(lab, address)
        })?;
        step("if no node is a candidate, the condition counts the causes", || no_candidate(lab))?;
        step("after the corrections, the condition names the owner again", || {
            lab.apply_objects(&[object(
                CustomResourceKind::L2Advertisement,
                "all",
                json!({"ipAddressPools": ["lan"]}),
            )])?;
            services::patch(lab, "web", &json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
            lab.kubectl(&["label", "node", "node3", &format!("{EXCLUDE_LABEL}-")])?;
            condition_names_owner(lab, address)
        })?;
        step(
            "with ipMode Proxy the address is not announced, until the annotation is removed",
            || {
                set_mode(lab, json!("Proxy"))?;
                wait_announced(lab, "web", "NotAnnouncedIPModeProxy", "Proxy,announce")?;
                set_mode(lab, Value::Null)?;
                condition_names_owner(lab, address)
            },
        )?;
        step("there is one Event for each change of the reason", || check_events(lab))?;
        step("the owner loses power, and the condition names the new owner", || {
            power_cut(lab, address)
        })
    });
}

/// Leaves no candidate for the Service `web`: node 1 has the pod and is not selected, node 2 is
/// selected and has no pod, and node 3 has the exclude label.
pub(crate) fn leave_no_candidate(lab: &Lab) -> Result<()> {
    let values =
        json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2", "node3"]});
    let spec = json!({"nodeSelectors": [{"matchExpressions": [values]}]});
    lab.apply_objects(&[object(CustomResourceKind::L2Advertisement, "all", spec)])?;
    services::patch(lab, "web", &json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
    lab.kubectl(&["label", "node", "node3", &format!("{EXCLUDE_LABEL}=")]).map(drop)
}

/// Checks the message when no node may announce.
fn no_candidate(lab: &Lab) -> Result<()> {
    leave_no_candidate(lab)?;
    let causes = "of 3 nodes, 1 labeled exclude-from-external-load-balancers, 1 not selected by an advertisement, \
                   1 without eligible endpoint (externalTrafficPolicy Local)";
    wait_announced(lab, "web", "NoCandidateNode", causes).map(drop)
}

fn set_mode(lab: &Lab, mode: Value) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {IP_MODE_ANNOTATION: mode}}}))
}

/// Checks that the condition names the node that replies on the segment.
fn condition_names_owner(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    let message = format!("{address} from {owner} (eth0)");
    let condition = wait_announced(lab, "web", "Announced", &message)?;
    ensure!(condition.status == "True", "{condition:#?}");
    Ok(())
}

/// Checks that there is exactly one Event for each change of the condition's reason.
fn check_events(lab: &Lab) -> Result<()> {
    let mut events = services::events_of(lab, "web", "Announce")?;
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    let reasons: Vec<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
    let expect = [
        "NoAdvertisement",
        "Announced",
        "NoEndpoints",
        "Announced",
        "NoCandidateNode",
        "Announced",
        "NotAnnouncedIPModeProxy",
        "Announced",
    ];
    ensure!(reasons == expect, "the reasons of the Events are {reasons:?}");
    Ok(())
}

fn power_cut(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let before = segment::owner(lab, address)?;
    let start = WorkClock::start();
    lab.power_off(&before)?;
    let message = wait::until("the condition names another owner", pools::STATE_MAX, || {
        let service = services::get(lab, "web")?;
        let condition = services::condition(&service, ANNOUNCED)
            .map(|condition| (condition.status.clone(), condition.message.clone()));
        let (status, message) = condition.unwrap_or_default();
        ensure!(status == "True", "the message is {message:?}");
        Ok((!message.contains(&before)).then_some(message))
    })?;
    let took = start.within(MOVE_REPORTED_MAX).context("the new owner is reported")?;
    print_measured(&format!(
        "owner powered off: the condition names the new owner after {} ms",
        took.as_millis()
    ));
    let owner = segment::owner(lab, address)?;
    ensure!(message == format!("{address} from {owner} (eth0)"), "the message is {message:?}");
    Ok(())
}
