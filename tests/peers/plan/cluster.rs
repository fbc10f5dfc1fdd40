//! The state of the cluster that a plan predicts: addresses of Services, owners, and routes.

use crate::objects;
use anyhow::{Context, Result};
use ferrolb_lab::Lab;
use ferrolb_lab::routers::Router;
use ferrolb_lab::topology::Host;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Names of nodes.
type Nodes = BTreeSet<String>;

/// Addresses of Services, owners of addresses, and nodes that advertise prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterState {
    services: BTreeMap<String, BTreeSet<String>>,
    owners: BTreeMap<String, Nodes>,
    routes: BTreeMap<String, Nodes>,
}

impl ClusterState {
    /// Reads the state from the API server and the router.
    pub(super) fn read(lab: &Lab, router: &Router<'_>) -> Result<Self> {
        let mut state = Self::default();
        for service in list(lab, "/api/v1/services")? {
            if service["spec"]["type"] != "LoadBalancer" {
                continue;
            }
            let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
            let addresses = texts(ingress.into_iter().flatten().map(|it| &it["ip"]));
            let name = &service["metadata"];
            let key = format!("{}/{}", text(&name["namespace"])?, text(&name["name"])?);
            state.services.insert(key, addresses);
        }
        for speaker in list(lab, &objects::path("speakerstatuses"))? {
            let node = text(&speaker["metadata"]["name"])?;
            let interfaces = speaker["status"]["interfaces"].as_array().into_iter().flatten();
            let addresses = interfaces.flat_map(|it| it["addresses"].as_array()).flatten();
            for address in texts(addresses) {
                state.owners.entry(address).or_default().insert(node.clone());
            }
        }
        for route in router.routes()? {
            let node = node_of(lab, route.next_hop.context("a route without next hop")?)?;
            state.routes.entry(route.prefix).or_default().insert(node);
        }
        Ok(state)
    }

    /// Returns whether there are no owners or no routes.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty() || self.routes.is_empty()
    }

    /// Returns the state after an effect that `plan -o json` has printed.
    pub(super) fn after(&self, effect: &Value) -> Result<Self> {
        let mut state = self.clone();
        let all = |name: &str| effect[name].as_array().with_context(|| format!("no {name}"));
        for service in all("services")? {
            let name = text(&service["service"])?;
            match text(&service["effect"])?.as_str() {
                "released" => drop(state.services.remove(&name)),
                _ => drop(state.services.insert(name, set(&service["after"]))),
            }
        }
        for owner in all("owners")? {
            state.owners.insert(text(&owner["address"])?, set(&owner["after"]));
        }
        for route in all("routes")? {
            let nodes = state.routes.entry(text(&route["prefix"])?).or_default();
            nodes.extend(set(&route["advertised"]));
            nodes.retain(|node| !set(&route["withdrawn"]).contains(node));
        }
        state.owners.retain(|_, nodes| !nodes.is_empty());
        state.routes.retain(|_, nodes| !nodes.is_empty());
        Ok(state)
    }

    /// Describes how this state differs from the expected one.
    pub(super) fn differences(&self, expected: &Self) -> String {
        [
            differing("Services", &self.services, &expected.services),
            differing("owners", &self.owners, &expected.owners),
            differing("routes", &self.routes, &expected.routes),
        ]
        .concat()
    }
}

fn differing(
    kind: &str,
    now: &BTreeMap<String, BTreeSet<String>>,
    expected: &BTreeMap<String, BTreeSet<String>>,
) -> String {
    let keys: BTreeSet<_> = now.keys().chain(expected.keys()).collect();
    let differs = |key: &&&String| now.get(**key) != expected.get(**key);
    let describe =
        |key: &String| format!("{kind} {key}: {:?}, not {:?}; ", now.get(key), expected.get(key));
    keys.iter().filter(differs).map(|key| describe(key)).collect()
}

fn list(lab: &Lab, path: &str) -> Result<Vec<Value>> {
    Ok(lab.get(path)?["items"].as_array().cloned().unwrap_or_default())
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("{value} is no text"))?.to_owned())
}

fn texts<'a>(values: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    values.filter_map(|value| Some(value.as_str()?.to_owned())).collect()
}

fn set(value: &Value) -> BTreeSet<String> {
    texts(value.as_array().into_iter().flatten())
}

/// Returns the node with an address.
fn node_of(lab: &Lab, address: IpAddr) -> Result<String> {
    let nodes = lab.nodes();
    let has =
        |name: &&String| Host::named(name).is_some_and(|host| host.addresses().contains(&address));
    Ok(nodes.iter().find(has).with_context(|| format!("no node has {address}"))?.clone())
}
