//! Rules about controllers, speakers and custom resources. Pure.

use std::collections::BTreeSet;

use ferrolb_proto::api::{self, CONDITION_VALID, ConditionStatus};

use super::crds::{self, CrdProblem};
use super::facts::{ClusterFacts, Objects};
use super::finding::{Code, Finding, MANIFESTS, Object};
use crate::installation::CONTROLLER;
use crate::table::first_names;

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let Some(objects) = &facts.objects else { return Vec::new() };
    if !objects.installation.exists {
        let namespace = &objects.installation.namespace;
        let text = format!(
            "the namespace {namespace} contains no FerroLB: install it, or name its namespace with \
             --installation"
        );
        return vec![Finding::new(
            Code::NotInstalled,
            vec![Object::cluster("Namespace", namespace)],
            text,
        )];
    }
    let controllers = no_leader(objects).into_iter().chain(not_ready(objects));
    let crds = crd_findings(facts, objects);
    let speakers = without_speaker(objects).into_iter().chain(stale(objects));
    controllers.chain(speakers).chain(crds).chain(invalid(facts, objects)).collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let Some(objects) = &facts.objects else { return "not checked".to_owned() };
    let leader = objects.installation.leader.as_deref().unwrap_or("none");
    let speakers = objects.live_speakers().count();
    format!("leader {leader}, {speakers} of {} nodes with a speaker", objects.nodes.len())
}

fn deployment(objects: &Objects) -> Object {
    Object::namespaced("Deployment", &objects.installation.namespace, CONTROLLER)
}

fn no_leader(objects: &Objects) -> Option<Finding> {
    let lease =
        Object::namespaced("Lease", &objects.installation.config.names.namespace, api::LEASE);
    let text = format!(
        "no controller is the active leader, so no Service gets an address: see `kubectl -n {} \
         get pods`",
        objects.installation.namespace
    );
    objects.installation.leader.is_none().then(|| Finding::new(Code::NoLeader, vec![lease], text))
}

fn not_ready(objects: &Objects) -> Option<Finding> {
    let [ready, wanted] = objects.installation.controllers?;
    let namespace = &objects.installation.namespace;
    let text = format!(
        "{ready} of {wanted} controllers are ready: see `kubectl -n {namespace} describe \
         deployment {CONTROLLER}`"
    );
    (ready < wanted)
        .then(|| Finding::new(Code::ControllerNotReady, vec![deployment(objects)], text))
}

/// Returns the finding about Nodes without a SpeakerStatus. Only FerroLB's own API group has
/// SpeakerStatuses.
fn without_speaker(objects: &Objects) -> Option<Finding> {
    let with_speaker: BTreeSet<_> = objects.speakers.iter().map(|it| &*it.node).collect();
    let without: Vec<&str> =
        objects.nodes.iter().map(|it| &*it.name).filter(|it| !with_speaker.contains(it)).collect();
    if objects.installation.config.names.group != api::GROUP || without.is_empty() {
        return None;
    }
    let see = format!("see `kubectl -n {} get pods -o wide`", objects.installation.namespace);
    let (code, text) = if without.len() == objects.nodes.len() {
        (Code::NoSpeaker, format!("no node has a speaker, so no address is announced: {see}"))
    } else {
        let text = format!("no speaker has reported on {}: {see}", first_names(&without));
        (Code::NodeWithoutSpeaker, text)
    };
    let nodes = without.iter().map(|name| Object::cluster("Node", name));
    Some(Finding::new(code, nodes.collect(), text))
}

/// Returns the finding about stopped speakers. A SpeakerStatus without a Node is not one of them.
fn stale(objects: &Objects) -> Option<Finding> {
    let stale = objects.nodes.iter().filter(|node| objects.stale.contains(&*node.name));
    let stale: Vec<&str> = stale.map(|node| &*node.name).collect();
    let first = stale.first()?;
    let text = format!(
        "the speaker has stopped on {}, the node has failed, or a filter drops its frames: see \
         `kubectl get node {first}`, and `kubectl -n {} get pods -o wide --field-selector \
         spec.nodeName={first}`",
        first_names(&stale),
        objects.installation.namespace
    );
    let nodes = stale.iter().map(|name| Object::cluster("Node", name));
    Some(Finding::new(Code::StaleSpeaker, nodes.collect(), text))
}

/// Returns the findings about CRDs. Under another API group, the CRDs are not FerroLB's.
fn crd_findings(facts: &ClusterFacts, objects: &Objects) -> Vec<Finding> {
    let crds =
        facts.crds.as_ref().filter(|_| objects.installation.config.names.group == api::GROUP);
    let problems = crds.map(crds::problems).unwrap_or_default();
    let finding = |(name, problem): (String, CrdProblem)| {
        let (code, fact) = match problem {
            CrdProblem::Missing => (Code::CrdMissing, "does not exist".to_owned()),
            CrdProblem::NotServed(version) => {
                (Code::CrdMissing, format!("does not serve version {version}"))
            }
            CrdProblem::Fields(fields) => (Code::CrdOld, format!("lacks {}", first_names(&fields))),
        };
        let object = Object::cluster("CustomResourceDefinition", &name);
        let text = format!(
            "CRD {name} {fact}: `kubectl apply --server-side --force-conflicts -f \
             {MANIFESTS}/base/crds.yaml`"
        );
        Finding::new(code, vec![object], text)
    };
    problems.into_iter().map(finding).collect()
}

fn invalid<'a>(
    facts: &'a ClusterFacts,
    objects: &'a Objects,
) -> impl Iterator<Item = Finding> + 'a {
    let is_invalid = |it: &&super::facts::ResourceCondition| {
        it.condition == CONDITION_VALID && it.status == ConditionStatus::False
    };
    facts.conditions.iter().filter(is_invalid).map(|it| {
        let object =
            Object::namespaced(it.kind, &objects.installation.config.names.namespace, &it.name);
        let text = format!("{} {} is not in use: {}", it.kind, it.name, it.message);
        Finding::new(Code::InvalidResource, vec![object], text)
    })
}
