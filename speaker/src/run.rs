//! The main loop, on the process's one tokio thread: takes events, keeps the one [`State`], plans, and hands what is wanted to
//! the drivers. It owns every task; one that ends is a bug, and ends the process.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ferrolb_proto::Instant;
use ferrolb_proto::api::{self, HELLO_SECRET, Kind, resource};
use ferrolb_proto::bgp::Doubted;
use ferrolb_proto::claim::LEAVE_MAX;
use ferrolb_proto::facts::{NodeObject, SLICES_OF_SERVICES, Service, ServiceObject, SliceObject};
use ferrolb_proto::health::data_path;
use ferrolb_proto::health::prober::Defaults;
use ferrolb_proto::wire::hello::KeyRing;
use ferrolb_runtime::admin::{self, Action, StateRequest, Ward};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::connect::connect;
use ferrolb_runtime::signals;
use ferrolb_runtime::vitals::{BEAT_INTERVAL, Vitals};
use ferrolb_runtime::watch::{Complaints, EVENT_QUEUE_MAX, Watch};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::alive;
use crate::bgp::driver;
use crate::event::{Event, LinkReport};
use crate::flags::Flags;
use crate::health::probes;
use crate::health::proxy::ProxyHealth;
use crate::instance::Instance;
use crate::link::{LinkSet, Protocol};
use crate::links;
use crate::metrics::probes::ProbeMetrics;
use crate::metrics::{BgpMetrics, DataPathMetrics, Metrics, bgp_metrics};
use crate::plan::{Desired, Probes, Questions, Wanted, plan};
use crate::speakers;
use crate::state::{Config, State};
use crate::status::{self, StatusWriter};

/// Events that are taken before the next plan: a burst costs one plan, and a plan is never far.
const EVENTS_PER_PLAN_MAX: usize = 256;
/// Secrets that are not Helm's: those have a megabyte each, and nobody's password.
const NO_RELEASES: &str = "type!=helm.sh/release.v1";
/// How long the end of the process waits for the links beyond what their machines take.
const LEAVE_GRACE: Duration = Duration::from_millis(500);
/// Addresses that one line of the log names.
const ADDRESSES_PER_LINE_MAX: usize = 16;

/// Runs the speaker until it is asked to end and has handed over its addresses.
///
/// # Errors
/// What makes the program useless: credentials that can never work, a task that ended.
pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut leave = pin!(signals::termination().context("cannot take SIGTERM")?);
    let _instance = tokio::select! {
        instance = Instance::take(&flags.common.namespace, &flags.node_name) => instance,
        _ = &mut leave => return Ok(()),
    };
    speak(flags, leave).await
}

