//! Migration from `spec.externalIPs`: a pool has exactly those of these addresses that are in no
//! pool yet, and each Service keeps its own. Pure. The page docs/from-externalips.md explains the
//! steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_controller_core::state::{Config, Names};
use ferrolb_proto::api::{self, CustomResourceKind};
use serde_json::{Value, json};

use super::change::{Annotations, shared};
use super::installed::Installed;
use super::merge::{Merged, addresses_of_other_pools};
use super::predict::{Expected, predict};
use super::shell::{self, PATCH, WAIT, list_addresses, quoted, speakers};
use super::{Action, Command, ManifestFile, Migration, Problem, Step};
use crate::objects::{self, CORE, Objects, key, namespace, object, text, texts};

/// Name of the pool and its advertisement.
const POOL: &str = "external-ips";
/// File with both.
const FILE: &str = "ferrolb.yaml";

/// A Service with external IPs.
struct Candidate<'a> {
    service: &'a Value,
    addresses: Vec<IpAddr>,
    /// True if another Service has one of the addresses.
    is_shared: bool,
    annotations: Annotations<'a>,
}

/// Plans the migration. `ferrolb` is FerroLB's namespace.
#[must_use]
pub fn plan(objects: &Objects, directory: &str, ferrolb: &str) -> Migration {
    let mut problems = Vec::new();
    let candidates = candidates(objects, &mut problems);
    let in_use: BTreeSet<IpAddr> =
        candidates.iter().flat_map(|it| it.addresses.iter().copied()).collect();
    let manifests = manifests(objects, &candidates, &in_use, ferrolb);
    let merged = Merged::of(objects, manifests, |name| name == POOL);
    problems.extend(merged.problems.iter().cloned());
    let expected = candidates
        .iter()
        .map(|it| Expected { key: key(it.service), addresses: it.addresses.clone() });
    let names = Names { namespace: ferrolb.to_owned(), group: api::GROUP.to_owned() };
    let installed = Installed::find(objects, ferrolb);
    let classes = Installed::classes_after(installed.as_ref(), None);
    let config = Config { classes, default_implementation: true, names, ..Config::default() };
    let changed: BTreeMap<_, _> =
        candidates.iter().map(|it| (key(it.service), it.after())).collect();
    let after = objects.map_services(|service| {
        if let Some(after) = changed.get(&key(service)) {
            *service = after.clone();
        }
    });
    let prediction = predict(config, objects, &merged.applied_to(after), expected.collect());
    problems.extend(prediction.invalid);
    let facts = vec![
        format!("Services with external IPs that can migrate: {}", candidates.len()),
        format!("their external IPs: {}", in_use.len()),
    ];
    problems.extend(installed.iter().flat_map(|it| it.lost(objects, None)));
    let default = installed.and_then(|it| {
        it.become_default("none, if another load balancer serves no Service without a class")
    });
    let steps = steps(&candidates, directory, ferrolb, &merged);
    let steps = default.into_iter().chain(steps).collect();
    let mut files = merged.changed_files();
    files.extend(ManifestFile::unless_empty(FILE, merged.new));
    let migration = Migration {
        title: "Migration from spec.externalIPs".to_owned(),
        facts,
        services: prediction.outcomes,
        problems,
        files,
        ..Migration::default()
    };
    migration.with_steps(if candidates.is_empty() { Vec::new() } else { steps })
}

/// Returns the Services with external IPs that can migrate.
fn candidates<'a>(objects: &'a Objects, problems: &mut Vec<Problem>) -> Vec<Candidate<'a>> {
    let nodes = objects.node_addresses();
    let external_ips = |service: &'a Value| -> Vec<IpAddr> {
        let texts = texts(service, "/spec/externalIPs");
        texts.filter_map(|text| text.parse().ok()).collect()
    };
    let services = objects.of(CORE, "Service").map(|service| (service, external_ips(service)));
    let services: Vec<_> = services.filter(|(_, addresses)| !addresses.is_empty()).collect();
    let shared = shared(services.iter().flat_map(|(_, addresses)| addresses));
    let mut candidates = Vec::new();
    for (service, addresses) in services {
        let obstacles = obstacles(service, &addresses, &nodes);
        let is_shared = addresses.iter().any(|address| shared.contains(address));
        if is_shared {
            let text = "another Service has the address, too: kube-proxy does not serve it between \
                the commands for both";
            problems.push(Problem::note(objects::label(service), text));
        }
        if obstacles.is_empty() {
            let annotations = Annotations::keep(service, &addresses, &shared);
            candidates.push(Candidate { service, addresses, is_shared, annotations });
        }
        problems.extend(obstacles);
    }
    candidates
}

/// Returns the reasons why a Service cannot keep all its external IPs.
fn obstacles(service: &Value, addresses: &[IpAddr], nodes: &[(IpAddr, &str)]) -> Vec<Problem> {
    let of_nodes = nodes.iter().filter(|(address, _)| addresses.contains(address));
    let mut texts: Vec<String> = of_nodes
        .map(|(address, node)| {
            format!(
                "{address} is an address of Node {node}, which FerroLB never assigns: choose another \
                 one"
            )
        })
        .collect();
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if v4 > 1 || addresses.len() - v4 > 1 {
        let text = "a Service gets one address of each family: create another Service for each \
            further external IP";
        texts.push(text.to_owned());
    }
    if text(service, "/spec/type") == "LoadBalancer" {
        let text = "the type is LoadBalancer already, with addresses of its own: create another \
            Service for the external IPs";
        texts.push(text.to_owned());
    }
    texts.into_iter().map(|text| Problem::of(objects::label(service), text)).collect()
}

