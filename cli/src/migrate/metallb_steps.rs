//! Steps of the migration from MetalLB. Pure. The pages docs/migrate-from-metallb.md and
//! docs/migrate-in-place-from-metallb.md explain them; the times are from these pages.

use std::collections::BTreeSet;

use ferrolb_proto::api::LOAD_BALANCER_CLASS;

use super::installed::{
    BGP, Installed, RELEASE, create_namespace, helm_change, helm_install, helm_uninstall,
};
use super::metallb::{OBJECTS, PEERS, SERVED};
use super::metallb_workloads::{Part, Workloads};
use super::served::Served;
use super::shell::{
    self, ANNOTATE, APPLY, DELETE, DRY_RUN, ROLLOUT_STATUS, WAIT, apply_output_of,
    before_installation, compare_addresses, create_directory, delete_file, ferrolb, file, quoted,
    save_addresses, stop_controller, unchanged,
};
use super::{CLEAN_UP, Command, Step};

/// Port of the speakers' metrics. MetalLB's speakers up to 0.15 use the default one.
const METRICS_PORT: u16 = 7476;
/// MetalLB's kinds, for kubectl.
const METALLB_KINDS: &str = "ipaddresspools.metallb.io,l2advertisements.metallb.io,\
    bgpadvertisements.metallb.io,bfdprofiles.metallb.io,communities.metallb.io,\
    bgppeers.v1beta2.metallb.io";
const NO_EFFECT: &str = "none";
/// Effect while the speakers of both announce the addresses on layer 2.
const BOTH_ANNOUNCE: &str = "none for an address whose node is healthy: MetalLB's speakers announce \
    until the next step, and FerroLB, which has MetalLB's order of nodes, announces from the same \
    node. Otherwise two nodes reply for the address until the next step, and a connection whose \
    node changes is reset";
/// Effect of the end of MetalLB's speakers on layer 2.
const SPEAKERS_END: &str = "none on layer 2, where FerroLB announces the addresses already, if \
    MetalLB's pods end together. Otherwise a remaining one can take over, and a connection whose \
    node changes is reset";
/// Effect while the routers have no sessions.
const WITHOUT_ROUTES: &str =
    "Meanwhile the routers have no routes, unless they keep them by graceful restart";

/// Facts that decide the steps.
pub struct Settings {
    /// MetalLB's namespace.
    pub metallb: String,
    /// MetalLB's Deployments and DaemonSets.
    pub workloads: Workloads,
    /// FerroLB's namespace.
    pub ferrolb: String,
    /// Directory of the files.
    pub directory: String,
    /// Class of the Services that MetalLB serves.
    pub class: Option<String>,
    /// FerroLB, if it exists in the cluster.
    pub installed: Option<Installed>,
    /// True if MetalLB has BGPPeers.
    pub has_bgp: bool,
    /// True if MetalLB has L2Advertisements.
    pub has_layer2: bool,
    /// True if there is a file with BGPPeers.
    pub has_peers: bool,
    /// True if other objects than peers are to be created.
    pub has_objects: bool,
    /// FRRConfigurations that MetalLB has created in other namespaces: their namespaces and names.
    pub frr_configurations: BTreeSet<(String, String)>,
    /// Services that MetalLB serves.
    pub served: Served,
    /// Secrets of BGPPeers: their namespaces and names.
    pub secrets: BTreeSet<(String, String)>,
}

impl Settings {
    /// Returns whether MetalLB announces nothing on layer 2.
    fn is_bgp_only(&self) -> bool {
        self.has_bgp && !self.has_layer2
    }

    /// Returns FerroLB as it is before the Services change over to it.
    pub(super) fn installation(&self) -> Installed {
        let installed = self.installed.clone();
        installed.unwrap_or_else(|| Installed::side_by_side(&self.ferrolb))
    }
}

/// Returns the steps of the migration to FerroLB's own objects.
#[must_use]
pub fn own_group(settings: &Settings) -> Vec<Step> {
    let installation = settings.installation();
    let default = settings.class.is_none().then(|| default_implementation(settings, &installation));
    let manifests = "none. Remove MetalLB's annotation also from stored manifests of Services: \
        FerroLB leaves a Service that gets it again to MetalLB";
    let announced = (!settings.is_bgp_only()).then(|| announced_layer2(settings));
    let peers = file(&settings.directory, PEERS);
    let sessions = settings.has_peers.then(|| Sessions {
        start: APPLY.on_file(&peers),
        end: delete_file(&peers),
        delay: "about 5 s",
    });
    [save(settings)]
        .into_iter()
        .chain(settings.installed.is_none().then(|| install(settings)))
        .chain([copy(settings)])
        .chain(default.flatten())
        .chain([switch(settings, &installation), stop(settings, announced, sessions)])
        .chain([verify(settings), clean_up(settings, manifests)])
        .collect()
}

