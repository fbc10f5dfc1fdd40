//! The main loop, on the process's one tokio thread: receives events, owns the [`State`], computes
//! plans, and passes their output to the drivers. The main loop owns every task. If a task ends,
//! this is a bug, and the process ends with an error.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ferrolb_proto::Instant;
use ferrolb_proto::api;
use ferrolb_runtime::admin::{self, StateRequest};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::connect::connect;
use ferrolb_runtime::signals;
use ferrolb_runtime::watch::{DecodeErrorLog, EVENT_QUEUE_MAX};
use ferrolb_runtime::watchdog::{HEARTBEAT_INTERVAL, Watchdog};
use ferrolb_speaker_core::claim::{HANDOVER_TIMEOUT, Move};
use ferrolb_speaker_core::event::{Event, LinkReport};
use ferrolb_speaker_core::health::kube_proxy;
use ferrolb_speaker_core::health::prober::CheckDefaults;
use ferrolb_speaker_core::plan::{
    BgpConfig, Desired, HealthChecks, Memo, NodeWatchConfig, ProxyTargets, plan,
};
use ferrolb_speaker_core::state::{Changes, State, StateConfig};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::bgp::driver;
use crate::bgp::inputs::DriverInputs;
use crate::flags::Flags;
use crate::health::proxy::ProxyHealthDriver;
use crate::health::{probes, rules};
use crate::link::{ClaimSettings, LinkSet, SecondPath};
use crate::metrics::probes::ProbeMetrics;
use crate::metrics::{BgpMetrics, Metrics, ProxyHealthMetrics, SecondPathMetrics};
use crate::node_lock::NodeLock;
use crate::node_watch::{NodeWatchDriver, REPLIES_MAX};
use crate::status::{self, StatusWriter};
use crate::watches::start_watches;
use crate::{links, routes};

/// Maximum number of events that are handled before the next plan is computed. A burst of events
/// thus costs few plans, and no event waits long for its plan.
const EVENTS_PER_PLAN_MAX: usize = 256;
/// Time that the ending process waits for the handover of its addresses, in addition to
/// [`HANDOVER_TIMEOUT`], which limits the handover of each interface's thread.
const HANDOVER_GRACE: Duration = Duration::from_millis(500);
/// Maximum number of addresses that one log line lists.
const ADDRESSES_PER_LINE_MAX: usize = 16;

/// Runs the speaker until the process has received a signal to end and has handed over its
/// addresses.
///
/// # Errors
///
/// Errors that make the speaker useless, such as credentials that can never work, or a task that
/// has ended.
pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut termination = pin!(signals::termination().context("cannot handle signals")?);
    let _lock = tokio::select! {
        lock = NodeLock::acquire(&flags.common.namespace, &flags.node_name) => lock,
        _ = &mut termination => return Ok(()),
    };
    run_instance(flags, termination).await
}

