//! Main loop: passes events to the state, and the resulting [`Desired`] to the drivers. The main
//! loop owns the state and every task.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ferrolb_controller_core::desired::{Desired, NodeNotice};
use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::lease;
use ferrolb_controller_core::node_failure::failures::FailuresOutput;
use ferrolb_controller_core::plan::plan;
use ferrolb_controller_core::state::{Config, Names, State};
use ferrolb_proto::api;
use ferrolb_proto::facts::ReadContext;
use ferrolb_runtime::admin::StateRequest;
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::flags::CommonFlags;
use ferrolb_runtime::watch::{DecodeErrorLog, EVENT_QUEUE_MAX, WatchStarter};
use ferrolb_runtime::watchdog::{HEARTBEAT_INTERVAL, Watchdog};
use jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::drivers::apply::Applier;
use crate::drivers::node_failure::NodeFailureDriver;
use crate::drivers::notices::{self, EventObject, Notices};
use crate::drivers::writer::Writer;
use crate::drivers::{hello_secret, lease as lease_driver};
use crate::flags::Flags;
use crate::metrics::Metrics;

/// Maximum number of events that one pass of the main loop handles before it computes a new
/// [`Desired`].
pub const EVENTS_PER_PASS_MAX: usize = 256;
/// Time for which the main loop waits until the lease driver has released the lease; slightly
/// longer than the driver's own limit, [`lease::RELEASE_TIMEOUT`].
const LEASE_DRIVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Inputs of the main loop, created by `main`.
pub struct Inputs {
    /// Client of the API server.
    pub client: Client,
    /// Availability of the API server.
    pub health: Arc<ApiHealth>,
    /// Heartbeat and readiness of the main loop.
    pub watchdog: Arc<Watchdog>,
    /// Metrics that the loop and the drivers update.
    pub metrics: Metrics,
    /// Requests for `/state` from the admin endpoint.
    pub state_requests: mpsc::Receiver<StateRequest>,
}

/// The watches and their event queue. Both are created again in each leadership term, because the
/// controller may use only lists that began in the current term. A new queue contains no part of an
/// older list.
struct Watches {
    tasks: JoinSet<()>,
    queue: mpsc::Receiver<Event>,
}

impl Watches {
    fn start(client: &Client, flags: &CommonFlags, watchdog: &Arc<Watchdog>) -> Self {
        let (events, queue) = mpsc::channel(EVENT_QUEUE_MAX);
        let mut tasks = JoinSet::new();
        let context = ReadContext::of_controller(&flags.namespace, &flags.api_group);
        let mut starter =
            WatchStarter { client, context, events: &events, tasks: &mut tasks, watchdog };
        Event::for_each_kind(&mut starter);
        if flags.api_group == api::GROUP {
            Event::for_each_own_kind(&mut starter);
        }
        Self { tasks, queue }
    }
}

/// State of the main loop.
struct MainLoop {
    state: State,
    desired: watch::Sender<Desired>,
    client: Client,
    flags: CommonFlags,
    watches: Watches,
    decode_errors: DecodeErrorLog,
    metrics: Arc<Metrics>,
    /// Queue of Kubernetes Events about Nodes.
    notices: Notices,
    health: Arc<ApiHealth>,
    watchdog: Arc<Watchdog>,
    ready: bool,
}

