//! Tests of whole plans: golden files, and the translation of every field of MetalLB. The folder
//! `fixtures` has the objects and the expected plans.

mod further_runs;
mod node_by_node;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferrolb_proto::api::{self, CustomResourceKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::metallb::MetalLb;
use super::translate::{KINDS, METALLB, Translation, translate};
use super::{
    Action, Level, ManifestFile, Migration, Objects, Problem, Step, external_ips, files, kube_vip,
    render, servicelb,
};
use crate::golden::golden;
use crate::objects;

/// Names of the namespace of FerroLB, and of the directory, in all plans.
const FERROLB: &str = api::NAMESPACE;
const DIRECTORY: &str = "ferrolb-migration";

/// The fields of `spec` of MetalLB 0.16, by kind and version.
const METALLB_FIELDS: [(&str, &str, &str); 7] = [
    ("IPAddressPool", "v1beta1", "addresses autoAssign avoidBuggyIPs serviceAllocation"),
    (
        "L2Advertisement",
        "v1beta1",
        "interfaces ipAddressPoolSelectors ipAddressPools nodeSelectors preferredNodeSelectors \
         serviceSelectors",
    ),
    (
        "BGPAdvertisement",
        "v1beta1",
        "aggregationLength aggregationLengthV6 communities ipAddressPoolSelectors ipAddressPools \
         localPref nodeSelectors peers serviceSelectors",
    ),
    (
        "BGPPeer",
        "v1beta1",
        "bfdProfile ebgpMultiHop holdTime keepaliveTime myASN nodeSelectors password peerASN \
         peerAddress peerPort routerID sourceAddress",
    ),
    (
        "BGPPeer",
        "v1beta2",
        "bfdProfile connectTime disableMP dualStackAddressFamily dynamicASN ebgpMultiHop \
         enableGracefulRestart holdTime interface keepaliveTime localASN myASN nodeSelectors \
         password passwordSecret peerASN peerAddress peerPort routerID sourceAddress vrf",
    ),
    (
        "BFDProfile",
        "v1beta1",
        "detectMultiplier echoInterval echoMode minimumTtl passiveMode receiveInterval \
         transmitInterval",
    ),
    ("Community", "v1beta1", "communities"),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migrate/fixtures").join(name)
}

fn read(names: &[&str]) -> Objects {
    let paths: Vec<_> = names.iter().map(|name| fixture(name)).collect();
    files::read(&paths).unwrap()
}

/// Compares a plan and its files with a golden file.
fn check(name: &str, mut text: String, files: &[ManifestFile]) {
    for file in files {
        text += &format!("\n# {}\n{}", file.name, file.yaml().unwrap());
    }
    golden(&format!("migrate/fixtures/{name}"), &text);
}

/// Steps that change nothing in the cluster, or nothing that a rollback needs.
const WITHOUT_ROLLBACK: [&str; 4] = ["save", "verify", "finalizers", "clean-up"];

fn check_steps(name: &str, migration: &Migration) {
    for step in migration.steps.iter().filter(|it| !WITHOUT_ROLLBACK.contains(&it.id)) {
        assert!(!step.checks.is_empty(), "{name}: the step {} has no check", step.id);
        assert!(!step.rollback.is_empty(), "{name}: the step {} has no rollback", step.id);
    }
}

fn check_migration(name: &str, migration: &Migration) {
    check_steps(name, migration);
    check(name, render::migration(migration), &migration.files);
}

#[test]
fn plans_for_metallb_equal_the_golden_files() {
    let objects = read(&["metallb.yaml"]);
    let metallb = MetalLb::find(&objects, None, FERROLB).unwrap();
    let (own_group, in_place) = (metallb.own_group(DIRECTORY), metallb.in_place(DIRECTORY));
    check("metallb_plan.txt", render::comparison(&[&own_group, &in_place], "Next: ..."), &[]);
    check_migration("metallb_own_group.txt", &own_group);
    check_migration("metallb_in_place.txt", &in_place);
    assert!(!own_group.keeps_everything() && !in_place.keeps_everything());
}

#[test]
fn a_simple_cluster_with_a_class_keeps_everything() {
    let objects = read(&["metallb_class.yaml"]);
    let metallb = MetalLb::find(&objects, None, FERROLB).unwrap();
    let (own_group, in_place) = (metallb.own_group(DIRECTORY), metallb.in_place(DIRECTORY));
    assert!(own_group.keeps_everything(), "{own_group:#?}");
    assert!(in_place.keeps_everything(), "{in_place:#?}");
    check_migration("metallb_class.txt", &own_group);
    check_migration("metallb_class_in_place.txt", &in_place);
    // Without L2Advertisements, the routes alone decide the order.
    let is_layer2 = |it: &Value| it["kind"] == "L2Advertisement";
    let text = fs::read_to_string(fixture("metallb.yaml")).unwrap();
    let all = serde_saphyr::from_multiple::<Value>(&text).unwrap();
    let objects = Objects::new(all.into_iter().filter(|it| !is_layer2(it)));
    let metallb = MetalLb::find(&objects, None, FERROLB).unwrap();
    let effects = |migration: &Migration| {
        let steps = migration.steps.iter().filter(|it| ["switch", "stop"].contains(&it.id));
        steps.map(|it| it.effect.split([':', ',']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(effects(&metallb.own_group("")), ["none", "MetalLB's pods end within 2 s"]);
    assert_eq!(effects(&metallb.in_place("")), ["MetalLB's pods end within 2 s"]);
}

#[test]
fn plans_for_other_load_balancers_equal_the_golden_files() {
    let servicelb = |names: &[&str]| servicelb::plan(&read(names), DIRECTORY, FERROLB);
    check_migration("servicelb.txt", &servicelb(&["servicelb.yaml"]));
    check_migration("servicelb_pool.txt", &servicelb(&["servicelb.yaml", "servicelb_pool.yaml"]));
    let plan = |name: &str| kube_vip::plan(&read(&[name]), DIRECTORY, FERROLB);
    check_migration("kube_vip.txt", &plan("kube_vip.yaml"));
    check_migration("kube_vip_bgp.txt", &plan("kube_vip_bgp.yaml"));
    let external_ips = external_ips::plan(&read(&["external_ips.yaml"]), DIRECTORY, FERROLB);
    check_migration("external_ips.txt", &external_ips);
}

/// Returns a Service that FerroLB serves from a pool, with this address on request.
fn served(name: &str, pool: &str, address: &str) -> Value {
    let annotations = json!({"ferrolb.io/ip-allocated-from-pool": pool,
        "ferrolb.io/loadBalancerIPs": address});
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "blue", "annotations": annotations},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
            "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
}

fn pool(name: &str, spec: Value) -> Value {
    objects::object(CustomResourceKind::IPAddressPool, name, FERROLB, spec)
}

/// Returns whether a plan predicts that the Service `blue/NAME` keeps its address.
fn keeps(migration: &Migration, name: &str) -> bool {
    let mut services = migration.services.iter();
    services.any(|it| it.service == format!("blue/{name}") && it.is_kept())
}

fn step<'m>(migration: &'m Migration, id: &str) -> &'m Step {
    migration.steps.iter().find(|it| it.id == id).unwrap()
}

fn texts(actions: &[Action]) -> Vec<String> {
    actions.iter().map(ToString::to_string).collect()
}

#[test]
fn only_metallbs_objects_are_deleted_and_each_is_saved_before() {
    let configuration = |name: &str| {
        json!({"apiVersion": "frrk8s.metallb.io/v1beta1", "kind": "FRRConfiguration",
            "metadata": {"name": name, "namespace": "frr-k8s-system"}, "spec": {}})
    };
    let others = ["metallb-node1", "metallb-extra"].map(configuration);
    let objects = read(&["metallb.yaml"]).with(others);
    let plan = MetalLb::find(&objects, None, FERROLB).unwrap().own_group(DIRECTORY);
    let commands = |id: &str| texts(&step(&plan, id).commands).join("\n");
    assert!(
        commands("stop")
            .contains("frrconfigurations.frrk8s.metallb.io --ignore-not-found metallb-node1")
    );
    let saved = commands("save");
    assert!(saved.contains("get frrconfigurations.frrk8s.metallb.io metallb-node1 -o yaml"));
    assert!(saved.contains("-o yaml metallb-webhook-configuration"), "{saved}");
    let mut all = plan.steps.iter().flat_map(|it| texts(&it.commands));
    assert!(!all.any(|it| it.contains("metallb-extra")));
    let is_reported = |it: &Problem| it.object.contains("metallb-extra");
    assert!(plan.problems.iter().any(is_reported), "{:#?}", plan.problems);
}

#[test]
fn a_class_of_kube_vip_is_set_after_kube_vip_has_stopped() {
    let text = fs::read_to_string(fixture("kube_vip_bgp.yaml")).unwrap();
    let text = text
        .replace(
            "{name: bgp_enable,",
            "{name: lb_class_only, value: \"true\"}\n        - {name: bgp_enable,",
        )
        .replace(
            "{type: LoadBalancer,",
            "{type: LoadBalancer, loadBalancerClass: kube-vip.io/kube-vip-class,",
        );
    let objects = Objects::new(serde_saphyr::from_multiple::<Value>(&text).unwrap());
    let plan = kube_vip::plan(&objects, DIRECTORY, FERROLB);
    assert!(plan.keeps_everything() && plan.services.len() == 1, "{plan:#?}");
    let commands = |id: &str| texts(&step(&plan, id).commands).join("\n");
    assert!(commands("install").contains("--set loadBalancerClass=ferrolb.io/ferrolb --set bgp"));
    assert!(commands("switch").ends_with("--set loadBalancerClass=kube-vip.io/kube-vip-class"));
}

/// Returns FerroLB's controller, without and with a Helm release.
fn controllers() -> [Value; 2] {
    [json!({}), json!({"app.kubernetes.io/managed-by": "Helm"})].map(|labels| {
        let env = json!([{"name": "FERROLB_DEFAULT_IMPLEMENTATION", "value": "false"}]);
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "controller", "namespace": FERROLB, "labels": labels},
            "spec": {"selector": {}, "template": {"spec": {"containers": [
                {"name": "controller", "env": env}]}}}})
    })
}

