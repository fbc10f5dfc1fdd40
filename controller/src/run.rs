//! The main loop: events into the state, the plan out to the drivers. It owns the state and every task.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ferrolb_proto::api::{self, Kind};
use ferrolb_proto::facts::{NamespaceObject, NodeObject, SLICES_OF_SERVICES, Service, ServiceObject, SliceObject};
use ferrolb_proto::lease;
use ferrolb_runtime::admin::StateRequest;
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::flags::CommonFlags;
use ferrolb_runtime::vitals::{BEAT_INTERVAL, Vitals};
use ferrolb_runtime::watch::{Complaints, EVENT_QUEUE_MAX, Watch};
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::desired::Desired;
use crate::drivers::apply::Applier;
use crate::drivers::notices::{self, Notices};
use crate::drivers::writer::Writer;
use crate::drivers::{hello_secret, lease as lease_driver, status_fields};
use crate::event::Event;
use crate::flags::Flags;
use crate::metrics::Metrics;
use crate::plan::plan;
use crate::state::{Config, State};

/// Events that are taken at once, before a new plan is made of them.
pub const EVENTS_PER_PASS_MAX: usize = 256;
/// How long the lease driver may take to give the lease back: its own limit and a little.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What `main` makes for the loop.
pub struct Shell {
    /// The API server.
    pub client: Client,
    /// Whether it answers.
    pub health: Arc<ApiHealth>,
    /// Where the loop says that it lives and is ready.
    pub vitals: Arc<Vitals>,
    /// Where it counts.
    pub metrics: Metrics,
    /// Clients of `/state`.
    pub state_requests: mpsc::Receiver<StateRequest>,
}

/// The watches, with a queue of their own: begun anew with each term, so that nothing of an older list is left over. Which
/// addresses there are to give is of no use in an older version than who has them.
struct Watches {
    tasks: JoinSet<()>,
    queue: mpsc::Receiver<Event>,
}

impl Watches {
    fn begin(client: &Client, flags: &CommonFlags, vitals: &Arc<Vitals>) -> Self {
        let (events, queue) = mpsc::channel(EVENT_QUEUE_MAX);
        let mut tasks = JoinSet::new();
        let group = flags.api_group.clone();
        let read = move |object: ServiceObject| Service::read(object, &group);
        let services = Watch::new("Services", Api::all(client.clone()), read);
        tasks.spawn(services.run(events.clone(), Event::Service, Arc::clone(vitals)));
        let slices = Watch::new("EndpointSlices", Api::all(client.clone()), |object: SliceObject| object.into());
        tasks.spawn(slices.labels(SLICES_OF_SERVICES).run(events.clone(), Event::Slice, Arc::clone(vitals)));
        let nodes = Watch::new("Nodes", Api::all(client.clone()), |object: NodeObject| object.into());
        tasks.spawn(nodes.run(events.clone(), Event::Node, Arc::clone(vitals)));
        let namespaces = Watch::new("Namespaces", Api::all(client.clone()), |object: NamespaceObject| object.into());
        tasks.spawn(namespaces.run(events.clone(), Event::Namespace, Arc::clone(vitals)));
        let resource = |kind| api::resource(kind, &flags.api_group);
        let pools = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::IPAddressPool));
        let pools = Watch::new("IPAddressPools", pools, |object: api::Pool| object.into());
        tasks.spawn(pools.run(events.clone(), Event::Pool, Arc::clone(vitals)));
        let ads = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::L2Advertisement));
        let ads = Watch::new("L2Advertisements", ads, |object: api::L2| object.into());
        tasks.spawn(ads.run(events.clone(), Event::Advertisement, Arc::clone(vitals)));
        let names = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::Community));
        let names = Watch::new("Communities", names, |object: api::Aliases| object.into());
        tasks.spawn(names.run(events.clone(), Event::Community, Arc::clone(vitals)));
        let peers = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::BGPPeer));
        let peers = Watch::new("BGPPeers", peers, |object: api::Router| object.into());
        tasks.spawn(peers.run(events.clone(), Event::Peer, Arc::clone(vitals)));
        let ads = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::BGPAdvertisement));
        let ads = Watch::new("BGPAdvertisements", ads, |object: api::Bgp| object.into());
        tasks.spawn(ads.run(events.clone(), Event::BgpAdvertisement, Arc::clone(vitals)));
        let profiles = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::BFDProfile));
        let profiles = Watch::new("BFDProfiles", profiles, |object: api::Bfd| object.into());
        tasks.spawn(profiles.run(events.clone(), Event::BfdProfile, Arc::clone(vitals)));
        // Another group's CRDs have none.
        if flags.api_group == api::GROUP {
            let speakers = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::SpeakerStatus));
            let speakers = Watch::new("SpeakerStatuses", speakers, |object: api::Speaker| object.into());
            tasks.spawn(speakers.run(events, Event::Speaker, Arc::clone(vitals)));
        }
        Self { tasks, queue }
    }
}

/// The loop's own things.
struct Loop {
    state: State,
    desired: watch::Sender<Desired>,
    client: Client,
    flags: CommonFlags,
    watches: Watches,
    complaints: Complaints,
    metrics: Arc<Metrics>,
    health: Arc<ApiHealth>,
    vitals: Arc<Vitals>,
    ready: bool,
}