async fn speak(flags: Flags, leave: Pin<&mut impl Future<Output = &'static str>>) -> anyhow::Result<()> {
    let mut registry = admin::registry();
    let own = registry.sub_registry_with_prefix("speaker");
    let (metrics, path_metrics, probe_metrics) = (Metrics::new(own), DataPathMetrics::new(own), ProbeMetrics::new(own));
    let health = ApiHealth::new(&mut registry);
    let (bgp_metrics, tally) = flags.gobgp.as_ref().map(|_| bgp_metrics(&mut registry)).unzip();
    let client = connect(&health).await?;
    let vitals = Arc::new(Vitals::new(Clock::now()));
    let (handover, handovers) = flags.gobgp.as_ref().map(|_| Action::new(driver::HANDOVER)).unzip();
    let (ward, answers) = flags.gobgp.as_ref().map(|_| Ward::new(driver::HEALTHZ)).unzip();
    let (_admin, requests) = admin::serve(flags.common.listen(), registry, Arc::clone(&vitals), handover, ward);

    let (sender, events) = mpsc::channel(EVENT_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    watch_all(&flags, &client, &sender, &mut tasks, &vitals);
    tasks.spawn(links::run(sender.clone()));
    let (status, statuses) = watch::channel(status::Wanted::default());
    let common = &flags.common;
    // Another group has no SpeakerStatus.
    let own_kinds = common.api_group == api::GROUP;
    if own_kinds {
        tasks.spawn(StatusWriter::new(client.clone(), &common.namespace, &flags.node_name).run(statuses));
    }
    let (questions, asked) = watch::channel(Questions::default());
    let (mode, fall, rise) = (flags.kube_proxy_health, flags.health_fall, flags.health_rise);
    let path = data_path::Config { mode, fall, rise };
    tasks.spawn(ProxyHealth::new(path, flags.health_interval, path_metrics, sender.clone()).run(asked));
    let (probes, wanted) = watch::channel(Probes::default());
    tasks.spawn(probes::run(wanted, sender.clone(), probe_metrics));

    let (routes, announced) = watch::channel(None);
    let ((speakers, watched), (doubted, asked)) = (watch::channel(false), watch::channel(Doubted::new()));
    let gobgp = flags.gobgp.is_some();
    let bgp = bgp_metrics.as_ref().zip(tally).zip(handovers).zip(answers);
    if let Some((socket, (((shown, tally), handovers), answers))) = flags.gobgp.clone().zip(bgp) {
        watch_bgp(&flags, &client, &sender, &mut tasks, &vitals);
        tasks.spawn(alive::run(common.admin_listen.port(), asked, sender.clone(), shown.unanswered.clone()));
        tasks.spawn(driver::run((socket, answers), announced, handovers, sender.clone(), tally));
        let told = (health, Arc::clone(&vitals));
        tasks.spawn(speakers::run((client, common.namespace.clone()), told, watched, sender.clone()));
    }

    let drain_delay = flags.drain_delay.0.filter(|_| own_kinds);
    let links = LinkSet::new(protocol(&flags), metrics.clone(), Arc::clone(&vitals), sender);
    let state = State::new(Config {
        node: flags.node_name.into(),
        classes: flags.common.load_balancer_class,
        default_implementation: flags.common.default_implementation,
        ignore_exclude_label: flags.ignore_exclude_label,
        exclude_interfaces: flags.exclude_interfaces,
        kube_proxy_address: flags.kube_proxy_address,
        gobgp,
        drain_delay,
        checks: Defaults { interval: flags.health_interval, fall: flags.health_fall, rise: flags.health_rise },
        checked_ranges: flags.health_checks.0,
    });
    info!(node = %state.config.node, version = env!("CARGO_PKG_VERSION"), "speaker started");
    let main = Loop {
        state,
        desired: Desired::default(),
        links,
        status,
        questions,
        probes,
        routes,
        speakers,
        doubted,
        metrics,
        bgp_metrics,
        vitals,
        complaints: Complaints::default(),
    };
    main.run(leave, events, requests, tasks).await
}

fn protocol(flags: &Flags) -> Protocol {
    Protocol {
        node: flags.node_name.as_str().into(),
        hello_interval: flags.hello_interval,
        hello_misses: flags.hello_misses,
        failback_delay: flags.failback_delay.0,
        gratuitous_interval: flags.gratuitous_interval.0,
    }
}

fn watch_all(
    flags: &Flags,
    client: &Client,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
    vitals: &Arc<Vitals>,
) {
    let (namespace, group) = (&flags.common.namespace, &flags.common.api_group);
    let all = || events.clone();
    let group_of_ours = group.clone();
    let read = move |object: ServiceObject| Service::read(object, &group_of_ours);
    let services = Watch::new("Services", Api::all(client.clone()), read);
    tasks.spawn(services.run(all(), Event::Service, Arc::clone(vitals)));
    let slices = Watch::new("EndpointSlices", Api::all(client.clone()), |object: SliceObject| object.into());
    tasks.spawn(slices.labels(SLICES_OF_SERVICES).run(all(), Event::Slice, Arc::clone(vitals)));
    let nodes = Watch::new("Nodes", Api::all(client.clone()), |object: NodeObject| object.into());
    tasks.spawn(nodes.run(all(), Event::Node, Arc::clone(vitals)));
    let pools = Api::namespaced_with(client.clone(), namespace, &resource(Kind::IPAddressPool, group));
    tasks.spawn(Watch::new("IPAddressPools", pools, |object: api::Pool| object.into()).run(
        all(),
        Event::Pool,
        Arc::clone(vitals),
    ));
    let l2 = Api::namespaced_with(client.clone(), namespace, &resource(Kind::L2Advertisement, group));
    tasks.spawn(Watch::new("L2Advertisements", l2, |object: api::L2| object.into()).run(
        all(),
        Event::Advertisement,
        Arc::clone(vitals),
    ));
    let secrets = Watch::new("Secret ferrolb-hello", Api::namespaced(client.clone(), namespace), keys);
    tasks.spawn(secrets.fields(&format!("metadata.name={HELLO_SECRET}")).run(all(), Event::Keys, Arc::clone(vitals)));
}

/// What only a node that has a gobgpd reads.
fn watch_bgp(
    flags: &Flags,
    client: &Client,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
    vitals: &Arc<Vitals>,
) {
    let (namespace, group) = (&flags.common.namespace, &flags.common.api_group);
    let all = || events.clone();
    let peers = Api::namespaced_with(client.clone(), namespace, &resource(Kind::BGPPeer, group));
    tasks.spawn(Watch::new("BGPPeers", peers, |object: api::Router| object.into()).run(
        all(),
        Event::BgpPeer,
        Arc::clone(vitals),
    ));
    let ads = Api::namespaced_with(client.clone(), namespace, &resource(Kind::BGPAdvertisement, group));
    let ads = Watch::new("BGPAdvertisements", ads, |object: api::Bgp| object.into());
    tasks.spawn(ads.run(all(), Event::BgpAdvertisement, Arc::clone(vitals)));
    let communities = Api::namespaced_with(client.clone(), namespace, &resource(Kind::Community, group));
    let communities = Watch::new("Communities", communities, |object: api::Aliases| object.into());
    tasks.spawn(communities.run(all(), Event::Community, Arc::clone(vitals)));
    let profiles = Api::namespaced_with(client.clone(), namespace, &resource(Kind::BFDProfile, group));
    tasks.spawn(Watch::new("BFDProfiles", profiles, |object: api::Bfd| object.into()).run(
        all(),
        Event::BfdProfile,
        Arc::clone(vitals),
    ));
    let passwords = Watch::new("Secrets", Api::namespaced(client.clone(), namespace), |secret: Secret| secret.into());
    tasks.spawn(passwords.fields(NO_RELEASES).run(all(), Event::Password, Arc::clone(vitals)));
}

fn keys(secret: Secret) -> KeyRing {
    let data = secret.data.unwrap_or_default();
    KeyRing::from_secret(data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())))
}