#[test]
fn an_existing_installation_is_neither_installed_nor_deleted() {
    for controller in controllers() {
        let objects = |name: &str| read(&[name]).with([controller.clone()]);
        let metallb =
            |name: &str| MetalLb::find(&objects(name), None, FERROLB).unwrap().own_group(DIRECTORY);
        let plans = [
            metallb("metallb.yaml"),
            metallb("metallb_class.yaml"),
            servicelb::plan(&objects("servicelb.yaml"), DIRECTORY, FERROLB),
            kube_vip::plan(&objects("kube_vip.yaml"), DIRECTORY, FERROLB),
            kube_vip::plan(&objects("kube_vip_bgp.yaml"), DIRECTORY, FERROLB),
            external_ips::plan(&objects("external_ips.yaml"), DIRECTORY, FERROLB),
        ];
        for plan in &plans {
            let commands = plan.steps.iter().flat_map(|it| it.commands.iter().chain(&it.rollback));
            let commands: Vec<String> = commands.map(ToString::to_string).collect();
            for word in ["ferrolb install", "--install", "uninstall", "crd"] {
                assert!(!commands.iter().any(|it| it.contains(word)), "{word}: {commands:#?}");
            }
            let is_release = controller["metadata"]["labels"] != json!({});
            assert_eq!(commands.iter().any(|it| it.starts_with("helm ")), is_release);
            assert_eq!(
                commands
                    .iter()
                    .any(|it| it.contains(" set env ") && it.contains(" deployment/controller ")),
                !is_release
            );
        }
        let objects = objects("metallb.yaml");
        let in_place = MetalLb::find(&objects, None, FERROLB).unwrap().in_place(DIRECTORY);
        assert!(in_place.steps.is_empty());
        assert!(in_place.problems.iter().any(|it| it.text.starts_with("it is installed already")));
    }
}

