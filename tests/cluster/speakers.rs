//! State of a speaker, from its SpeakerStatus and its log.

use crate::pools::STATE_MAX;
use anyhow::{Result, anyhow};
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{
    CustomResourceKind, GROUP, KubeProxyState, NAMESPACE, SpeakerStatusObject, SpeakerStatusStatus,
    resource,
};
use kube::api::Api;

/// Waits until `check` returns `Some` for the SpeakerStatus of a node, and returns the result.
pub(crate) fn wait_for<T: Send>(
    lab: &Lab,
    node: &str,
    what: &str,
    check: impl Fn(&SpeakerStatusStatus) -> Option<T> + Send + Sync,
) -> Result<T> {
    let what = format!("the speaker of {node}: {what}");
    lab.api(async |client| {
        let speakers: Api<SpeakerStatusObject> = Api::namespaced_with(
            client,
            NAMESPACE,
            &resource(CustomResourceKind::SpeakerStatus, GROUP),
        );
        wait::until_async(&what, STATE_MAX, async || {
            let status = speakers.get(node).await?.status.unwrap_or_default();
            check(&status).map(Some).ok_or_else(|| anyhow!("the status is {status:?}"))
        })
        .await
    })
}

/// Waits until a node's speaker reports this kube-proxy health.
pub(crate) fn wait_proxy_health(lab: &Lab, node: &str, state: KubeProxyState) -> Result<()> {
    wait_for(lab, node, &format!("kube-proxy health is {state:?}"), |status| {
        (status.data_path.as_ref()?.state == state).then_some(())
    })
}

/// Returns how many times the speakers have logged that they announce an additional address.
pub(crate) fn announcements_logged(lab: &Lab) -> usize {
    lab.nodes()
        .iter()
        .map(|node| lab.logs(&speaker_name(node)).matches("run: announcing").count())
        .sum()
}