/// Runs the main loop until `leave` completes, then releases the lease.
///
/// # Errors
/// A task that must never end has ended, or the kernel provides no random numbers.
pub async fn run(
    flags: Flags,
    inputs: Inputs,
    leave: impl Future<Output = &'static str>,
) -> anyhow::Result<()> {
    let Inputs { client, health, watchdog, metrics, mut state_requests } = inputs;
    let config = lease_config(&flags)?;
    let metrics = Arc::new(metrics);
    let (desired, reader) = watch::channel(Desired::default());
    let (events, mut queue) = mpsc::channel(EVENT_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    let drivers = (&client, &flags.common, &events);
    let notices = spawn_writers(&mut tasks, drivers, reader, &metrics, &config.identity);
    let (stop_lease, lease_stopped) = oneshot::channel();
    let mut lease_task = JoinSet::new();
    lease_task.spawn(lease_driver::run(
        client.clone(),
        flags.common.namespace.clone(),
        config,
        events,
        lease_stopped,
    ));

    let state = State::new(state_config(&flags));
    let watches = Watches::start(&client, &flags.common, &watchdog);
    let mut main = MainLoop {
        state,
        desired,
        client,
        flags: flags.common,
        watches,
        decode_errors: DecodeErrorLog::default(),
        metrics,
        notices,
        health,
        watchdog,
        ready: false,
    };
    let mut leave = std::pin::pin!(leave);
    // Keep the two batches separate: the pass that handles a new lease must not also handle watch
    // events that arrived before the lease.
    let (mut driver_events, mut watch_events) = (Vec::new(), Vec::new());
    let signal = loop {
        let deadline = main.deadline();
        tokio::select! {
            _ = queue.recv_many(&mut driver_events, EVENTS_PER_PASS_MAX) => main.pass(&mut driver_events),
            _ = main.watches.queue.recv_many(&mut watch_events, EVENTS_PER_PASS_MAX) => main.pass(&mut watch_events),
            Some(request) = state_requests.recv() => request.respond(&main.state.dump()),
            () = Clock::sleep_until(Some(deadline)) => main.pass(&mut vec![Event::Tick]),
            signal = &mut leave => break signal,
            Some(ended) = tasks.join_next() => {
                ended.context("a task panicked")?;
                bail!("a task ended unexpectedly");
            }
            Some(ended) = main.watches.tasks.join_next() => {
                ended.context("a watch panicked")?;
                bail!("a watch ended unexpectedly");
            }
        }
    };
    info!(signal, "stopping");
    // Stop all writes before the lease is released.
    main.desired.send_replace(Desired::default());
    drop(queue);
    drop(stop_lease);
    if tokio::time::timeout(LEASE_DRIVER_TIMEOUT, lease_task.join_next()).await.is_err() {
        warn!("the Lease was not released: another replica takes over when it expires");
    }
    Ok(())
}

fn state_config(flags: &Flags) -> Config {
    let Flags { common: flags, node_failure_endpoints, node_name, .. } = flags;
    Config {
        classes: flags.load_balancer_class.clone(),
        default_implementation: flags.default_implementation,
        names: Names { namespace: flags.namespace.clone(), group: flags.api_group.clone() },
        foreign_custom_resources: flags.api_group != api::GROUP,
        pool_grace: flags.pool_grace,
        node_failure_endpoints: *node_failure_endpoints,
        node: node_name.as_str().into(),
    }
}

impl MainLoop {
    /// Returns the time at which the next pass is due if no event arrives.
    fn deadline(&self) -> ferrolb_proto::Instant {
        let now = Clock::now();
        let next_heartbeat = now + HEARTBEAT_INTERVAL;
        self.state.deadline(now).map_or(next_heartbeat, |deadline| deadline.min(next_heartbeat))
    }

    /// Handles these events, and passes the resulting [`Desired`] to the drivers.
    fn pass(&mut self, batch: &mut Vec<Event>) {
        let now = Clock::now();
        for (kind, object, why) in batch.iter().filter_map(Event::unreadable) {
            self.decode_errors.report(kind, object, why);
        }
        let term = self.state.term();
        self.state.set_unix_time(Timestamp::now().as_second(), now);
        self.state.handle(batch.drain(..), now);
        if self.state.term().is_some_and(|now| term != Some(now)) {
            self.watches = Watches::start(&self.client, &self.flags, &self.watchdog);
        }
        self.metrics.record_latencies(self.state.take_latencies());
        self.publish_node_notices();
        let next = plan(&self.state);
        self.desired.send_if_modified(|desired| {
            let differs = *desired != next;
            *desired = next;
            differs
        });
        self.metrics.update(self.state.metric_values());
        self.watchdog.heartbeat(now);
        if !self.ready {
            self.update_readiness();
        }
    }

    fn publish_node_notices(&mut self) {
        while let Some(NodeNotice { node, fact, notice }) = self.state.next_node_notice() {
            match fact {
                FailuresOutput::Failed(_) => _ = self.metrics.node_failures.inc(),
                FailuresOutput::TooMany { .. } => _ = self.metrics.too_many_silent.inc(),
                FailuresOutput::Returned(_) => {}
            }
            let uid = self.state.node_uid(&node).to_owned();
            self.notices.publish(EventObject::Node(node), &uid, &notice);
        }
    }

    fn update_readiness(&mut self) {
        let missing = self.state.never_listed();
        if missing.is_empty() {
            self.ready = true;
            self.watchdog.ready();
            info!("ready");
        } else if self.health.is_unavailable() {
            self.watchdog.not_ready("waiting for the API server");
        } else {
            self.watchdog
                .not_ready(format!("waiting for the first list of {}", missing.join(", ")));
        }
    }
}

/// Starts the drivers that write to the API server. Returns the queue of Events about Nodes.
fn spawn_writers(
    tasks: &mut JoinSet<()>,
    (client, flags, events): (&Client, &CommonFlags, &mpsc::Sender<Event>),
    desired: watch::Receiver<Desired>,
    metrics: &Arc<Metrics>,
    identity: &str,
) -> Notices {
    let (notices, queued_events) = Notices::new(Arc::clone(metrics));
    tasks.spawn(notices::send(
        client.clone(),
        identity.to_owned(),
        queued_events,
        Arc::clone(metrics),
    ));
    tasks.spawn(hello_secret::run(client.clone(), flags.namespace.clone(), desired.clone()));
    let node_failure = NodeFailureDriver::new(client.clone(), Arc::clone(metrics), desired.clone());
    tasks.spawn(node_failure.run(events.clone()));
    let node_notices = notices.another();
    let writer = Writer {
        applier: Applier::new(client.clone(), flags, desired.clone()),
        desired,
        events: events.clone(),
        notices,
        metrics: Arc::clone(metrics),
    };
    tasks.spawn(writer.run());
    node_notices
}

/// Returns the lease settings from the flags, with a random identity. No other process has this
/// identity, and after a restart this process has a new one.
fn lease_config(flags: &Flags) -> anyhow::Result<lease::LeaseConfig> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = getrandom::u64().context("the kernel returns no random numbers")?;
    Ok(lease::LeaseConfig {
        identity: format!("{}_{random:016x}", host.trim()).into(),
        duration: flags.lease_duration,
        renew_deadline: flags.lease_renew_deadline,
        retry: flags.lease_retry,
    })
}