#[test]
fn rollbacks_delete_no_custom_resource_definition_and_no_objects_of_others() {
    let plans = [
        servicelb::plan(&read(&["servicelb.yaml"]), DIRECTORY, FERROLB),
        kube_vip::plan(&read(&["kube_vip.yaml"]), DIRECTORY, FERROLB),
        kube_vip::plan(&read(&["kube_vip_bgp.yaml"]), DIRECTORY, FERROLB),
    ];
    for command in plans.iter().flat_map(|it| &it.steps).flat_map(|it| texts(&it.rollback)) {
        assert!(!command.contains("delete -f -") && !command.contains("crd"), "{command}");
        assert!(!command.contains("--all"), "{command}");
    }
}

#[test]
fn plans_for_an_empty_cluster_have_no_files_and_no_panic() {
    let empty = Objects::default();
    assert!(MetalLb::find(&empty, None, FERROLB).is_err());
    assert!(external_ips::plan(&empty, DIRECTORY, FERROLB).files.is_empty());
    assert!(servicelb::plan(&empty, DIRECTORY, FERROLB).steps.is_empty());
    let kube_vip = kube_vip::plan(&empty, DIRECTORY, FERROLB);
    assert!(!kube_vip.keeps_everything() && kube_vip.files.is_empty());
}

