//! What a speaker says of its node in its SpeakerStatus, as a test waits for it, and in its log.

use crate::pools::BRINGING_MAX;
use anyhow::{Result, anyhow};
use ferrolb_proto::api::{DataPathState, GROUP, Kind, NAMESPACE, Speaker, SpeakerStatusStatus, resource};
use ferrolb_tests::cluster::ferrolb::speaker_name;
use ferrolb_tests::{Lab, wait};
use kube::api::Api;

/// Waits until the speaker of a node says what `look` looks for.
pub(crate) fn wait_for<T: Send>(
    lab: &Lab,
    node: &str,
    what: &str,
    look: impl Fn(&SpeakerStatusStatus) -> Option<T> + Send + Sync,
) -> Result<T> {
    let what = format!("the speaker of {node}: {what}");
    lab.api(async |client| {
        let speakers: Api<Speaker> = Api::namespaced_with(client, NAMESPACE, &resource(Kind::SpeakerStatus, GROUP));
        wait::until_async(&what, BRINGING_MAX, async || {
            let status = speakers.get(node).await?.status.unwrap_or_default();
            look(&status).map(Some).ok_or_else(|| anyhow!("it says {status:?}"))
        })
        .await
    })
}

/// Waits until the data path of a node is in this state, as its speaker says.
pub(crate) fn wait_data_path(lab: &Lab, node: &str, state: DataPathState) -> Result<()> {
    wait_for(lab, node, &format!("{state:?}"), |status| (status.data_path.as_ref()?.state == state).then_some(()))
}

/// How often a speaker has said that it announces something new.
pub(crate) fn taken(lab: &Lab) -> usize {
    lab.nodes().iter().map(|node| lab.logs(&speaker_name(node)).matches("run: announcing").count()).sum()
}
