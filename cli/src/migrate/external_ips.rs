//! Migration from `spec.externalIPs`: a pool has exactly these addresses, and each Service keeps
//! its own. Pure. The page docs/from-externalips.md explains the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::controller::state::{Config, Names};
use serde_json::{Value, json};

use super::change::{Annotations, shared};
use super::objects::{self, CORE, Objects, key, namespace, text, texts};
use super::predict::{Expected, predict};
use super::shell::{file, list_addresses, on_service, quoted};
use super::{ManifestFile, Migration, Problem, Step};

/// Name of the pool and its advertisement.
const POOL: &str = "external-ips";
/// File with both.
const FILE: &str = "ferrolb.yaml";

/// A Service with external IPs.
struct Candidate<'a> {
    service: &'a Value,
    addresses: Vec<IpAddr>,
    annotations: Annotations<'a>,
}

/// Plans the migration. `ferrolb` is FerroLB's namespace.
#[must_use]
pub fn plan(objects: &Objects, directory: &str, ferrolb: &str) -> Migration {
    let mut problems = Vec::new();
    let candidates = candidates(objects, &mut problems);
    let pool: BTreeSet<IpAddr> =
        candidates.iter().flat_map(|it| it.addresses.iter().copied()).collect();
    let namespaces: BTreeSet<&str> = candidates.iter().map(|it| namespace(it.service)).collect();
    let manifests =
        if pool.is_empty() { Vec::new() } else { manifests(&pool, &namespaces, ferrolb) };
    let expected = candidates
        .iter()
        .map(|it| Expected { key: key(it.service), addresses: it.addresses.clone() });
    let names = Names { namespace: ferrolb.to_owned(), group: api::GROUP.to_owned() };
    let config = Config { default_implementation: true, names, ..Config::default() };
    let changed: BTreeMap<_, _> =
        candidates.iter().map(|it| (key(it.service), it.after())).collect();
    let after = objects.map_services(|service| {
        if let Some(after) = changed.get(&key(service)) {
            *service = after.clone();
        }
    });
    let prediction = predict(config, &after.with(manifests.iter().cloned()), expected.collect());
    problems.extend(prediction.invalid);
    let migration = Migration {
        title: "Migration from spec.externalIPs".to_owned(),
        facts: vec![
            format!("Services with external IPs that can migrate: {}", candidates.len()),
            format!("their external IPs: {}", pool.len()),
        ],
        services: prediction.outcomes,
        problems,
        files: vec![ManifestFile { name: FILE, objects: manifests }],
        ..Migration::default()
    };
    if candidates.is_empty() {
        return Migration { files: Vec::new(), ..migration };
    }
    migration.with_steps(steps(&candidates, directory, ferrolb))
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
        if obstacles.is_empty() {
            let annotations = Annotations::keep(service, &addresses, &shared);
            candidates.push(Candidate { service, addresses, annotations });
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

fn manifests(pool: &BTreeSet<IpAddr>, namespaces: &BTreeSet<&str>, ferrolb: &str) -> Vec<Value> {
    let object = |kind: CustomResourceKind, spec: Value| {
        json!({
            "apiVersion": format!("{}/{}", api::GROUP, kind.version()), "kind": kind.name(),
            "metadata": {"name": POOL, "namespace": ferrolb}, "spec": spec,
        })
    };
    let allocation = json!({"namespaces": namespaces});
    let spec = json!({"addresses": pool, "autoAssign": false, "serviceAllocation": allocation});
    vec![
        object(CustomResourceKind::IPAddressPool, spec),
        object(CustomResourceKind::L2Advertisement, json!({"ipAddressPools": [POOL]})),
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

    fn patch(&self, spec: &Value) -> String {
        let patch = json!({"spec": spec}).to_string();
        format!("{} --type=merge -p {}", on_service("patch", self.service), quoted(&patch))
    }
}

fn steps(candidates: &[Candidate<'_>], directory: &str, ferrolb: &str) -> Vec<Step> {
    let file = file(directory, FILE);
    let pool = Step::new("pool", "Create the pool", "none: FerroLB assigns no external IP")
        .check(format!("kubectl -n {} get fspeaker", quoted(ferrolb)), "one line for each node")
        .check(format!("kubectl apply --dry-run=server -f {file}"), "no error")
        .run(format!("kubectl apply -f {file}"))
        .undo(format!("kubectl delete -f {file}"));
    let serve = Step::new(
        "serve",
        "Request the addresses, and change the type",
        "none: kube-proxy serves the addresses before and after; a node announces each of them less \
         than 1 s later, unless another host or an interface still replies for it (KernelAnswers)",
    )
    .check(
        format!("kubectl -n {} wait --for=condition=Valid fpool/{POOL} --timeout=60s", quoted(ferrolb)),
        "condition met",
    )
    .run_all(candidates.iter().filter_map(|it| it.annotations.command()))
    .run_all(candidates.iter().map(|it| it.patch(&json!({"type": "LoadBalancer"}))))
    .undo_all(candidates.iter().map(|it| {
        let former = match text(it.service, "/spec/type") {
            "" => "ClusterIP",
            former => former,
        };
        it.patch(&json!({"type": former}))
    }))
    .undo_all(candidates.iter().filter_map(|it| it.annotations.undo()));
    let move_owner = Step::new(
        "move",
        "Remove the addresses from interfaces of nodes, and static routes to them",
        "a node of FerroLB announces each address less than 1 s after no other host replies for it; \
         up to 15 s if one still did in the step before",
    )
    .run("# on the hosts and routers that have them")
    .undo("# add the addresses and routes again");
    let wait = |it: &Candidate<'_>| {
        let name = quoted(objects::name(it.service));
        format!(
            "kubectl -n {} wait --for=condition=ferrolb.io/Announced service/{name} --timeout=60s",
            quoted(namespace(it.service))
        )
    };
    let mut remove = Step::new("remove", "Remove spec.externalIPs", "none");
    for it in candidates {
        remove = remove.check(wait(it), "condition met");
    }
    let remove = remove
        .run_all(candidates.iter().map(|it| it.patch(&json!({"externalIPs": null}))))
        .undo_all(candidates.iter().map(|it| it.patch(&json!({"externalIPs": it.addresses}))));
    let verify = Step::new("verify", "Verify the addresses", "none").run(list_addresses());
    vec![pool, serve, move_owner, remove, verify]
}
