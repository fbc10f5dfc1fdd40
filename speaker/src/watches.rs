//! The watches of the API server that the main loop starts. The main loop's `JoinSet` owns their
//! tasks.

use std::sync::Arc;

use ferrolb_proto::facts::ReadContext;
use ferrolb_runtime::watch::WatchStarter;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker_core::event::Event;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::flags::Flags;

/// Starts the watches of the speaker. The watches for BGP start only if the node has a gobgpd.
pub fn start_watches(
    flags: &Flags,
    client: &Client,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
    watchdog: &Arc<Watchdog>,
) {
    let context = ReadContext::of_speaker(&flags.common.namespace, &flags.common.api_group);
    let mut starter = WatchStarter { client, context, events, tasks, watchdog };
    Event::for_each_kind(&mut starter);
    if flags.gobgp.is_some() {
        Event::for_each_bgp_kind(&mut starter);
    }
}