#[test]
fn the_fixture_has_every_field_of_metallb() {
    let objects = read(&["metallb.yaml"]);
    for (kind, version, fields) in METALLB_FIELDS {
        let expected: BTreeSet<&str> = fields.split_whitespace().collect();
        let api_version = format!("{METALLB}/{version}");
        let all = objects.of(METALLB, kind).filter(|it| it["apiVersion"] == *api_version);
        let specs = all.filter_map(|it| it["spec"].as_object());
        let found: BTreeSet<&str> = specs.flatten().map(|(name, _)| name.as_str()).collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        assert!(missing.is_empty(), "{kind} {version} lacks {missing:?}");
    }
}

/// Collects the paths and the values of all leaves.
fn leaves(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{path}.{name}"), found));
        }
        Value::Array(items) if !items.is_empty() => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| leaves(item, &format!("{path}[{index}]"), found));
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            found.push((path.to_owned(), value.clone()));
        }
    }
}

#[test]
fn every_field_is_translated_or_reported() {
    let objects = read(&["metallb.yaml"]);
    let Translation { manifests, problems, secrets } =
        translate(&objects, "metallb-system", FERROLB);
    assert_eq!(secrets, [("metallb-system".to_owned(), "tor1".to_owned())].into());
    // The default of these fields has the same meaning.
    let is_default = |path: &str, value: &Value| {
        (path == "spec.peerPort" && value == 0)
            || path == "spec.passwordSecret.namespace"
            || (path.contains(".values[") && value == "any")
    };
    for kind in KINDS {
        for object in objects.of(METALLB, kind.name()) {
            let label = objects::label(object);
            let manifest = manifests.iter().find(|it| objects::label(it) == label).unwrap();
            let (mut before, mut after) = (Vec::new(), Vec::new());
            leaves(&object["spec"], "spec", &mut before);
            leaves(&manifest["spec"], "spec", &mut after);
            for (path, value) in before {
                let is_reported = problems.iter().any(|problem| {
                    problem.object == label
                        && path.starts_with(problem.text.split(':').next().unwrap())
                });
                assert!(
                    after.contains(&(path.clone(), value.clone()))
                        || is_reported
                        || is_default(&path, &value),
                    "{label}: {path} = {value} is lost"
                );
            }
        }
    }
    assert!(problems.iter().any(|problem| problem.text.starts_with("spec.futureField")));
}

fn decodes<K: DeserializeOwned>(object: &Value) {
    let decoded: Result<K, _> = serde_json::from_value(object.clone());
    assert!(decoded.is_ok(), "{object:#} cannot be decoded: {:?}", decoded.err());
}

#[test]
fn every_manifest_decodes_as_ferrolbs_type() {
    let plans = [
        MetalLb::find(&read(&["metallb.yaml"]), None, FERROLB).unwrap().own_group(DIRECTORY),
        kube_vip::plan(&read(&["kube_vip.yaml"]), DIRECTORY, FERROLB),
        kube_vip::plan(&read(&["kube_vip_bgp.yaml"]), DIRECTORY, FERROLB),
        external_ips::plan(&read(&["external_ips.yaml"]), DIRECTORY, FERROLB),
    ];
    let mut kinds = BTreeSet::new();
    for object in plans
        .iter()
        .flat_map(|plan| &plan.files)
        .flat_map(|file| serde_saphyr::from_multiple::<Value>(&file.yaml().unwrap()).unwrap())
    {
        let kind = KINDS.into_iter().find(|kind| object["kind"] == kind.name()).unwrap();
        assert_eq!(object["apiVersion"], format!("ferrolb.io/{}", kind.version()));
        assert_eq!(object["metadata"]["namespace"], FERROLB);
        match kind {
            CustomResourceKind::IPAddressPool => decodes::<api::IPAddressPoolObject>(&object),
            CustomResourceKind::L2Advertisement => decodes::<api::L2AdvertisementObject>(&object),
            CustomResourceKind::BGPAdvertisement => decodes::<api::BgpAdvertisementObject>(&object),
            CustomResourceKind::BGPPeer => decodes::<api::BgpPeerObject>(&object),
            CustomResourceKind::BFDProfile => decodes::<api::BfdProfileObject>(&object),
            CustomResourceKind::Community => decodes::<api::CommunityObject>(&object),
            CustomResourceKind::SpeakerStatus => panic!("no manifest of this kind"),
        }
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), KINDS.len(), "all six kinds are written");
}