/// Runs until `leave` completes; then the lease is given back.
///
/// # Errors
/// When a task has ended that never should, or there are no random numbers.
pub async fn run(flags: Flags, shell: Shell, leave: impl Future<Output = &'static str>) -> anyhow::Result<()> {
    let Shell { client, health, vitals, metrics, mut state_requests } = shell;
    let config = lease_config(&flags)?;
    let metrics = Arc::new(metrics);
    let (desired, wanted) = watch::channel(Desired::default());
    let (events, mut queue) = mpsc::channel(EVENT_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    // Our own CRDs have all that we write; of another group's the cluster has to be asked.
    if flags.common.api_group != api::GROUP {
        tasks.spawn(status_fields::run(client.clone(), flags.common.api_group.clone(), events.clone()));
    }
    write_all(&mut tasks, &client, &flags.common, &events, wanted, &metrics, &config.identity);
    let (go, going) = oneshot::channel();
    let mut lease_task = JoinSet::new();
    lease_task.spawn(lease_driver::run(client.clone(), flags.common.namespace.clone(), config, events, going));

    let state = State::new(Config {
        classes: flags.common.load_balancer_class.clone(),
        default_implementation: flags.common.default_implementation,
        group: flags.common.api_group.clone(),
    });
    let watches = Watches::begin(&client, &flags.common, &vitals);
    let complaints = Complaints::default();
    let mut main = Loop {
        state,
        desired,
        client,
        flags: flags.common,
        watches,
        complaints,
        metrics,
        health,
        vitals,
        ready: false,
    };
    let mut leave = std::pin::pin!(leave);
    // Never mixed: what follows a gained lease in one queue must not come from before it in the other.
    let (mut batch, mut seen) = (Vec::new(), Vec::new());
    let signal = loop {
        let deadline = main.deadline();
        tokio::select! {
            _ = queue.recv_many(&mut batch, EVENTS_PER_PASS_MAX) => main.pass(&mut batch),
            _ = main.watches.queue.recv_many(&mut seen, EVENTS_PER_PASS_MAX) => main.pass(&mut seen),
            Some(request) = state_requests.recv() => request.answer(&main.state.dump(Clock::now())),
            () = Clock::sleep_until(Some(deadline)) => main.pass(&mut vec![Event::Tick]),
            signal = &mut leave => break signal,
            Some(ended) = tasks.join_next() => {
                ended.context("a task has crashed")?;
                bail!("a task has ended that never should");
            }
            Some(ended) = main.watches.tasks.join_next() => {
                ended.context("a watch has crashed")?;
                bail!("a watch has ended that never should");
            }
        }
    };
    info!(signal, "leaving");
    // First no more writes, then no more lease.
    main.desired.send_replace(Desired::default());
    drop(queue);
    drop(go);
    if tokio::time::timeout(LEAVE_TIMEOUT, lease_task.join_next()).await.is_err() {
        warn!("the lease could not be given back: another replica has to wait for its end");
    }
    Ok(())
}

impl Loop {
    /// When the loop has to go on even if nothing happens.
    fn deadline(&self) -> ferrolb_proto::Instant {
        let now = Clock::now();
        let beat = now + BEAT_INTERVAL;
        self.state.deadline(now).map_or(beat, |deadline| deadline.min(beat))
    }

    /// Takes these events, and tells the drivers what follows from them.
    fn pass(&mut self, batch: &mut Vec<Event>) {
        let now = Clock::now();
        for (kind, object, why) in batch.iter().filter_map(Event::unreadable) {
            self.complaints.hear(kind, object, why);
        }
        let term = self.state.term();
        self.state.handle(batch.drain(..), now);
        if self.state.term().is_some_and(|now| term != Some(now)) {
            self.watches = Watches::begin(&self.client, &self.flags, &self.vitals);
        }
        self.metrics.allocated(self.state.take_latencies());
        let next = plan(&self.state, now);
        self.desired.send_if_modified(|desired| {
            let differs = *desired != next;
            *desired = next;
            differs
        });
        self.metrics.show(self.state.figures());
        self.vitals.beat(now);
        if !self.ready {
            self.tell_readiness();
        }
    }

    fn tell_readiness(&mut self) {
        let missing = self.state.never_listed();
        if missing.is_empty() {
            self.ready = true;
            self.vitals.ready();
            info!("ready");
        } else if self.health.is_away() {
            self.vitals.not_ready("waiting for the API server");
        } else {
            self.vitals.not_ready(format!("waiting for the first list of {}", missing.join(", ")));
        }
    }
}

fn write_all(
    tasks: &mut JoinSet<()>,
    client: &Client,
    flags: &CommonFlags,
    events: &mpsc::Sender<Event>,
    desired: watch::Receiver<Desired>,
    metrics: &Arc<Metrics>,
    identity: &str,
) {
    let (notices, waiting) = Notices::new(Arc::clone(metrics));
    tasks.spawn(notices::send(client.clone(), identity.to_owned(), waiting, Arc::clone(metrics)));
    tasks.spawn(hello_secret::run(client.clone(), flags.namespace.clone(), desired.clone()));
    let writer = Writer {
        applier: Applier::new(client.clone(), flags, desired.clone()),
        desired,
        events: events.clone(),
        notices,
        metrics: Arc::clone(metrics),
    };
    tasks.spawn(writer.run());
}

/// The lease as the flags say, for an identity that no other process has, nor this one after a restart.
fn lease_config(flags: &Flags) -> anyhow::Result<lease::Config> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = getrandom::u64().context("the kernel gives no random numbers")?;
    Ok(lease::Config {
        identity: format!("{}_{random:016x}", host.trim()).into(),
        duration: flags.lease_duration,
        renew_deadline: flags.lease_renew_deadline,
        retry: flags.lease_retry,
    })
}