/// Returns the steps of the in-place migration.
#[must_use]
pub fn in_place(settings: &Settings) -> Vec<Step> {
    let steps = if settings.is_bgp_only() {
        vec![replace(settings)]
    } else {
        let ready = ROLLOUT_STATUS
            .run_in(&settings.ferrolb, "daemonset/speaker")
            .expecting("`successfully rolled out`. FerroLB announces the addresses 5 s later");
        let sessions = settings.has_bgp.then(|| Sessions {
            start: set_bgp(settings, true),
            end: set_bgp(settings, false),
            delay: "5 to 15 s",
        });
        vec![install_in_place(settings), stop(settings, Some(ready), sessions)]
    };
    [save(settings)]
        .into_iter()
        .chain(steps)
        .chain([verify(settings), clean_up(settings, NO_EFFECT)])
        .collect()
}

/// Returns the step that replaces MetalLB by FerroLB at once: FerroLB reads MetalLB's BGPPeers, and
/// a router accepts one session with a node.
fn replace(settings: &Settings) -> Step {
    let workloads = &settings.workloads;
    let effect = format!(
        "MetalLB's pods end within 2 s, and FerroLB's start within 2 to 8 s more (estimates, three \
         nodes with the images). {WITHOUT_ROUTES}"
    );
    Step::new("switch", "Replace MetalLB by FerroLB, which uses MetalLB's objects", effect)
        .check(unchanged(&settings.directory))
        .run_all(create_namespace(&settings.ferrolb))
        .run_all(workloads.stop(Part::Controller))
        .run_all(stop_speakers(settings))
        .run(helm_install_in_place(settings, BGP))
        .undo(helm_uninstall(&settings.ferrolb))
        .undo_all(workloads.start(Part::Speakers))
        .undo_all(workloads.start(Part::Controller))
}

/// Returns the step in which FerroLB begins to use MetalLB's objects, while MetalLB's speakers run.
/// Without gobgpd, FerroLB has no BGP sessions.
fn install_in_place(settings: &Settings) -> Step {
    let title = "Stop MetalLB's controller, and install FerroLB, which uses MetalLB's objects";
    let port = format!("prometheus.metricsPort={METRICS_PORT}");
    Step::new("switch", title, BOTH_ANNOUNCE)
        .check(unchanged(&settings.directory))
        .run_all(create_namespace(&settings.ferrolb))
        .run_all(settings.workloads.stop(Part::Controller))
        .run(helm_install_in_place(settings, &port))
        .undo(helm_uninstall(&settings.ferrolb))
        .undo_all(settings.workloads.start(Part::Controller))
}

fn helm_install_in_place(settings: &Settings, value: &str) -> Command {
    let namespace = format!("metallbNamespace={}", quoted(&settings.metallb));
    let class = settings.class.as_ref().map(|it| format!("loadBalancerClass={}", quoted(it)));
    let values: Vec<_> = [namespace, value.to_owned()].into_iter().chain(class).collect();
    helm_install(&settings.ferrolb, &values)
}

/// Returns the command that starts or ends the BGP sessions of an in-place installation.
fn set_bgp(settings: &Settings, is_enabled: bool) -> Command {
    helm_change(RELEASE, &settings.ferrolb, &format!("bgp.enabled={is_enabled}"))
}

pub(super) fn save(settings: &Settings) -> Step {
    let objects = format!("kubectl -n {} get {METALLB_KINDS} -o yaml", quoted(&settings.metallb));
    Step::new("save", "Save MetalLB's objects and the addresses of all Services", NO_EFFECT)
        .run_all(create_directory(&settings.directory))
        .run(shell::save(objects, &file(&settings.directory, "metallb.yaml")))
        .run_all(save_deleted(settings))
        .run(save_addresses(&settings.directory))
}

