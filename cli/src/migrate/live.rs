//! Reads the objects of a running cluster, and never Secrets. Performs I/O.

use anyhow::{Context as _, Result};
use ferrolb_proto::api::{GROUP, resource};
use kube::Client;
use kube::api::{ListParams, Request};
use serde_json::Value;

use super::args::Source;
use super::metallb::FRR_K8S;
use super::translate::{KINDS, METALLB};
use crate::objects::Objects;
use crate::read::permitted;

/// URLs of the kinds that every migration reads.
const COMMON: [&str; 4] =
    ["/api/v1/services", "/api/v1/nodes", "/api/v1/namespaces", "/apis/apps/v1/deployments"];

/// URL of the CustomResourceDefinition of MetalLB's BGPPeers, for the versions that are stored.
const PEER_CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/bgppeers.metallb.io";

/// Reads the objects that a migration needs.
///
/// # Errors
/// The API server is unavailable, or does not permit a list.
pub async fn read(client: &Client, source: &Source) -> Result<Objects> {
    let mut values = Vec::new();
    for url in urls(source) {
        values.extend(read_url(client, &url).await?);
    }
    Ok(Objects::new(values))
}

/// Returns the URLs of all kinds that a migration needs.
fn urls(source: &Source) -> Vec<String> {
    let custom = |group: &str| {
        let group = group.to_owned();
        KINDS.into_iter().map(move |kind| {
            let resource = resource(kind, &group);
            format!("/apis/{}/{}", resource.api_version, resource.plural)
        })
    };
    let mut urls: Vec<String> = COMMON.map(str::to_owned).into();
    urls.extend(custom(GROUP));
    match source {
        Source::Metallb { .. } => {
            urls.extend(custom(METALLB));
            urls.push("/apis/apps/v1/daemonsets".to_owned());
            urls.push(format!("/apis/{FRR_K8S}/v1beta1/frrconfigurations"));
            urls.push(PEER_CRD.to_owned());
        }
        Source::KubeVip(_) => {
            let kinds = ["configmaps", "pods"];
            urls.extend(kinds.map(|kind| format!("/api/v1/namespaces/kube-system/{kind}")));
            urls.push("/apis/apps/v1/daemonsets".to_owned());
        }
        Source::Servicelb(_) | Source::ExternalIps(_) => {}
    }
    urls
}

/// Lists a kind, or reads one object. The result is empty if the cluster does not have it.
async fn read_url(client: &Client, url: &str) -> Result<Option<Value>> {
    // The API server replies from its cache.
    let request = Request::new(url).list(&ListParams::default().match_any())?;
    permitted(client.request(request).await).with_context(|| format!("cannot list {url}"))
}
