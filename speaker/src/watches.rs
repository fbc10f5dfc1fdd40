//! The watches of the API server that the main loop starts: the objects that the speaker reads, and
//! the event that reports a change of each. The main loop's `JoinSet` owns their tasks.

use std::sync::Arc;

use ferrolb_proto::api::{self, CustomResourceKind, HELLO_SECRET};
use ferrolb_proto::facts::{
    EndpointSliceObject, NodeObject, SERVICE_SLICES_SELECTOR, Service, ServiceObject,
};
use ferrolb_proto::wire::hello::HelloKeyRing;
use ferrolb_runtime::watch::{Watch, WatchStarter};
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker_core::event::Event;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::flags::Flags;

/// Field selector that skips Helm release Secrets: they are up to 1 MB and never hold a BGP
/// password.
const NOT_HELM_RELEASES: &str = "type!=helm.sh/release.v1";

/// Starts the watches of the speaker. The watches for BGP start only if the node has a gobgpd.
pub fn start_watches(
    flags: &Flags,
    client: &Client,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
    watchdog: &Arc<Watchdog>,
) {
    let mut starter = WatchStarter { client, flags: &flags.common, events, tasks, watchdog };
    watch_all(&mut starter);
    if flags.gobgp.is_some() {
        watch_bgp(&mut starter);
    }
}

/// Starts the watches that every speaker needs.
fn watch_all(starter: &mut WatchStarter<'_, Event>) {
    let (client, namespace) = (starter.client, &starter.flags.namespace);
    let group = starter.flags.api_group.clone();
    let read = move |object: ServiceObject| Service::read(object, &group);
    starter.start(Watch::new("Services", Api::all(client.clone()), read), Event::Service);
    let slices = Watch::new("EndpointSlices", Api::all(client.clone()), EndpointSliceObject::into);
    starter.start(slices.labels(SERVICE_SLICES_SELECTOR), Event::Slice);
    starter.start_all::<NodeObject, _>("Nodes", Event::Node);
    starter.start_custom_resources::<api::IPAddressPoolObject, _>(
        "IPAddressPools",
        CustomResourceKind::IPAddressPool,
        Event::Pool,
    );
    starter.start_custom_resources::<api::L2AdvertisementObject, _>(
        "L2Advertisements",
        CustomResourceKind::L2Advertisement,
        Event::Advertisement,
    );
    let secrets =
        Watch::new("Secret ferrolb-hello", Api::namespaced(client.clone(), namespace), keys);
    starter.start(secrets.fields(&format!("metadata.name={HELLO_SECRET}")), Event::Keys);
}

/// Starts the watches of the objects that only a speaker with a gobgpd needs.
fn watch_bgp(starter: &mut WatchStarter<'_, Event>) {
    starter.start_custom_resources::<api::BgpPeerObject, _>(
        "BGPPeers",
        CustomResourceKind::BGPPeer,
        Event::BgpPeer,
    );
    starter.start_custom_resources::<api::BgpAdvertisementObject, _>(
        "BGPAdvertisements",
        CustomResourceKind::BGPAdvertisement,
        Event::BgpAdvertisement,
    );
    starter.start_custom_resources::<api::CommunityObject, _>(
        "Communities",
        CustomResourceKind::Community,
        Event::Community,
    );
    starter.start_custom_resources::<api::BfdProfileObject, _>(
        "BFDProfiles",
        CustomResourceKind::BFDProfile,
        Event::BfdProfile,
    );
    let api = Api::namespaced(starter.client.clone(), &starter.flags.namespace);
    starter
        .start(Watch::new("Secrets", api, Secret::into).fields(NOT_HELM_RELEASES), Event::Password);
}

fn keys(secret: Secret) -> HelloKeyRing {
    let data = secret.data.unwrap_or_default();
    HelloKeyRing::from_secret(data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())))
}
