//! Rules about the contact between speakers, from their SpeakerStatuses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::api::InterfaceIssueReason;
use ferrolb_proto::facts::{Service, Speaker, SpeakerInterface};

use super::facts::{ClusterFacts, Objects};
use super::finding::{Code, Finding, Object};
use crate::table::first_names;

/// Cause of lost hellos whose sender runs.
const FILTER: &str = "a packet filter or a switch drops frames of EtherType 0x88B5";

/// The issues with one reason: the reporting speakers, a text for each issue, and the command that
/// explains the first one.
struct Issues {
    objects: Vec<Object>,
    texts: Vec<String>,
    see: String,
}

impl Issues {
    const fn new(see: String) -> Self {
        Self { objects: Vec::new(), texts: Vec::new(), see }
    }
}

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let Some(objects) = &facts.objects else { return Vec::new() };
    let speakers = || objects.live_speakers();
    let loss = Loss { by_cilium: facts.cilium.is_some_and(|it| it.host_firewall) };
    let one_way = speakers().filter_map(|it| one_way(it, objects, loss));
    let interfaces = || speakers().flat_map(|it| it.interfaces.iter().map(move |at| (it, at)));
    let filtered = interfaces().filter_map(|(speaker, at)| filtered(speaker, at, loss));
    let alone = interfaces().filter_map(|(speaker, at)| no_contact(speaker, at, objects, loss));
    let late = interfaces().filter_map(|(speaker, at)| late(speaker, at));
    one_way.chain(filtered).chain(alone).chain(issues(objects)).chain(late).collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let speakers = facts.objects.as_ref().map(|it| it.live_speakers().count()).unwrap_or_default();
    if speakers < 2 {
        "no other speaker".to_owned()
    } else {
        "all speakers are in contact".to_owned()
    }
}

fn status_of(speaker: &Speaker) -> Object {
    Object::cluster("SpeakerStatus", &speaker.node)
}

/// The likely cause of lost hellos.
#[derive(Clone, Copy)]
struct Loss {
    /// True if Cilium's host firewall is on, which drops all hellos.
    by_cilium: bool,
}

impl Loss {
    /// Returns the cause, and the next step. `other` is the cause without Cilium's host firewall,
    /// and the interface is where the hellos do not arrive.
    fn text(self, other: &str, node: &str, interface: &str) -> String {
        if self.by_cilium {
            "Cilium's host firewall drops frames of EtherType 0x88B5, as they are not IP: set \
             hostFirewall.enabled to false in Cilium's chart, or accept slower failovers"
                .to_owned()
        } else {
            format!("{other}. On {node}, see `tcpdump -Q in -eni {interface} ether proto 0x88b5`")
        }
    }
}

/// Returns the finding about nodes that a speaker lists as contacts, and that do not list its node.
fn one_way(speaker: &Speaker, objects: &Objects, loss: Loss) -> Option<Finding> {
    let is_isolated = |it: &Speaker| it.interfaces.iter().any(|at| at.isolated);
    let lacks = |other: &&Speaker| {
        other.node != speaker.node
            && speaker.receives_hellos_of(&other.node)
            && !other.receives_hellos_of(&speaker.node)
            && !is_isolated(other)
    };
    let others: Vec<&str> = objects.live_speakers().filter(lacks).map(|it| &*it.node).collect();
    let (node, lacking) = (&speaker.node, first_names(&others));
    let text = format!(
        "frames of {node} do not arrive at {lacking}, although those of {lacking} arrive at \
         {node}: {}",
        loss.text(FILTER, others.first().copied().unwrap_or_default(), "any")
    );
    (!others.is_empty()).then(|| Finding::new(Code::OneWayContact, vec![status_of(speaker)], text))
}

fn filtered(speaker: &Speaker, at: &SpeakerInterface, loss: Loss) -> Option<Finding> {
    let text = format!(
        "hellos of {} do not arrive at {} ({}), although their speakers run: {}",
        first_names(&at.unheard),
        speaker.node,
        at.name,
        loss.text(FILTER, &speaker.node, &at.name)
    );
    (!at.unheard.is_empty())
        .then(|| Finding::new(Code::HellosFiltered, vec![status_of(speaker)], text))
}

/// Returns the finding about an interface without contact, if another node has an interface in the
/// same subnet.
fn no_contact(
    speaker: &Speaker,
    at: &SpeakerInterface,
    objects: &Objects,
    loss: Loss,
) -> Option<Finding> {
    if !at.up || at.standby || !at.hello_senders.is_empty() {
        return None;
    }
    let shares = |other: &SpeakerInterface| {
        other.up && other.subnets.iter().any(|subnet| at.subnets.contains(subnet))
    };
    let others: Vec<&str> = objects
        .live_speakers()
        .filter(|it| it.node != speaker.node)
        .filter(|it| it.interfaces.iter().any(shares))
        .map(|it| &*it.node)
        .collect();
    let fact = if at.isolated { "receives no frames" } else { "is in contact with no other node" };
    let isolation = "a switch isolates the port, or a packet filter drops hellos";
    let text = format!(
        "{} ({}) {fact}, although other nodes use the same subnet ({}): {}",
        speaker.node,
        at.name,
        first_names(&others),
        loss.text(isolation, &speaker.node, &at.name)
    );
    (!others.is_empty()).then(|| Finding::new(Code::NoContact, vec![status_of(speaker)], text))
}

fn late(speaker: &Speaker, at: &SpeakerInterface) -> Option<Finding> {
    let late = at.slow_failover()?;
    let text = format!(
        "{} is busy: hellos on {} were up to {} ms late, so a failover of its addresses there ({}) \
         takes {:.1} s: move pods from the node, which `kubectl get pods -A -o wide \
         --field-selector spec.nodeName={}` lists, or give the speaker more CPU",
        speaker.node,
        at.name,
        late.milliseconds,
        at.addresses.len(),
        f64::from(late.detection_milliseconds) / 1e3,
        speaker.node
    );
    Some(Finding::new(Code::LateHellos, vec![status_of(speaker)], text))
}

/// Returns the command that explains an issue of an address, which a speaker reports.
fn explanation(address: IpAddr, node: &str, objects: &Objects) -> String {
    let has_address = |it: &&Service| it.assigned.iter().any(|at| at.address == address);
    match objects.services.iter().find(has_address) {
        Some(service) => format!("`kubectl ferrolb why {}`", service.key),
        None => {
            format!(
                "`kubectl -n {} describe fspeaker {node}`",
                objects.installation.config.names.namespace
            )
        }
    }
}

/// Returns one finding for each reason of issues that speakers report.
fn issues(objects: &Objects) -> impl Iterator<Item = Finding> {
    let mut all: BTreeMap<InterfaceIssueReason, Issues> = BTreeMap::new();
    for speaker in objects.live_speakers() {
        for at in &speaker.interfaces {
            for issue in &at.issues {
                let see = || explanation(issue.address, &speaker.node, objects);
                let issues = all.entry(issue.reason).or_insert_with(|| Issues::new(see()));
                issues.objects.push(status_of(speaker));
                issues.texts.push(format!(
                    "{} by {} ({}), MAC {}",
                    issue.address, speaker.node, at.name, issue.mac
                ));
            }
        }
    }
    all.into_iter().map(|(reason, Issues { mut objects, texts, see })| {
        objects.dedup();
        let text = format!("{reason:?} is reported for {}: see {see}", first_names(&texts));
        Finding::new(Code::InterfaceIssues, objects, text)
    })
}