/// Returns the pool of the addresses that are in no other pool, and its advertisement.
fn manifests(
    objects: &Objects,
    candidates: &[Candidate<'_>],
    in_use: &BTreeSet<IpAddr>,
    ferrolb: &str,
) -> Vec<Value> {
    let others = addresses_of_other_pools(objects, |name| name == POOL);
    let is_new = |address: &&IpAddr| !others.contains(**address);
    let new: Vec<&IpAddr> = in_use.iter().filter(is_new).collect();
    if new.is_empty() {
        return Vec::new();
    }
    let namespaces: BTreeSet<&str> = candidates.iter().map(|it| namespace(it.service)).collect();
    let allocation = json!({"namespaces": namespaces});
    let spec = json!({"addresses": new, "autoAssign": false, "serviceAllocation": allocation});
    let advertisement = json!({"ipAddressPools": [POOL]});
    vec![
        object(CustomResourceKind::IPAddressPool, POOL, ferrolb, spec),
        object(CustomResourceKind::L2Advertisement, POOL, ferrolb, advertisement),
    ]
}

impl Candidate<'_> {
    /// Returns the Service after the migration.
    fn after(&self) -> Value {
        let mut service = self.annotations.applied();
        if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("type".to_owned(), "LoadBalancer".into());
            spec.remove("externalIPs");
        }
        service
    }

    /// Returns the command that changes the type. FerroLB assigns no address that is an external IP
    /// of another Service, so Services that share one lose the field at the same time.
    fn serve(&self) -> Command {
        match self.is_shared {
            true => self.patch(&json!({"type": "LoadBalancer", "externalIPs": null})),
            false => self.patch(&json!({"type": "LoadBalancer"})),
        }
    }

    /// Returns the command that changes the type back.
    fn undo_serve(&self) -> Command {
        let former = match text(self.service, "/spec/type") {
            "" => "ClusterIP",
            former => former,
        };
        match self.is_shared {
            true => self.patch(&json!({"type": former, "externalIPs": self.addresses})),
            false => self.patch(&json!({"type": former})),
        }
    }

    fn patch(&self, spec: &Value) -> Command {
        let patch = quoted(&json!({"spec": spec}).to_string());
        PATCH.on_service(self.service, format_args!("--type=merge -p {patch}"))
    }
}

fn steps(
    candidates: &[Candidate<'_>],
    directory: &str,
    ferrolb: &str,
    merged: &Merged,
) -> Vec<Step> {
    let has_pool = !merged.is_empty();
    let pool = Step::new("pool", "Create the pool", "none: FerroLB assigns no external IP")
        .check(speakers(ferrolb));
    let pool = merged.apply(pool, directory, FILE);
    let mut serve = Step::new(
        "serve",
        "Request the addresses, and change the type",
        "none: kube-proxy serves the addresses before and after; a node announces each of them less \
         than 1 s later, unless another host or an interface still replies for it (KernelAnswers)",
    )
    .check(speakers(ferrolb));
    if has_pool {
        let words = format!("--for=condition=Valid fpool/{POOL} --timeout=60s");
        serve = serve.check(WAIT.run_in(ferrolb, words));
    }
    let serve = serve
        .run_all(candidates.iter().filter_map(|it| it.annotations.command()))
        .run_all(candidates.iter().map(Candidate::serve))
        .undo_all(candidates.iter().map(Candidate::undo_serve))
        .undo_all(candidates.iter().filter_map(|it| it.annotations.undo()));
    let move_owner = Step::new(
        "move",
        "Remove the addresses from interfaces of nodes, and static routes to them",
        "a node of FerroLB announces each address less than 1 s after no other host replies for it; \
         up to 15 s if one still did in the step before",
    )
    .check(Command::new(shell::ferrolb(ferrolb, "status"), "the Services have the addresses"))
    .run(Action::ByHand("on the hosts and routers that have them".into()))
    .undo(Action::ByHand("add the addresses and routes again".into()));
    let wait = |it: &Candidate<'_>| {
        let service = format!("service/{}", quoted(objects::name(it.service)));
        let words = format!("--for=condition=ferrolb.io/Announced {service} --timeout=60s");
        WAIT.run_in(namespace(it.service), words)
    };
    let mut remove = Step::new("remove", "Remove spec.externalIPs", "none");
    for it in candidates {
        remove = remove.check(wait(it));
    }
    let own = || candidates.iter().filter(|it| !it.is_shared);
    let remove = remove
        .run_all(own().map(|it| it.patch(&json!({"externalIPs": null}))))
        .undo_all(own().map(|it| it.patch(&json!({"externalIPs": it.addresses}))));
    let verify = Step::new("verify", "Verify the addresses", "none").run(list_addresses());
    has_pool.then_some(pool).into_iter().chain([serve, move_owner, remove, verify]).collect()
}
