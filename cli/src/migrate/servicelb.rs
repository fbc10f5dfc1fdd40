//! Migration from ServiceLB of k3s: each Service has the addresses of nodes, and gets an address of
//! a pool. Pure. The page docs/platforms.md explains the steps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_controller_core::state::{Config, Names};
use ferrolb_proto::api::{self, ADOPT_ANNOTATION, CustomResourceKind};
use serde_json::Value;

use super::change::set_annotation;
use super::installed::{Installed, uninstall};
use super::predict::{Expected, predict};
use super::shell::{
    self, ANNOTATE, DELETE, PATCH, before_installation, create_directory, list_pools, quoted,
    save_addresses, speakers, stop_controller,
};
use super::{Action, Command, Migration, Problem, Step};
use crate::init::propose::POOL;
use crate::install::manifests::Variant;
use crate::objects::{self, CORE, Objects, list, text};

/// Work by hand on k3s.
const RESTART: &str = "on every server: sudo systemctl restart k3s";
/// Finalizer of Services, which Kubernetes' library for load balancers adds and removes.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// Plans the migration. `ferrolb` is FerroLB's namespace.
#[must_use]
pub fn plan(objects: &Objects, directory: &str, ferrolb: &str) -> Migration {
    let nodes: BTreeSet<IpAddr> = objects.node_addresses().into_iter().map(|(ip, _)| ip).collect();
    let services: Vec<&Value> =
        objects.load_balancers().filter(|service| is_served(service, &nodes)).collect();
    let expected = services.iter().map(|service| Expected {
        key: objects::key(service),
        addresses: objects::addresses(service),
    });
    let names = Names { namespace: ferrolb.to_owned(), group: api::GROUP.to_owned() };
    let installed = Installed::find(objects, ferrolb);
    let classes = Installed::classes_after(installed.as_ref(), None);
    let config = Config { classes, default_implementation: true, names, ..Config::default() };
    let adopted = objects.map_services(|service| {
        if is_served(service, &nodes) {
            set_annotation(service, ADOPT_ANNOTATION, Some("true"));
        }
    });
    let prediction = predict(config, objects, &adopted, expected.collect());
    let has_pool =
        objects.of(api::GROUP, CustomResourceKind::IPAddressPool.name()).next().is_some();
    let facts = vec![format!("Services with addresses of nodes: {}", services.len())];
    let title = "Migration from ServiceLB of k3s".to_owned();
    if services.is_empty() {
        return Migration { title, facts, ..Migration::default() };
    }
    let mut problems = vec![Problem::of(
        "ServiceLB",
        "the Services have addresses of nodes, which FerroLB never assigns: all addresses change",
    )];
    if !has_pool {
        let text = "there is none: create one with `kubectl ferrolb init`, then run this command \
            again to see the new addresses";
        problems.push(Problem::of("IPAddressPool", text));
    }
    problems.extend(installed.iter().flat_map(|it| it.lost(objects, None)));
    problems.extend(prediction.invalid);
    problems.extend(services.iter().filter_map(|service| host_ports(service)));
    let migration =
        Migration { title, facts, services: prediction.outcomes, problems, ..Migration::default() };
    migration.with_steps(steps(&services, directory, ferrolb, installed.as_ref(), has_pool))
}

/// Returns whether all addresses of a Service are addresses of nodes.
fn is_served(service: &Value, nodes: &BTreeSet<IpAddr>) -> bool {
    let addresses = objects::addresses(service);
    objects::has_type(service, CORE, "Service")
        && text(service, "/spec/type") == "LoadBalancer"
        && !addresses.is_empty()
        && addresses.iter().all(|address| nodes.contains(address))
}

/// Returns the ports that ServiceLB's pods have on the nodes.
fn host_ports(service: &Value) -> Option<Problem> {
    let ports = list(service, "/spec/ports").iter();
    let ports: Vec<_> =
        ports.filter_map(|it| it.get("port")?.as_u64()).map(|it| it.to_string()).collect();
    let text = format!(
        "clients that connect to port {} of a node must use the new address: ServiceLB's host ports \
         end with ServiceLB",
        ports.join(", ")
    );
    (!ports.is_empty()).then(|| Problem::note(objects::label(service), text))
}