/// Returns the commands that save what later steps delete: workloads, webhooks, and
/// FRRConfigurations in other namespaces.
fn save_deleted(settings: &Settings) -> Vec<Command> {
    let save = |name: &str, command: String| {
        let file = file(&settings.directory, name);
        shell::save(command, &file)
    };
    let workloads =
        format!("kubectl -n {} get deployments,daemonsets -o yaml", quoted(&settings.metallb));
    let webhooks = format!(
        "kubectl get validatingwebhookconfiguration --ignore-not-found -o yaml {}",
        settings.workloads.webhooks()
    );
    let mut commands = vec![save("workloads.yaml", workloads), save("webhooks.yaml", webhooks)];
    commands.extend(settings.frr_configurations.iter().map(|(namespace, name)| {
        let command = format!(
            "kubectl -n {} get frrconfigurations.frrk8s.metallb.io {} -o yaml",
            quoted(namespace),
            quoted(name)
        );
        save(&format!("{namespace}-{name}.yaml"), command)
    }));
    commands
}

pub(super) fn install(settings: &Settings) -> Step {
    let class = format!("loadBalancerClass={LOAD_BALANCER_CLASS}");
    let port = format!("prometheus.metricsPort={METRICS_PORT}");
    let bgp = settings.has_bgp.then(|| BGP.to_owned());
    let values: Vec<_> = [class, port].into_iter().chain(bgp).collect();
    Step::new(
        "install",
        "Install FerroLB side by side with MetalLB",
        format!("none: FerroLB serves only Services of the class {LOAD_BALANCER_CLASS}"),
    )
    .check(before_installation())
    .run_all(create_namespace(&settings.ferrolb))
    .run(helm_install(&settings.ferrolb, &values))
    .undo(helm_uninstall(&settings.ferrolb))
}

pub(super) fn copy(settings: &Settings) -> Step {
    let path = |name, is_present: bool| is_present.then(|| file(&settings.directory, name));
    let objects = path(OBJECTS, settings.has_objects);
    let peers = path(PEERS, settings.has_peers);
    let mut step = Step::new("copy", "Create FerroLB's objects, without BGPPeers", NO_EFFECT);
    for file in objects.iter().chain(&peers) {
        step = step.check(DRY_RUN.on_file(file));
    }
    step.run_all(objects.iter().map(|file| APPLY.on_file(file)))
        .run_all(settings.secrets.iter().map(|secret| copy_secret(secret, &settings.ferrolb)))
        .undo_all(objects.iter().map(|file| delete_file(file)))
        .undo_all(settings.secrets.iter().map(|(_, name)| {
            let words = format!("secret --ignore-not-found {}", quoted(name));
            DELETE.run_in(&settings.ferrolb, words)
        }))
}

/// Returns the command that copies the password in a Secret. No argument and no file contains it.
fn copy_secret((namespace, name): &(String, String), to: &str) -> Command {
    let template = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"type\":\"kubernetes.io/basic-auth\",\
         \"metadata\":{{\"name\":\"{name}\",\"namespace\":\"{to}\"}},\
         \"data\":{{\"password\":\"{{{{.data.password}}}}\"}}}}"
    );
    apply_output_of(&format!(
        "kubectl -n {} get secret {} -o go-template={}",
        quoted(namespace),
        quoted(name),
        quoted(&template)
    ))
}

pub(super) fn default_implementation(
    settings: &Settings,
    installation: &Installed,
) -> Option<Step> {
    let effect = "none for Services of MetalLB, which has priority; Services without a class that \
        MetalLB does not serve get addresses. Create no Services until MetalLB's annotation is \
        removed";
    let step = installation.become_default(effect)?;
    let words = "--for=condition=Valid --timeout=60s ipaddresspools.ferrolb.io --all";
    let valid = WAIT.run_in(&settings.ferrolb, words);
    Some(step.check(valid))
}

/// Returns the commands that stop MetalLB's speakers, and their BGP sessions.
pub(super) fn stop_speakers(settings: &Settings) -> Vec<Command> {
    let mut commands = settings.workloads.stop(Part::Speakers);
    // FRR-K8s in another namespace continues to run, with the configuration of MetalLB.
    commands.extend(settings.frr_configurations.iter().map(|(namespace, name)| {
        let kind = "frrconfigurations.frrk8s.metallb.io";
        DELETE.run_in(namespace, format_args!("{kind} --ignore-not-found {}", quoted(name)))
    }));
    commands
}

