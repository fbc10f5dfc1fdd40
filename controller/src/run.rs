//! The main loop: events into the state, the plan out to the drivers. It owns the state and every task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ferrolb_proto::api::{self, Kind};
use ferrolb_proto::facts::{Key, NodeObject, ServiceObject};
use ferrolb_proto::lease;
use ferrolb_runtime::admin::StateRequest;
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::flags::CommonFlags;
use ferrolb_runtime::vitals::{BEAT_INTERVAL, Vitals};
use ferrolb_runtime::watch::{EVENT_QUEUE_MAX, Watch};
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::desired::Desired;
use crate::drivers::apply::Applier;
use crate::drivers::notices::{self, Notices};
use crate::drivers::writer::Writer;
use crate::drivers::{hello_secret, lease as lease_driver};
use crate::event::{Event, Leadership};
use crate::flags::Flags;
use crate::metrics::Metrics;
use crate::plan::plan;
use crate::state::{Config, State};

/// Events that are taken at once, before a new plan is made of them.
pub const EVENTS_PER_PASS_MAX: usize = 256;
/// Unreadable objects whose complaint is remembered, to make it once.
pub const UNREADABLE_SAID_MAX: usize = 1_024;
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

/// The watch of Services with a queue of its own: begun anew with each term, so that nothing of an older list is left over.
struct Services {
    _task: JoinSet<()>,
    queue: mpsc::Receiver<Event>,
}

impl Services {
    fn watch(client: &Client) -> Self {
        let (events, queue) = mpsc::channel(EVENT_QUEUE_MAX);
        let watch = Watch::new("Services", Api::all(client.clone()), |object: ServiceObject| object.into());
        let mut task = JoinSet::new();
        task.spawn(watch.run(events, Event::Service));
        Self { _task: task, queue }
    }
}

/// The loop's own things.
struct Loop {
    state: State,
    desired: watch::Sender<Desired>,
    client: Client,
    services: Services,
    unreadable: BTreeMap<(&'static str, Key), String>,
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
    watch_all(&mut tasks, &client, &flags.common, &events);
    write_all(&mut tasks, &client, &flags.common, &events, wanted, &metrics, &config.identity);
    let (go, going) = oneshot::channel();
    let mut lease_task = JoinSet::new();
    lease_task.spawn(lease_driver::run(client.clone(), flags.common.namespace.clone(), config, events, going));

    let state = State::new(Config {
        classes: flags.common.load_balancer_class.clone(),
        default_implementation: flags.common.default_implementation,
    });
    let services = Services::watch(&client);
    let mut main =
        Loop { state, desired, client, services, unreadable: BTreeMap::new(), metrics, health, vitals, ready: false };
    let mut leave = std::pin::pin!(leave);
    // Never mixed: what follows a gained lease in one queue must not come from before it in the other.
    let (mut batch, mut of_services) = (Vec::new(), Vec::new());
    let signal = loop {
        let deadline = main.deadline();
        tokio::select! {
            _ = queue.recv_many(&mut batch, EVENTS_PER_PASS_MAX) => main.pass(&mut batch),
            _ = main.services.queue.recv_many(&mut of_services, EVENTS_PER_PASS_MAX) => main.pass(&mut of_services),
            Some(request) = state_requests.recv() => request.answer(&main.state.dump(Clock::now())),
            () = Clock::sleep_until(Some(deadline)) => main.pass(&mut vec![Event::Tick]),
            signal = &mut leave => break signal,
            Some(ended) = tasks.join_next() => {
                ended.context("a task has crashed")?;
                bail!("a task has ended that never should");
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
        for event in batch.drain(..) {
            self.complain(&event);
            let gained = matches!(event, Event::Lease(Leadership::Gained));
            self.state.handle(event, now);
            if gained {
                self.services = Services::watch(&self.client);
            }
        }
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

    /// Says once that an object cannot be read.
    fn complain(&mut self, event: &Event) {
        let Some((kind, key, why)) = event.unreadable() else { return };
        let known = (kind, key.clone());
        if self.unreadable.get(&known).is_some_and(|said| said == why) {
            return;
        }
        if self.unreadable.len() < UNREADABLE_SAID_MAX {
            self.unreadable.insert(known, why.to_owned());
        }
        warn!(kind, object = %key, why, "an object cannot be read; all others are not affected");
    }
}

fn watch_all(tasks: &mut JoinSet<()>, client: &Client, flags: &CommonFlags, events: &mpsc::Sender<Event>) {
    let nodes = Watch::new("Nodes", Api::all(client.clone()), |object: NodeObject| object.into());
    tasks.spawn(nodes.run(events.clone(), Event::Node));
    let resource = |kind| api::resource(kind, &flags.api_group);
    let pools = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::IPAddressPool));
    let pools = Watch::new("IPAddressPools", pools, |object: api::Pool| object.into());
    tasks.spawn(pools.run(events.clone(), Event::Pool));
    let ads = Api::namespaced_with(client.clone(), &flags.namespace, &resource(Kind::L2Advertisement));
    let ads = Watch::new("L2Advertisements", ads, |object: api::L2| object.into());
    tasks.spawn(ads.run(events.clone(), Event::Advertisement));
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
        applier: Applier::new(client.clone(), flags),
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