/// What the main loop owns.
struct Loop {
    state: State,
    desired: Desired,
    links: LinkSet,
    status: watch::Sender<status::Wanted>,
    questions: watch::Sender<Questions>,
    probes: watch::Sender<Probes>,
    /// What gobgpd is to have.
    routes: watch::Sender<Option<Wanted>>,
    /// Whether it is to be known what all speakers say of themselves.
    speakers: watch::Sender<bool>,
    /// Whose speakers are asked whether they live.
    doubted: watch::Sender<Doubted>,
    metrics: Metrics,
    /// Of a node that has a gobgpd.
    bgp_metrics: Option<BgpMetrics>,
    vitals: Arc<Vitals>,
    complaints: Complaints,
}

impl Loop {
    async fn run(
        mut self,
        mut leave: Pin<&mut impl Future<Output = &'static str>>,
        mut events: mpsc::Receiver<Event>,
        mut requests: mpsc::Receiver<StateRequest>,
        mut tasks: JoinSet<()>,
    ) -> anyhow::Result<()> {
        let mut leave_by: Option<Instant> = None;
        let mut changed = true;
        loop {
            let now = Clock::now();
            self.vitals.beat(now);
            if std::mem::take(&mut changed) || self.desired.wake.is_some_and(|wake| wake <= now) {
                self.replan(now)?;
            }
            if self.desired.left || leave_by.is_some_and(|by| by <= now) {
                info!("speaker ended");
                return Ok(());
            }
            let wake = [self.desired.wake, leave_by].into_iter().flatten().chain([now + BEAT_INTERVAL]).min();
            tokio::select! {
                Some(event) = events.recv() => {
                    changed = self.take(event);
                    for _ in 1..EVENTS_PER_PLAN_MAX {
                        let Ok(event) = events.try_recv() else { break };
                        changed |= self.take(event);
                    }
                }
                Some(request) = requests.recv() => {
                    request.answer(&json!({"state": self.state.dump(), "desired": self.desired.dump(&self.state)}));
                }
                signal = &mut leave, if leave_by.is_none() => {
                    info!(signal, "handing over what this node announces");
                    changed = self.take(Event::Leave);
                    leave_by = Some(Clock::now() + LEAVE_MAX + LEAVE_GRACE);
                }
                Some(ended) = tasks.join_next() => bail!("a task of the speaker ended: {ended:?}"),
                () = Clock::sleep_until(wake) => {}
            }
        }
    }

    /// Plans, and lets the drivers know.
    fn replan(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut desired = plan(&self.state, now);
        desired.keep_orders(&self.desired);
        self.metrics.plan.observe(Clock::now().since(now).as_secs_f64());
        self.links.apply(&desired.links).context("the kernel has no random numbers")?;
        // The first status says something only when this node's links are known.
        if self.state.links.is_some() {
            let owner = self.state.own_node().map_or("", |node| &node.uid);
            status::publish(&self.status, owner, &desired.status);
        }
        publish(&self.questions, &desired.questions);
        publish(&self.probes, &desired.probes);
        publish(&self.routes, &desired.bgp);
        publish(&self.speakers, &desired.watches_speakers);
        publish(&self.doubted, &desired.doubted);
        self.state.handle(Event::Covered(Arc::clone(&desired.covered)), now);
        if let Some(bgp) = &self.bgp_metrics {
            publish(&bgp.shown, &desired.shown);
            bgp.left_out.set(i64::try_from(desired.left_out).unwrap_or(i64::MAX));
        }
        if desired.verdicts != self.desired.verdicts {
            self.metrics.show_verdicts(&desired.verdicts);
        }
        match (&self.desired.not_ready, &desired.not_ready) {
            (Some(_), None) => {
                info!("speaker ready");
                self.vitals.ready();
            }
            (_, Some(why)) => self.vitals.not_ready(why.as_str()),
            (None, None) => self.vitals.ready(),
        }
        if desired.exclusion_ignored && !self.desired.exclusion_ignored {
            info!(
                "every Node carries the label node.kubernetes.io/exclude-from-external-load-balancers: it is ignored, \
                 or nothing could be announced"
            );
        }
        for link in desired.waiting.difference(&self.desired.waiting) {
            info!(
                %link,
                "announcing nothing on this interface until another speaker is received there: it has neither the Node's \
                 InternalIP nor a subnet with addresses of a pool, and no advertisement names it in spec.interfaces"
            );
        }
        match (self.desired.draining, desired.draining) {
            (before, Some(why)) if before != Some(why) => {
                info!(why, "draining: other nodes take over what this one announces")
            }
            (Some(_), None) => info!("no longer draining"),
            (_, Some(_)) | (None, None) => {}
        }
        self.say_withdrawn(&desired);
        self.desired = desired;
        Ok(())
    }

