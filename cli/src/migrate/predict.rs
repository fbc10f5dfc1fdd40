//! Prediction of the addresses after a migration: FerroLB's own controller runs with a copy of the
//! objects. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_controller_core::desired::{CustomResourceStatus, Target, ValidStatus};
use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::simulation::Simulation;
use ferrolb_controller_core::state::{Config, Outlook, State};
use ferrolb_proto::api::{self, ConditionStatus};
use ferrolb_proto::facts::Key;
use serde::Serialize;
use serde_json::{Value, json};

use super::Problem;
use crate::events::{NOW, event, leading_state};
use crate::objects::{self, CORE, Objects};

/// The predicted addresses of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Namespace and name.
    pub service: String,
    /// The addresses before the migration.
    pub before: Vec<IpAddr>,
    /// The result.
    #[serde(flatten)]
    pub result: AddressResult,
}

/// The result of a migration for the addresses of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "camelCase")]
pub enum AddressResult {
    /// The Service has the same addresses.
    Kept,
    /// The Service had no address, and gets these.
    New {
        /// The addresses.
        after: Vec<IpAddr>,
    },
    /// The Service gets other addresses.
    Changed {
        /// The addresses.
        after: Vec<IpAddr>,
        /// The reason and the message of the condition `AddressAssigned`.
        why: String,
    },
    /// The Service has no address.
    None {
        /// The reason and the message of the condition `AddressAssigned`.
        why: String,
    },
    /// The addresses remain in the status, but FerroLB does not announce them.
    NotServed {
        /// The reason and the message of the condition `AddressAssigned`.
        why: String,
    },
}

impl Outcome {
    /// Returns whether the Service loses no address.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        match self.result {
            AddressResult::Kept | AddressResult::New { .. } => true,
            AddressResult::None { .. } => self.before.is_empty(),
            AddressResult::Changed { .. } | AddressResult::NotServed { .. } => false,
        }
    }
}