/// Returns the step in which FerroLB begins to serve the Services. MetalLB's controller has to be
/// stopped, because it would restore the annotations.
fn switch(settings: &Settings, installation: &Installed) -> Step {
    let title = "Stop MetalLB's controller, and let FerroLB serve the Services";
    let effect = if settings.is_bgp_only() {
        "none: MetalLB's speakers advertise the routes until the next step"
    } else {
        BOTH_ANNOUNCE
    };
    let mut step = Step::new("switch", title, effect)
        .check(unchanged(&settings.directory))
        .run_all(settings.workloads.stop(Part::Controller));
    if let Some(class) = &settings.class {
        step = step.run_all(installation.serve(Some(class)));
    }
    let annotations = SERVED.map(|name| format!("{name}-")).join(" ");
    step.run(ANNOTATE.run(format_args!("services --all --all-namespaces {annotations}")))
        .undo_all(undo_switch(settings))
}

/// Returns the commands that let MetalLB serve the Services again. A controller that does not serve
/// them any more would remove their addresses.
fn undo_switch(settings: &Settings) -> Vec<Command> {
    let start = settings.workloads.start(Part::Controller);
    let annotated = settings.served.wait_restored();
    match (&settings.class, &settings.installed) {
        (None, _) => [start, annotated].concat(),
        (Some(_), None) => [vec![helm_uninstall(&settings.ferrolb)], start].concat(),
        (Some(_), Some(installed)) => [
            vec![stop_controller(&settings.ferrolb)],
            start,
            annotated,
            installed.serve_as_before(),
            vec![installed.start_controller()],
        ]
        .concat(),
    }
}

/// Returns the command that shows whether FerroLB announces addresses on layer 2.
pub(super) fn announced_layer2(settings: &Settings) -> Command {
    let expect = "the reason Announced or KernelAnswers for each Service that FerroLB serves, if it \
        has endpoints, and not only BGP announces it";
    Command::new(ferrolb(&settings.ferrolb, "status"), expect)
}

/// The start of FerroLB's BGP sessions.
struct Sessions {
    /// The command that starts them.
    start: Command,
    /// The command that ends them.
    end: Command,
    /// Time until the routers have routes again, as a phrase.
    delay: &'static str,
}

/// Returns the step in which MetalLB's speakers end. `announces` is the command that shows whether
/// FerroLB announces. The sessions of FerroLB begin after those of MetalLB have ended, because a
/// router accepts one session with a node.
fn stop(settings: &Settings, announces: Option<Command>, sessions: Option<Sessions>) -> Step {
    let bgp = sessions.as_ref().map(|it| {
        format!(
            "MetalLB's pods end within 2 s, and FerroLB advertises the addresses by BGP {} later \
             (estimates). {WITHOUT_ROUTES}",
            it.delay
        )
    });
    let effect = match (settings.is_bgp_only(), bgp) {
        (true, Some(bgp)) => bgp,
        (_, None) => SPEAKERS_END.to_owned(),
        (false, Some(bgp)) => format!("{SPEAKERS_END}. {bgp}"),
    };
    let title = if sessions.is_some() {
        "Stop MetalLB's speakers, and start FerroLB's BGP sessions"
    } else {
        "Stop MetalLB's speakers"
    };
    let mut step = Step::new("stop", title, effect).check(unchanged(&settings.directory));
    if let Some(announces) = announces {
        step = step.check(announces);
    }
    step = step.run_all(stop_speakers(settings));
    if let Some(Sessions { start, end, .. }) = sessions {
        step = step.run(start).undo(end);
    }
    step.undo_all(settings.workloads.start(Part::Speakers))
}

pub(super) fn verify(settings: &Settings) -> Step {
    let conditions = "kubectl get services --all-namespaces --field-selector spec.type=LoadBalancer \
         -o custom-columns='NAMESPACE:.metadata.namespace,NAME:.metadata.name,\
         ANNOUNCED:.status.conditions[?(@.type==\"ferrolb.io/Announced\")].reason'";
    let effect = "none. The first command prints nothing. The reason KernelAnswers remains for five \
        minutes after MetalLB's last reply";
    Step::new("verify", "Verify the addresses", effect)
        .run(compare_addresses(&settings.directory))
        .run(Command::new(conditions, "`Announced` as the reason of each Service with endpoints"))
}

pub(super) fn clean_up(settings: &Settings, effect: &str) -> Step {
    let compare = compare_addresses(&settings.directory);
    Step::new(CLEAN_UP, "Delete MetalLB, if you need no rollback", effect)
        .check(compare.expecting("prints nothing, or only new Services"))
        .run_all(settings.workloads.delete())
        .run(delete_webhooks(&settings.workloads.webhooks()))
}

pub(super) fn delete_webhooks(names: &str) -> Command {
    DELETE.run(format_args!("validatingwebhookconfiguration --ignore-not-found {names}"))
}
