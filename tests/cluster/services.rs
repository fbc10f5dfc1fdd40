//! Services: functions that create and read them.

use crate::pools::{self, STATE_MAX};
use anyhow::{Context, Result, anyhow};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{GROUP, pool_annotation};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Type of the condition that reports whether a Service has its addresses.
pub(crate) const ADDRESS_ASSIGNED: &str = ferrolb_proto::api::CONDITION_ADDRESS_ASSIGNED;
/// Type of the condition that reports whether the addresses of a Service are announced.
pub(crate) const ANNOUNCED: &str = ferrolb_proto::api::CONDITION_ANNOUNCED;
/// Label of the pods behind the Services of these tests.
pub(crate) const WEB: [(&str, &str); 1] = [("app", "web")];

/// Returns a LoadBalancer Service on port 80 for the pods with the label [`WEB`]. `spec` adds or
/// replaces fields.
pub(crate) fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    if let (Some(fields), Value::Object(additional)) = (object["spec"].as_object_mut(), spec) {
        fields.extend(additional);
    }
    object
}

/// Creates a Service without additional fields, and waits for its IPv4 address.
pub(crate) fn serve(lab: &Lab, name: &str) -> Result<Ipv4Addr> {
    lab.apply_objects(&[service(name, json!({}))])?;
    address(lab, name)
}

/// Creates the pool `lan` with addresses of the lab's families, an advertisement of all pools, and
/// the pod `web` on `node`.
pub(crate) fn apply_pool_and_pod(lab: &Lab, node: &str) -> Result<()> {
    let addresses = lab.families().of(["172.30.0.200-172.30.0.209", "fd30::200-fd30::209"]);
    lab.apply_objects(&[pools::pool("lan", &addresses), pools::advertisement()])?;
    lab.pod("web", node, &WEB)
}

/// Returns the current Service.
pub(crate) fn get(lab: &Lab, name: &str) -> Result<Service> {
    lab.api(async |client| Ok(Api::<Service>::default_namespaced(client).get(name).await?))
}

/// Waits until `check` returns `Some` for a Service, and returns the result. `what` names the
/// expected state in the error message.
pub(crate) fn wait_for<T: Send>(
    lab: &Lab,
    name: &str,
    what: &str,
    check: impl Fn(&Service) -> Option<T> + Send + Sync,
) -> Result<T> {
    let what = format!("Service {name}: {what}");
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        wait::until_async(&what, STATE_MAX, async || {
            let service = services.get(name).await?;
            match check(&service) {
                Some(found) => Ok(Some(found)),
                None => Err(anyhow!("the status is {}", serde_json::to_string(&service.status)?)),
            }
        })
        .await
    })
}

/// Waits for the IPv4 address of a Service.
pub(crate) fn address(lab: &Lab, name: &str) -> Result<Ipv4Addr> {
    wait_for(lab, name, "an IPv4 address", |service| {
        addresses(service).into_iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
    })
}

/// Returns the addresses in `status.loadBalancer.ingress`, in order.
pub(crate) fn addresses(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect()
}

/// Waits until a Service has these addresses, in this order.
pub(crate) fn wait_addresses(lab: &Lab, name: &str, expect: &[&str]) -> Result<()> {
    let expected = expect.iter().map(|text| text.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
    wait_for(lab, name, &format!("the addresses are {expect:?}"), |service| {
        (addresses(service) == expected).then_some(())
    })
}

/// Returns the condition of this type on a Service.
pub(crate) fn condition<'a>(service: &'a Service, kind: &str) -> Option<&'a Condition> {
    service.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == kind)
}

/// Returns FerroLB's Events about the assignment of a Service's addresses.
pub(crate) fn events(lab: &Lab, name: &str) -> Result<Vec<Event>> {
    events_of(lab, name, "AssignAddress")
}

/// Returns FerroLB's Events with this action about a Service.
pub(crate) fn events_of(lab: &Lab, name: &str, action: &str) -> Result<Vec<Event>> {
    lab.api(async |client| {
        let params =
            ListParams::default().fields(&format!("regarding.kind=Service,regarding.name={name}"));
        let mut events = Api::<Event>::default_namespaced(client).list(&params).await?.items;
        let is_ferrolbs = |event: &Event| {
            event.reporting_controller.as_deref().is_some_and(|by| by.contains("ferrolb"))
        };
        events.retain(|event| is_ferrolbs(event) && event.action.as_deref() == Some(action));
        Ok(events)
    })
}

/// Creates another Service with this name, and waits for its Event. FerroLB has then sent all
/// earlier Events.
pub(crate) fn wait_events_sent(lab: &Lab, name: &str) -> Result<()> {
    serve(lab, name)?;
    wait::until(&format!("there is an Event about Service {name}"), STATE_MAX, || {
        Ok((!events(lab, name)?.is_empty()).then_some(()))
    })
}

/// Waits until a Service has no address, condition or annotation of FerroLB.
pub(crate) fn wait_released(lab: &Lab, name: &str) -> Result<()> {
    wait_for(lab, name, "no address, condition or annotation of FerroLB", |service| {
        let annotated = service
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(&pool_annotation(GROUP)));
        let released =
            addresses(service).is_empty() && condition(service, ADDRESS_ASSIGNED).is_none();
        (released && !annotated).then_some(())
    })
}

/// Waits until the condition `Announced` of a Service has this reason, and its message contains
/// `words`. Returns the condition.
pub(crate) fn wait_announced(
    lab: &Lab,
    name: &str,
    reason: &str,
    words: &str,
) -> Result<Condition> {
    wait_for(
        lab,
        name,
        &format!("Announced has the reason {reason} and the text {words:?}"),
        |service| {
            let condition = condition(service, ANNOUNCED)?;
            (condition.reason == reason && condition.message.contains(words))
                .then(|| condition.clone())
        },
    )
}

/// Waits until a Service has no address and its condition `AddressAssigned` has this reason.
pub(crate) fn wait_refused(lab: &Lab, name: &str, reason: &str) -> Result<()> {
    wait_for(
        lab,
        name,
        &format!("no address, and AddressAssigned has the reason {reason}"),
        |service| {
            let condition = condition(service, ADDRESS_ASSIGNED)?;
            let refused = condition.status == "False" && condition.reason == reason;
            (refused && addresses(service).is_empty()).then_some(())
        },
    )
}

/// Deletes a Service.
pub(crate) fn delete(lab: &Lab, name: &str) -> Result<()> {
    lab.api(async |client| {
        Api::<Service>::default_namespaced(client).delete(name, &DeleteParams::default()).await?;
        Ok(())
    })
}

/// Changes fields of a Service by a merge patch.
pub(crate) fn patch(lab: &Lab, name: &str, patch: &Value) -> Result<()> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    })
}

/// Changes the status of a Service by a merge patch, as another load balancer does.
pub(crate) fn patch_status(lab: &Lab, name: &str, patch: &Value) -> Result<()> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        services.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    })
}

/// Returns the resourceVersion of a Service, which changes with every write.
pub(crate) fn version(service: &Service) -> Result<String> {
    service.metadata.resource_version.clone().context("the object has no resourceVersion")
}

/// Returns the socket address of port 80 at an address.
pub(crate) fn http(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 80)
}