/// A Service whose address is predicted, and its addresses before the migration.
pub struct Expected {
    /// Namespace and name.
    pub key: Key,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// The predicted state.
pub struct Prediction {
    /// One entry for each expected Service.
    pub outcomes: Vec<Outcome>,
    /// Custom resources that FerroLB would not use as written.
    pub invalid: Vec<Problem>,
}

/// Predicts the state after a migration. `before` and `after` have the objects as they are then.
/// The prediction includes the Services that FerroLB serves before.
#[must_use]
pub fn predict(
    config: Config,
    before: &Objects,
    after: &Objects,
    mut expected: Vec<Expected>,
) -> Prediction {
    let has = |key: &Key| expected.iter().any(|it| it.key == *key);
    let served = before.load_balancers().filter(|it| !own_pool(it).is_empty());
    let served = served.map(|service| Expected {
        key: objects::key(service),
        addresses: objects::addresses(service),
    });
    let served: Vec<_> = served.filter(|it| !it.addresses.is_empty() && !has(&it.key)).collect();
    expected.extend(served);
    let state = leading_state(&config, 0, events(&config, after));
    let mut simulation = Simulation::new(state, NOW);
    simulation.finish();
    let mut invalid: Vec<_> = simulation.resources().filter_map(problem).collect();
    invalid.sort();
    let (state, outlook) = (simulation.state(), simulation.state().outlook());
    let outcome = |expected: Expected| {
        let why = why(state, &outlook, &expected.key);
        let served = outlook.services.get(&expected.key);
        let result = result(&expected.addresses, served.map(|it| &*it.addresses), why);
        Outcome { service: expected.key.to_string(), before: expected.addresses, result }
    };
    Prediction { outcomes: expected.into_iter().map(outcome).collect(), invalid }
}

/// Returns the reason and the message of the condition `AddressAssigned`.
fn why(state: &State, outlook: &Outlook, key: &Key) -> String {
    let explanation = state.explain(key).filter(|it| !it.assignment.is_empty());
    let Some(explanation) = explanation else {
        return "FerroLB does not serve this Service: its class is another one".to_owned();
    };
    // The row may have the reason of the condition `Announced`.
    let served = outlook.services.get(key);
    let reason = served.map_or(&*explanation.row.reason, |it| it.reason);
    format!("{reason}: {}", explanation.assignment)
}

/// Compares the addresses before and after. `after` is `None` if FerroLB does not serve the
/// Service.
fn result(before: &[IpAddr], after: Option<&[IpAddr]>, why: String) -> AddressResult {
    let sorted = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
    match after {
        None if before.is_empty() => AddressResult::None { why },
        None => AddressResult::NotServed { why },
        Some([]) => AddressResult::None { why },
        Some(after) if sorted(after) == sorted(before) => AddressResult::Kept,
        Some(after) if before.is_empty() => AddressResult::New { after: after.to_vec() },
        Some(after) => AddressResult::Changed { after: after.to_vec(), why },
    }
}

/// Returns the annotation that FerroLB writes with an address.
fn own_pool(service: &Value) -> &str {
    objects::annotation(service, &api::pool_annotation(api::GROUP))
}

/// Returns the problem that the condition `Valid` of a custom resource would report.
fn problem((target, status): (&Target, &CustomResourceStatus)) -> Option<Problem> {
    let ValidStatus { condition, .. } = status.valid();
    (condition.status == ConditionStatus::False)
        .then(|| Problem::of(target.to_string(), &*condition.message))
}

/// Returns the events of all objects.
fn events(config: &Config, objects: &Objects) -> Vec<Event> {
    let services: Vec<_> = objects.of(CORE, "Service").map(with_managers).collect();
    let others = objects.iter().filter(|it| !objects::has_type(it, CORE, "Service"));
    let namespaces = missing_namespaces(objects);
    let all = others.chain(&services).chain(&namespaces);
    all.filter_map(|object| event(object, false, config)).collect()
}

/// Returns a Namespace without labels for each one that has a Service but is not among the objects.
/// The state decides about a Service only when it has the Namespace.
fn missing_namespaces(objects: &Objects) -> Vec<Value> {
    let known: BTreeSet<&str> = objects.of(CORE, "Namespace").map(objects::name).collect();
    let of_services: BTreeSet<&str> = objects.of(CORE, "Service").map(objects::namespace).collect();
    let missing = of_services.difference(&known);
    let namespace =
        |name: &&str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    missing.map(namespace).collect()
}

/// Returns a Service with its namespace and with `managedFields`, which `kubectl get -o yaml`
/// omits. Another client than FerroLB has written the addresses, unless FerroLB's annotation is
/// present.
fn with_managers(service: &Value) -> Value {
    let mut service = service.clone();
    service["metadata"]["namespace"] = objects::namespace(&service).into();
    let is_unknown = service["metadata"]["managedFields"].is_null();
    if is_unknown && !objects::addresses(&service).is_empty() && own_pool(&service).is_empty() {
        service["metadata"]["managedFields"] = json!([{
            "manager": "unknown", "operation": "Update", "subresource": "status",
            "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}},
        }]);
    }
    service
}

#[cfg(test)]
mod tests {
    use ferrolb_controller_core::state::Names;
    use ferrolb_proto::api::CustomResourceKind;

    use super::*;

    /// Returns a Service with the addresses that FerroLB has assigned.
    fn service(name: &str, requested: &str, addresses: &[&str]) -> Value {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let pool = if addresses.is_empty() {
            json!({})
        } else {
            json!({"ferrolb.io/ip-allocated-from-pool": "lan"})
        };
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": pool},
            "spec": {"type": "LoadBalancer", "loadBalancerIP": requested,
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": ingress}}})
    }

    #[test]
    fn a_service_gets_the_address_that_another_one_releases() {
        let spec = json!({"addresses": ["192.168.1.240-192.168.1.249"]});
        let objects = Objects::new([
            objects::object(CustomResourceKind::IPAddressPool, "lan", api::NAMESPACE, spec),
            service("first", "192.168.1.241", &["192.168.1.240"]),
            service("second", "192.168.1.240", &[]),
        ]);
        let names = Names { namespace: api::NAMESPACE.to_owned(), group: api::GROUP.to_owned() };
        let config = Config { default_implementation: true, names, ..Config::default() };
        let expected = objects.load_balancers().map(|service| Expected {
            key: objects::key(service),
            addresses: objects::addresses(service),
        });
        let expected = expected.collect();
        let results: Vec<_> = predict(config, &objects, &objects, expected)
            .outcomes
            .into_iter()
            .map(|it| it.result)
            .collect();
        let new = AddressResult::New { after: vec!["192.168.1.240".parse().unwrap()] };
        assert!(
            matches!(&results[0], AddressResult::Changed { after, .. }
            if *after == ["192.168.1.241".parse::<IpAddr>().unwrap()]),
            "{results:?}"
        );
        assert_eq!(results[1], new);
    }
}
