//! The Services that MetalLB serves, and the commands that pass them to FerroLB and back: MetalLB's
//! annotation decides which of the two serves a Service. Pure.

use std::collections::BTreeMap;

use ferrolb_proto::api::CONDITION_ADDRESS_ASSIGNED;
use serde_json::Value;

use super::Command;
use super::metallb::SERVED;
use super::shell::{ANNOTATE, Verb, WAIT, quoted};
use crate::objects::{annotation, name, namespace};

/// Services with MetalLB's annotation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Served(BTreeMap<Record, Vec<String>>);

/// The annotation of some Services of a namespace.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    namespace: String,
    annotation: &'static str,
    pool: String,
}

impl Served {
    /// Adds a Service. Returns false if it lacks the annotation.
    pub fn add(&mut self, service: &Value) -> bool {
        let Some(found) = SERVED.into_iter().find(|it| !annotation(service, it).is_empty()) else {
            return false;
        };
        let record = Record {
            namespace: namespace(service).to_owned(),
            annotation: found,
            pool: pool(service).unwrap_or_default(),
        };
        self.0.entry(record).or_default().push(name(service).to_owned());
        true
    }

    /// Returns whether there is no Service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of Services in words.
    #[must_use]
    pub fn counted(&self) -> String {
        match self.0.values().map(Vec::len).sum() {
            1 => "1 Service".to_owned(),
            count => format!("{count} Services"),
        }
    }

    /// Returns the commands that remove the annotation, and wait until FerroLB serves the Services.
    #[must_use]
    pub fn release(&self) -> Vec<Command> {
        let annotations = SERVED.map(|it| format!("{it}-")).join(" ");
        let assigned =
            format!("--for=condition={CONDITION_ADDRESS_ASSIGNED} --timeout=60s service");
        let remove = self.each(ANNOTATE, |_, names| format!("service {names} {annotations}"));
        remove.chain(self.each(WAIT, |_, names| format!("{assigned} {names}"))).collect()
    }

    /// Returns the commands that write the annotation again, so that FerroLB leaves the Services to
    /// MetalLB.
    #[must_use]
    pub fn restore(&self) -> Vec<Command> {
        let write = |it: &Record, names: &str| {
            let value = quoted(&format!("{}={}", it.annotation, it.pool));
            format!("--overwrite service {names} {value}")
        };
        self.each(ANNOTATE, write).collect()
    }

    /// Returns the commands that wait until MetalLB's controller has written the annotation.
    #[must_use]
    pub fn wait_restored(&self) -> Vec<Command> {
        let wait = |it: &Record, names: &str| {
            let path = it.annotation.replace('.', "\\.");
            let condition =
                quoted(&format!("jsonpath={{.metadata.annotations.{path}}}={}", it.pool));
            format!("--for={condition} --timeout=120s service {names}")
        };
        self.each(WAIT, wait).collect()
    }

    /// Returns a command for each record. `words` gets the names of its Services.
    fn each(
        &self,
        verb: Verb,
        words: impl Fn(&Record, &str) -> String,
    ) -> impl Iterator<Item = Command> {
        self.0.iter().map(move |(record, names)| {
            let names = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" ");
            verb.run_in(&record.namespace, words(record, &names))
        })
    }
}

/// Returns the name of the pool in MetalLB's annotation. Any user may write the annotation of a
/// Service, so characters that no name has are left out.
#[must_use]
pub fn pool(service: &Value) -> Option<String> {
    let value = SERVED.into_iter().map(|it| annotation(service, it)).find(|it| !it.is_empty())?;
    let is_of_name = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
    Some(value.chars().filter(is_of_name).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, annotations: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations}})
    }

    #[test]
    fn services_of_a_pool_are_passed_on_by_one_command() {
        let mut served = Served::default();
        for name in ["a", "b"] {
            assert!(served.add(&service(name, &json!({SERVED[0]: "lan"}))));
        }
        assert!(served.add(&service("old", &json!({SERVED[1]: "wan\n```"}))));
        assert!(!served.add(&service("other", &json!({}))));
        assert_eq!(served.counted(), "3 Services");
        let both = "metallb.io/ip-allocated-from-pool- metallb.universe.tf/ip-allocated-from-pool-";
        let wait = "kubectl -n shop wait --for=condition=ferrolb.io/AddressAssigned --timeout=60s";
        assert_eq!(
            served.release(),
            [
                format!("kubectl -n shop annotate service a b {both}"),
                format!("kubectl -n shop annotate service old {both}"),
                format!("{wait} service a b"),
                format!("{wait} service old"),
            ]
        );
        let write = "kubectl -n shop annotate --overwrite service";
        assert_eq!(
            served.restore(),
            [
                format!("{write} a b metallb.io/ip-allocated-from-pool=lan"),
                format!("{write} old metallb.universe.tf/ip-allocated-from-pool=wan"),
            ]
        );
        assert_eq!(
            served.wait_restored()[0],
            "kubectl -n shop wait --for='jsonpath={.metadata.annotations.metallb\\.io/\
             ip-allocated-from-pool}=lan' --timeout=120s service a b"
        );
    }
}
