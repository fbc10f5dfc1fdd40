//! The condition `Announced` on a real cluster: where an address is announced, or why it is not,
//! while the cluster changes.

use crate::pools::{self, object};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::services::{self, ANNOUNCED, WEB, wait_announced};
use crate::statuses::restart;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::CustomResourceKind;
use ferrolb_proto::facts::IP_MODE_ANNOTATION;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Maximum time until the condition names the new owner of an address. The new owner takes about
/// 200 ms and reports after a second; three times as much for a busy machine.
const MOVE_REPORTED_MAX: Duration = Duration::from_secs(5);
/// Time after a restart in which nothing may be written: longer than a failure lasts before it is
/// reported.
const QUIET: Duration = Duration::from_secs(6);
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[test]
fn a_service_reports_where_it_is_announced_or_why_it_is_not() {
    run_scenario(&Options::named("announced"), |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[pools::pool("lan", &["172.30.0.200-172.30.0.209"])])?;
        lab.pod("web", "node1", &WEB)?;
        let address = services::serve(lab, "web")?;
        step("without an advertisement it says so, and names the pool", || {
            let told = wait_announced(lab, "web", "NoAdvertisement", "selects IPAddressPool lan")?;
            ensure!(told.status == "False", "{told:#?}");
            Ok(())
        })?;
        step("it names the node that answers, once one does", || {
            lab.apply_objects(&[pools::advertisement()])?;
            names_its_owner(lab, address)
        })?;
        step("a restart of the controller writes nothing", || {
            let version = services::version(&services::get(lab, "web")?)?;
            restart(lab)?;
            wait::during(QUIET, || {
                let now = services::get(lab, "web")?;
                ensure!(services::version(&now)? == version, "it was written: {:#?}", now.status);
                Ok(())
            })
        })?;
        step("without endpoints it says so, and is well again with one", || {
            lab.set_ready("web", false)?;
            wait_announced(lab, "web", "NoEndpoints", "no endpoint")?;
            lab.set_ready("web", true)?;
            names_its_owner(lab, address)
        })?;
        step("where no node may, it counts the causes", || no_candidate(lab))?;
        step("put right, it names its owner again", || {
            lab.apply_objects(&[object(
                CustomResourceKind::L2Advertisement,
                "all",
                json!({"ipAddressPools": ["lan"]}),
            )])?;
            services::patch(lab, "web", &json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
            lab.kubectl(&["label", "node", "node3", &format!("{EXCLUDE}-")])?;
            names_its_owner(lab, address)
        })?;
        step("with ipMode Proxy it has no data path, and with the annotation gone it has", || {
            set_mode(lab, json!("Proxy"))?;
            wait_announced(lab, "web", "NotAnnouncedIPModeProxy", "Proxy,announce")?;
            set_mode(lab, Value::Null)?;
            names_its_owner(lab, address)
        })?;
        step("the events tell of failures and cures, and of nothing twice in a row", || {
            events(lab)
        })?;
        step("when the owner loses power, the condition soon names the new one", || {
            power_cut(lab, address)
        })
    });
}

/// Node 1 has the pod and is not selected, node 2 is selected and has no pod, node 3 is labelled.
fn no_candidate(lab: &Lab) -> Result<()> {
    let values =
        json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2", "node3"]});
    let spec = json!({"nodeSelectors": [{"matchExpressions": [values]}]});
    lab.apply_objects(&[object(CustomResourceKind::L2Advertisement, "all", spec)])?;
    services::patch(lab, "web", &json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
    lab.kubectl(&["label", "node", "node3", &format!("{EXCLUDE}=")])?;
    let counted = "of 3 nodes, 1 labeled exclude-from-external-load-balancers, 1 not selected by an advertisement, \
                   1 without eligible endpoint (externalTrafficPolicy Local)";
    wait_announced(lab, "web", "NoCandidateNode", counted).map(drop)
}

fn set_mode(lab: &Lab, mode: Value) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {IP_MODE_ANNOTATION: mode}}}))
}

/// Checks that the condition names the node that replies on the segment.
fn names_its_owner(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    let told = wait_announced(lab, "web", "Announced", &format!("{address} from {owner} (eth0)"))?;
    ensure!(told.status == "True", "{told:#?}");
    Ok(())
}

fn events(lab: &Lab) -> Result<()> {
    let mut events = services::events_of(lab, "web", "Announce")?;
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    let told: Vec<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
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
    ensure!(told == expect, "{told:?}");
    Ok(())
}

fn power_cut(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let before = segment::owner(lab, address)?;
    let start = wait::now();
    lab.power_off(&before)?;
    let now = wait::until("another owner in the condition", pools::STATE_MAX, || {
        let service = services::get(lab, "web")?;
        let told = services::condition(&service, ANNOUNCED)
            .map(|is| (is.status.clone(), is.message.clone()));
        let (status, message) = told.unwrap_or_default();
        ensure!(status == "True", "the message is {message:?}");
        Ok((!message.contains(&before)).then_some(message))
    })?;
    let took = start.elapsed();
    print_measured(&format!(
        "owner powered off: the condition names the new one after {} ms",
        took.as_millis()
    ));
    let owner = segment::owner(lab, address)?;
    ensure!(now == format!("{address} from {owner} (eth0)"), "{now}");
    ensure!(took < MOVE_REPORTED_MAX, "it took {took:?}");
    Ok(())
}
