//! Changes of Services that a migration needs: annotations, type and external IPs. One value gives
//! the commands, and the object that the prediction uses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::Command;
use super::shell::{ANNOTATE, quoted};
use crate::objects::{annotation, families, text};

/// Annotation with the requested addresses.
pub const LOAD_BALANCER_IPS: &str = "ferrolb.io/loadBalancerIPs";
/// Annotation with the key under which Services share an address.
pub const ALLOW_SHARED_IP: &str = "ferrolb.io/allow-shared-ip";

/// Annotations to add to a Service.
#[derive(Debug)]
pub struct Annotations<'a> {
    /// The Service.
    pub service: &'a Value,
    values: BTreeMap<&'static str, String>,
}

impl<'a> Annotations<'a> {
    /// Returns the annotations that let a Service keep its `addresses`. `shared` has the addresses
    /// that several Services have.
    #[must_use]
    pub fn keep(service: &'a Value, addresses: &[IpAddr], shared: &[IpAddr]) -> Self {
        let mut values = BTreeMap::new();
        let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        // FerroLB rejects a request that does not have one address of each family of the Service.
        let families = families(service);
        let is_complete = families == addresses.iter().map(IpAddr::is_ipv4).collect()
            && families.len() == addresses.len();
        let is_requested = !text(service, "/spec/loadBalancerIP").is_empty()
            || !annotation(service, LOAD_BALANCER_IPS).is_empty();
        if is_complete && !is_requested {
            values.insert(LOAD_BALANCER_IPS, list);
        }
        let key = addresses.iter().find(|address| shared.contains(address));
        if let Some(key) = key.filter(|_| annotation(service, ALLOW_SHARED_IP).is_empty()) {
            values.insert(ALLOW_SHARED_IP, key.to_string());
        }
        Self { service, values }
    }

    /// Returns the command that adds the annotations, or `None` if there are none.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        let words = self.values.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        self.annotate(words.collect())
    }

    /// Returns the command that removes the annotations, or `None` if there are none.
    #[must_use]
    pub fn undo(&self) -> Option<Command> {
        self.annotate(self.values.keys().map(|name| format!("{name}-")).collect())
    }

    fn annotate(&self, words: Vec<String>) -> Option<Command> {
        (!words.is_empty()).then(|| ANNOTATE.on_service(self.service, words.join(" ")))
    }

    /// Returns the Service with the annotations.
    #[must_use]
    pub fn applied(&self) -> Value {
        let mut service = self.service.clone();
        for (name, value) in &self.values {
            set_annotation(&mut service, name, Some(value));
        }
        service
    }
}

/// Sets an annotation, or removes it.
pub fn set_annotation(object: &mut Value, name: &str, value: Option<&str>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        match value {
            Some(value) => _ = annotations.insert(name.to_owned(), value.into()),
            None => _ = annotations.remove(name),
        }
    }
}

/// Returns the addresses that more than one Service has.
#[must_use]
pub fn shared<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> Vec<IpAddr> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    addresses.for_each(|address| *counts.entry(*address).or_default() += 1);
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(address, _)| address).collect()
}