    /// Says when the last resort is given up, and when it is there again.
    fn say_withdrawn(&self, desired: &Desired) {
        let count = |desired: &Desired| desired.status.bgp.as_ref().map_or(0, |bgp| bgp.withdrawn);
        match (count(&self.desired), count(desired)) {
            (0, prefixes @ 1..) => {
                info!(prefixes, "draining: no longer announced by BGP, because other nodes announce it")
            }
            (1.., 0) => info!("all that was withdrawn by BGP is announced again"),
            _ => {}
        }
    }

    /// Takes one event; says whether a plan is due.
    fn take(&mut self, event: Event) -> bool {
        if let Some((kind, object, why)) = event.unreadable() {
            self.complaints.hear(kind, object, why);
        }
        match &event {
            Event::Report { link, report } => self.say_report(*link, report),
            Event::LinkFailed { link, why } => self.say_failure(*link, why),
            Event::Service(_)
            | Event::Slice(_)
            | Event::Node(_)
            | Event::Pool(_)
            | Event::Advertisement(_)
            | Event::BgpPeer(_)
            | Event::BgpAdvertisement(_)
            | Event::Community(_)
            | Event::BfdProfile(_)
            | Event::Password(_)
            | Event::Keys(_)
            | Event::Links(_)
            | Event::Unheard { .. }
            | Event::DataPath(_)
            | Event::Probe { .. }
            | Event::Bgp(_)
            | Event::BgpFound(_)
            | Event::Speaker(_)
            | Event::SpeakersUnknown
            | Event::Answered(_)
            | Event::Covered(_)
            | Event::Leave => {}
        }
        self.state.handle(event, Clock::now())
    }

    fn link_name(&self, index: u32) -> &str {
        self.state.links.as_ref().and_then(|links| links.get(&index)).map_or("?", |link| &link.name)
    }

    /// Says what a link announces now and no longer, and whom it hears.
    fn say_report(&self, index: u32, report: &LinkReport) {
        let link = self.link_name(index);
        let empty = LinkReport::default();
        let before = self.state.reports.get(&index).unwrap_or(&empty);
        let list = |of: &LinkReport, without: &LinkReport| {
            // Both are ascending.
            let new: Vec<_> = of.held.iter().filter(|address| without.held.binary_search(address).is_err()).collect();
            let more = if new.len() > ADDRESSES_PER_LINE_MAX { " …" } else { "" };
            let named: Vec<_> = new.iter().take(ADDRESSES_PER_LINE_MAX).map(ToString::to_string).collect();
            (new.len(), named.join(" ") + more)
        };
        let (started, stopped) = (list(report, before), list(before, report));
        if started.0 > 0 {
            info!(link, count = started.0, addresses = started.1, "announcing");
        }
        if stopped.0 > 0 {
            info!(link, count = stopped.0, addresses = stopped.1, "no longer announcing");
        }
        if report.heard != before.heard {
            info!(link, speakers = report.heard.join(" "), "other speakers heard");
        }
    }

    /// A first failure is news, its repetitions are not.
    fn say_failure(&self, index: u32, why: &str) {
        let link = self.link_name(index);
        let spoken_on = self.desired.links.contains_key(&index);
        if spoken_on && !self.state.failures.contains_key(&index) {
            warn!(link, why, "not speaking on this link; trying again");
        } else {
            debug!(link, why, "not speaking on this link");
        }
    }
}

/// Sends what is wanted of a driver, if it is not what was wanted before.
fn publish<T: Clone + PartialEq>(driver: &watch::Sender<T>, wanted: &T) {
    driver.send_if_modified(|before| {
        let changed = before != wanted;
        if changed {
            before.clone_from(wanted);
        }
        changed
    });
}