async fn run_instance(
    flags: Flags,
    termination: Pin<&mut impl Future<Output = &'static str>>,
) -> anyhow::Result<()> {
    let mut registry = admin::registry();
    let speaker_registry = registry.sub_registry_with_prefix("speaker");
    let (metrics, proxy_metrics, probe_metrics, second_path_metrics) = (
        Metrics::new(speaker_registry),
        ProxyHealthMetrics::new(speaker_registry),
        ProbeMetrics::new(speaker_registry),
        SecondPathMetrics::new(speaker_registry),
    );
    let health = ApiHealth::new(&mut registry);
    let (bgp, bgp_endpoints) = DriverInputs::new(&flags, &mut registry).unzip();
    let (bgp_admin, bgp_metrics) =
        bgp_endpoints.map(|bgp| ((bgp.handover, bgp.companion), bgp.metrics)).unzip();
    let client = connect(&health).await?;
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (handover, companion) = bgp_admin.unzip();
    let (_admin, requests) =
        admin::serve(flags.common.listen(), registry, Arc::clone(&watchdog), handover, companion);

    let (sender, events) = mpsc::channel(EVENT_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    start_watches(&flags, &client, &sender, &mut tasks, &watchdog);
    tasks.spawn(links::run(sender.clone()));
    tasks.spawn(routes::run(sender.clone()));
    let (status, statuses) = watch::channel(status::DesiredStatus::default());
    // Only FerroLB's own API group has the kind SpeakerStatus.
    if flags.common.api_group == api::GROUP {
        let (namespace, node) = (&flags.common.namespace, &flags.node_name);
        tasks.spawn(StatusWriter::new(client.clone(), namespace, node).run(statuses));
    }
    let (proxy_targets, probes) =
        spawn_health_checks(&flags, &sender, &mut tasks, proxy_metrics, probe_metrics);
    let (bgp_config, bgp_config_receiver) = watch::channel(None);
    if let Some(bgp) = bgp {
        tasks.spawn(driver::run(bgp, bgp_config_receiver, sender.clone()));
    }

    let (second_path, node_watch) =
        start_second_path(&flags, second_path_metrics, &sender, &mut tasks)?;
    let links = LinkSet::new(
        claim_settings(&flags),
        metrics.clone(),
        Arc::clone(&watchdog),
        second_path.clone(),
        sender,
    );
    let state = State::new(state_config(flags));
    let main = MainLoop {
        state,
        memo: Memo::default(),
        desired: Desired::default(),
        links,
        second_path,
        node_watch,
        status,
        proxy_targets,
        probes,
        bgp_config,
        metrics,
        bgp_metrics,
        watchdog,
        decode_errors: DecodeErrorLog::default(),
    };
    main.run(termination, events, requests, tasks).await
}

/// Starts the second path, and the driver that watches other nodes, which the returned sender
/// configures. None: `--challenge-port` is 0.
fn start_second_path(
    flags: &Flags,
    metrics: SecondPathMetrics,
    sender: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Option<Arc<SecondPath>>, watch::Sender<NodeWatchConfig>)> {
    let (node_watch, config) = watch::channel(NodeWatchConfig::default());
    if flags.challenge_port == 0 {
        return Ok((None, node_watch));
    }
    let (replies, received_replies) = mpsc::channel(REPLIES_MAX);
    let node = &*flags.node_name;
    let second_path = SecondPath::start(flags.challenge_port, node, metrics, replies)
        .context("cannot start the thread for UDP challenges")?;
    let seed = getrandom::u64().context("the kernel returns no random numbers")?;
    let driver = NodeWatchDriver::new(node, seed, Arc::clone(&second_path), sender.clone());
    // Only FerroLB's own API group has the kind SpeakerStatus, which carries the reports.
    if flags.common.api_group == api::GROUP {
        tasks.spawn(driver.run(config, received_replies));
    }
    Ok((Some(second_path), node_watch))
}

/// Starts the health checks of kube-proxy and of endpoints. Returns the channels through which the
/// main loop configures these checks.
fn spawn_health_checks(
    flags: &Flags,
    sender: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
    proxy_metrics: ProxyHealthMetrics,
    probe_metrics: ProbeMetrics,
) -> (watch::Sender<ProxyTargets>, watch::Sender<HealthChecks>) {
    let (proxy_targets, proxy_targets_receiver) = watch::channel(ProxyTargets::default());
    let (mode, fall, rise) = (flags.kube_proxy_health, flags.health_fall, flags.health_rise);
    let proxy_config = kube_proxy::KubeProxyConfig { mode, fall, rise };
    tasks.spawn(
        ProxyHealthDriver::new(proxy_config, flags.health_interval, proxy_metrics, sender.clone())
            .run(proxy_targets_receiver),
    );
    if mode != kube_proxy::KubeProxyMode::Off {
        tasks.spawn(rules::run(proxy_targets.subscribe(), sender.clone()));
    }
    let (probes, wanted) = watch::channel(HealthChecks::default());
    tasks.spawn(probes::run(wanted, sender.clone(), probe_metrics));
    (proxy_targets, probes)
}

fn state_config(flags: Flags) -> StateConfig {
    StateConfig {
        node: flags.node_name.into(),
        classes: flags.common.load_balancer_class,
        default_implementation: flags.common.default_implementation,
        pool_grace: flags.common.pool_grace,
        ignore_exclude_label: flags.ignore_exclude_label,
        exclude_interfaces: flags.exclude_interfaces,
        kube_proxy_address: flags.kube_proxy_address,
        gobgp: flags.gobgp.is_some(),
        health_check_defaults: CheckDefaults {
            interval: flags.health_interval,
            fall: flags.health_fall,
            rise: flags.health_rise,
        },
        checked_ranges: flags.health_checks.0,
    }
}

fn claim_settings(flags: &Flags) -> ClaimSettings {
    ClaimSettings {
        node: flags.node_name.as_str().into(),
        hello_interval: flags.hello_interval,
        hello_misses_max: flags.hello_misses,
        detection_time_max: flags.detection_time_max,
        preempt_delay: flags.failback_delay.0,
        gratuitous_interval: flags.gratuitous_interval.0,
    }
}

/// State and outputs of the main loop.
struct MainLoop {
    state: State,
    memo: Memo,
    desired: Desired,
    links: LinkSet,
    /// The second path. None: `--challenge-port` is 0.
    second_path: Option<Arc<SecondPath>>,
    /// Configuration of the driver that watches other nodes.
    node_watch: watch::Sender<NodeWatchConfig>,
    status: watch::Sender<status::DesiredStatus>,
    proxy_targets: watch::Sender<ProxyTargets>,
    probes: watch::Sender<HealthChecks>,
    /// Desired BGP configuration. None: not known yet.
    bgp_config: watch::Sender<Option<BgpConfig>>,
    metrics: Metrics,
    /// Metrics of BGP. None: this node has no gobgpd.
    bgp_metrics: Option<BgpMetrics>,
    watchdog: Arc<Watchdog>,
    decode_errors: DecodeErrorLog,
}

impl MainLoop {
    async fn run(
        mut self,
        mut termination: Pin<&mut impl Future<Output = &'static str>>,
        mut events: mpsc::Receiver<Event>,
        mut requests: mpsc::Receiver<StateRequest>,
        mut tasks: JoinSet<()>,
    ) -> anyhow::Result<()> {
        info!(
            node = self.state.node_name(),
            version = env!("CARGO_PKG_VERSION"),
            "speaker started"
        );
        let mut handover_deadline: Option<Instant> = None;
        let mut changed = true;
        loop {
            let now = Clock::now();
            self.watchdog.heartbeat(now);
            let expired = self.state.expire(now);
            changed |= self.note(expired);
            if std::mem::take(&mut changed)
                || self.desired.replan_at.is_some_and(|wake| wake <= now)
            {
                self.replan(now)?;
            }
            if self.desired.handed_over || handover_deadline.is_some_and(|by| by <= now) {
                info!("speaker ended");
                return Ok(());
            }
            let wake = [self.desired.replan_at, handover_deadline, self.state.deadline()]
                .into_iter()
                .flatten()
                .chain([now + HEARTBEAT_INTERVAL])
                .min();
            tokio::select! {
                Some(event) = events.recv() => {
                    changed = self.handle(event);
                    for _ in 1..EVENTS_PER_PLAN_MAX {
                        let Ok(event) = events.try_recv() else { break };
                        changed |= self.handle(event);
                    }
                }
                Some(request) = requests.recv() => {
                    request.respond(&json!({"state": self.state.dump(), "desired": self.desired.dump(&self.state, &self.memo)}));
                }
                signal = &mut termination, if handover_deadline.is_none() => {
                    info!(signal, "stopping: handing over the addresses of this node");
                    self.second_path.iter().for_each(|second_path| second_path.leave());
                    changed = self.handle(Event::StopRequested);
                    handover_deadline = Some(Clock::now() + HANDOVER_TIMEOUT + HANDOVER_GRACE);
                }
                Some(ended) = tasks.join_next() => bail!("a task ended unexpectedly: {ended:?}"),
                () = Clock::sleep_until(wake) => {}
            }
        }
    }

    /// Computes a plan and passes it to the drivers.
    fn replan(&mut self, now: Instant) -> anyhow::Result<()> {
        let desired = plan(&self.state, &mut self.memo, now);
        self.metrics.plan.observe(Clock::now().since(now).as_secs_f64());
        if let Some(second_path) = &self.second_path {
            second_path.set_health_checked(self.state.kube_proxy_works());
            if !Arc::ptr_eq(&self.desired.second_path, &desired.second_path) {
                second_path.set_config(Arc::clone(&desired.second_path));
            }
        }
        self.links.apply(&desired.links).context("the kernel returns no random numbers")?;
        // Before this node's interfaces are known, the status would list none of them.
        if self.state.links().is_some() {
            let owner = self.state.own_node().map_or("", |node| &node.uid);
            status::publish(&self.status, owner, &desired.status, &desired.owned);
        }
        publish(&self.node_watch, &desired.node_watch);
        publish(&self.proxy_targets, &desired.proxy_targets);
        publish(&self.probes, &desired.probes);
        publish(&self.bgp_config, &desired.bgp);
        if let Some(bgp) = &self.bgp_metrics {
            publish(&bgp.sessions, &desired.session_metrics);
            bgp.prefixes_over_limit
                .set(i64::try_from(desired.prefixes_over_limit).unwrap_or(i64::MAX));
        }
        if desired.addresses != self.desired.addresses {
            self.metrics.set_addresses(&desired.addresses);
        }
        match (&self.desired.not_ready_reason, &desired.not_ready_reason) {
            (Some(_), None) => {
                info!("speaker ready");
                self.watchdog.ready();
            }
            (_, Some(why)) => self.watchdog.not_ready(why.as_str()),
            (None, None) => self.watchdog.ready(),
        }
        if desired.exclusion_ignored && !self.desired.exclusion_ignored {
            info!(
                "every Node has the label node.kubernetes.io/exclude-from-external-load-balancers: \
                 it is ignored, or no address could be announced"
            );
        }
        for link in desired.waiting_for_speaker.difference(&self.desired.waiting_for_speaker) {
            info!(
                %link,
                "announcing nothing on this interface until another speaker is received there: it \
                 has neither the Node's InternalIP nor a subnet with addresses of a pool, and no \
                 advertisement names it in spec.interfaces"
            );
        }
        match (self.desired.drain_reason, desired.drain_reason) {
            (before, Some(why)) if before != Some(why) => {
                info!(why, "draining: other nodes take over the addresses of this one")
            }
            (Some(_), None) => info!("no longer draining"),
            (_, Some(_)) | (None, None) => {}
        }
        self.desired = desired;
        Ok(())
    }

    /// Handles one event. Returns whether a new plan is needed.
    fn handle(&mut self, event: Event) -> bool {
        if let Some((kind, object, why)) = event.unreadable() {
            self.decode_errors.report(kind, object, why);
        }
        if let Event::Report { link, report } = &event {
            self.log_report(*link, report);
        }
        if let Event::LinkFailed { link, why } = &event {
            self.log_failure(*link, why);
        }
        let changes = self.state.handle(event, Clock::now());
        self.note(changes)
    }

    /// Notes changed parts of the plan. Returns whether a new plan is needed.
    fn note(&mut self, changes: Changes) -> bool {
        let plan_needed = !changes.is_empty();
        self.memo.add(changes);
        plan_needed
    }

    fn link_name(&self, index: u32) -> &str {
        self.state.links().and_then(|links| links.get(&index)).map_or("?", |link| &link.name)
    }

    /// Logs the addresses that an interface started and stopped announcing, and the speakers that
    /// it receives.
    fn log_report(&self, index: u32, report: &LinkReport) {
        let link = self.link_name(index);
        let empty = LinkReport::default();
        let before = self.state.report(index).unwrap_or(&empty);
        let list = |of: &LinkReport, without: &LinkReport| {
            let differences = of.owned.differences(&without.owned);
            let new: Vec<_> =
                differences.filter(|entry| entry.before.is_none()).map(|entry| entry.key).collect();
            let more = if new.len() > ADDRESSES_PER_LINE_MAX { " …" } else { "" };
            let named: Vec<_> =
                new.iter().take(ADDRESSES_PER_LINE_MAX).map(ToString::to_string).collect();
            (new.len(), named.join(" ") + more)
        };
        let (started, stopped) = (list(report, before), list(before, report));
        if started.0 > 0 {
            info!(link, count = started.0, addresses = started.1, "announcing");
        }
        if stopped.0 > 0 {
            info!(link, count = stopped.0, addresses = stopped.1, "no longer announcing");
        }
        let (moves, further) = report.moves_since(before);
        for Move { address, from, to, cause, .. } in moves {
            let (from, cause) = (from.as_deref().unwrap_or("none"), cause.name());
            info!(link, %address, from, to = &**to, cause, "address moved");
        }
        if further > 0 {
            info!(link, count = further, "further addresses moved");
        }
        if report.speakers != before.speakers {
            info!(link, speakers = report.speakers.join(" "), "live speakers on this interface");
        }
        if let Some(late) = report.late_hellos.filter(|_| before.late_hellos.is_none()) {
            let (by, detection) = (late.by.as_millis(), late.detection_time.as_millis());
            warn!(
                link,
                late_ms = by,
                detection_ms = detection,
                "hello frames of this node are late, so its failover takes longer: give the \
                   speaker more CPU"
            );
        } else if report.late_hellos.is_none() && before.late_hellos.is_some() {
            info!(link, "hello frames of this node are in time again");
        }
        if report.unheard != before.unheard && !report.unheard.is_empty() {
            warn!(
                link,
                nodes = report.unheard.join(" "),
                "frames of EtherType 0x88B5 from these \
                   nodes do not arrive on this interface, although their speakers run: let packet \
                   filters (nftables, ebtables), switches and hypervisors pass these frames"
            );
        } else if report.unheard != before.unheard {
            info!(link, "frames of EtherType 0x88B5 from all live speakers arrive again");
        }
    }

    /// Logs the failure of an interface's thread: a warning for the first failure of an interface
    /// that the speaker uses, otherwise debug output.
    fn log_failure(&self, index: u32, why: &str) {
        let link = self.link_name(index);
        let in_use = self.desired.links.contains_key(&index);
        if in_use && !self.state.has_failed(index) {
            warn!(link, why, "interface cannot be used, retrying");
        } else {
            debug!(link, why, "interface cannot be used");
        }
    }
}

/// Sends the desired value to a driver, if the value has changed.
fn publish<T: Clone + PartialEq>(driver: &watch::Sender<T>, wanted: &T) {
    driver.send_if_modified(|before| {
        let changed = before != wanted;
        if changed {
            before.clone_from(wanted);
        }
        changed
    });
}