fn steps(
    services: &[&Value],
    directory: &str,
    ferrolb: &str,
    installed: Option<&Installed>,
    has_pool: bool,
) -> Vec<Step> {
    let annotate = |value: &str| {
        let words = format!("{ADOPT_ANNOTATION}{value}");
        services.iter().map(|it| ANNOTATE.on_service(it, &words)).collect::<Vec<_>>()
    };
    let effect = "none: the Services keep the addresses of the nodes, which are in no pool";
    let install = match installed {
        Some(installed) => installed.become_default(effect),
        None => Some(
            Step::new("install", "Install FerroLB", effect)
                .check(before_installation())
                .run_all(shell::install(ferrolb, Variant::L2))
                .undo_all(uninstall(ferrolb)),
        ),
    };
    let pool = Step::new(
        "pool",
        "Create a pool with an address for each Service",
        "none: FerroLB adopts the Services only in the last step",
    )
    .check(speakers(ferrolb))
    .run(Command::new(shell::ferrolb(ferrolb, "init"), "no error"))
    .undo(DELETE.run_in(
        ferrolb,
        format_args!("ipaddresspools.ferrolb.io/{POOL} l2advertisements.ferrolb.io/{POOL}"),
    ));
    let disable = Step::new(
        "disable",
        "Disable ServiceLB: on every server, one after the other",
        "kube-proxy still serves the addresses of the nodes in the status; host ports of ServiceLB \
         end",
    )
    .check(list_pools(ferrolb, "VALID is True, and Services may use enough addresses"))
    .run(Action::ByHand(
        "on every server, add `servicelb` to the list `disable` in /etc/rancher/k3s/config.yaml, or \
         create that list".into(),
    ))
    .run(Action::ByHand(RESTART.into()))
    .undo(Action::ByHand("on every server, remove `servicelb` from the list".into()))
    .undo(Action::ByHand(RESTART.into()));
    let adopt = Step::new(
        "adopt",
        "Let FerroLB assign addresses of the pool",
        "all addresses change: clients of the addresses of the nodes fail until port forwardings \
         and DNS records have the new addresses",
    )
    .check(Command::new(
        "kubectl -n kube-system get pods -l svccontroller.k3s.cattle.io/svcname",
        "No resources found",
    ))
    .run_all(annotate("=true"))
    .undo(stop_controller(ferrolb))
    .undo_all(annotate("-"))
    .undo(Action::ByHand(
        "then undo \"Disable ServiceLB\", which writes its addresses again".into(),
    ))
    .undo_all(installed.map(Installed::start_controller));
    let save = Step::new("save", "Save the addresses", "none")
        .run_all(create_directory(directory))
        .run(save_addresses(directory));
    let pool = (!has_pool).then_some(pool);
    [Some(save), install, pool]
        .into_iter()
        .flatten()
        .chain([disable, adopt])
        .chain(finalizers(services))
        .collect()
}

/// Returns the step that removes the finalizer of another load balancer from Services, so that they
/// can be deleted.
#[must_use]
pub fn finalizers(services: &[&Value]) -> Option<Step> {
    let command = |service: &&Value| {
        let all = list(service, "/metadata/finalizers");
        let others: Vec<&Value> = all.iter().filter(|it| *it != FINALIZER).collect();
        if others.len() == all.len() {
            return None;
        }
        let patch = serde_json::json!({"metadata": {"finalizers": others}});
        let words = format!("--type=merge -p {}", quoted(&patch.to_string()));
        Some(PATCH.on_service(service, words))
    };
    let commands: Vec<Command> = services.iter().filter_map(command).collect();
    let title = "Remove the finalizer of the former load balancer";
    let step = Step::new("finalizers", title, "none: Services can be deleted without it");
    (!commands.is_empty()).then(|| step.run_all(commands))
}