#[test]
fn no_output_has_a_password_of_kube_vip() {
    let plan = kube_vip::plan(&read(&["kube_vip_bgp.yaml"]), DIRECTORY, FERROLB);
    let json = serde_json::to_string(&plan).unwrap();
    assert!(
        json.contains("passwordSecret")
            && !json.contains(":secret")
            && !json.contains("\"secret\"")
    );
}

#[test]
fn passwords_of_metallb_are_in_the_files_only() {
    let peer = json!({"kind": "BGPPeer", "spec": {"password": "hush"}});
    let file = ManifestFile { name: "peers.yaml", objects: vec![peer] };
    let json = serde_json::to_string(&file).unwrap();
    assert!(json.contains("(only in the file)") && !json.contains("hush"), "{json}");
    assert!(file.yaml().unwrap().contains("hush"));
}

#[test]
fn metallbs_namespace_must_be_unique() {
    let pool = |namespace: &str| {
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "a", "namespace": namespace}, "spec": {"addresses": []}})
    };
    let objects = Objects::new([pool("a"), pool("b")]);
    let error = MetalLb::find(&objects, None, FERROLB).err().unwrap().to_string();
    assert!(error.contains("--metallb-namespace"), "{error}");
    assert!(MetalLb::find(&objects, Some("b"), FERROLB).is_ok());
    assert!(MetalLb::find(&Objects::new([pool("a")]), None, FERROLB).is_ok());
    let error = MetalLb::find(&Objects::new([pool("a")]), None, "a").err().unwrap().to_string();
    assert!(error.contains("--installation"), "{error}");
}

#[test]
fn stored_versions_matter_only_if_there_are_peers() {
    let object = |version: &str, kind: &str, name: &str| {
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "a"},
            "spec": {"addresses": []}, "status": {"storedVersions": ["v1beta1", "v1beta2"]}})
    };
    let pool = object("metallb.io/v1beta1", "IPAddressPool", "lan");
    let crd = object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "bgppeers.metallb.io");
    let objects = Objects::new([pool, crd]);
    let is_reported = |objects: &Objects| {
        let plan = MetalLb::find(objects, None, FERROLB).unwrap().in_place(DIRECTORY);
        plan.problems.iter().any(|it| it.text.contains("store them again"))
    };
    assert!(!is_reported(&objects));
    assert!(is_reported(&objects.with([object("metallb.io/v1beta2", "BGPPeer", "tor")])));
}

#[test]
fn existing_files_are_not_overwritten() {
    let directory = std::env::temp_dir().join(format!("ferrolb-migrate-{}", std::process::id()));
    let file = |name| (name, "{kind: List, items: []}".to_owned());
    files::write(&directory, &[file("b.yaml")]).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(directory.join("b.yaml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only the owner may read the file");
    }
    let error = files::write(&directory, &[file("a.yaml"), file("b.yaml")]).unwrap_err();
    assert!(error.to_string().contains("b.yaml exists"), "{error}");
    assert!(!directory.join("a.yaml").exists(), "no file is written");
    fs::write(directory.join("c.txt"), "{").unwrap();
    assert!(files::read(std::slice::from_ref(&directory)).is_ok(), "other files are ignored");
    fs::write(directory.join("d.yaml"), "{").unwrap();
    assert!(files::read(std::slice::from_ref(&directory)).is_err());
    for (bad, message) in [
        ("{kind: A, metadata: {name: a, namespace: \"b\\nrm x\"}}", "control character"),
        (&*format!("a: &a x\nb: [{}]", "*a,".repeat(200)), "budget"),
    ] {
        fs::write(directory.join("d.yaml"), bad).unwrap();
        let error = files::read(std::slice::from_ref(&directory)).err().unwrap();
        assert!(format!("{error:#}").to_lowercase().contains(message), "{error:#}");
    }
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn notes_do_not_fail_a_migration() {
    let mut migration = Migration::default();
    migration.problems.push(Problem::note("a", "b"));
    assert!(migration.keeps_everything());
    migration.problems.push(Problem::of("a", "b"));
    assert_eq!(migration.problems.last().unwrap().level, Level::Problem);
    assert!(!migration.keeps_everything());
}
