//! The migration from MetalLB node by node: the runbook, and the order of the steps.

use super::*;
use crate::migrate::args::{Common, Source};
use crate::migrate::groups::Groups;
use crate::migrate::metallb_nodes;
use crate::migrate::run::run;
use crate::migrate::runbook::runbook;

const NAMESPACE: &str = "metallb-system";

fn plan(objects: &Objects, by: Option<&str>) -> Migration {
    MetalLb::find(objects, None, FERROLB).unwrap().node_by_node(DIRECTORY, by).unwrap()
}

fn node(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

fn steps(migration: &Migration) -> Vec<&str> {
    migration.steps.iter().map(|it| it.id).collect()
}

/// Returns the objects of the fixture except those of a kind.
fn without(kind: &str) -> Objects {
    read(&["metallb.yaml"]).without(|it| it["kind"] == kind)
}

#[test]
fn the_runbook_equals_the_golden_file() {
    let migration = plan(&read(&["metallb.yaml"]), Some("rack"));
    check_steps("node by node", &migration);
    let files: Vec<_> = migration.files.into_iter().filter(|it| it.name.contains('-')).collect();
    let migration = Migration { files: Vec::new(), ..migration };
    check("metallb_nodes_runbook.txt", runbook(&migration), &files);
}

#[test]
fn the_kinds_of_advertisements_decide_the_stages() {
    let begin = ["save", "install", "copy", "default"];
    let end = ["stop", "verify", "clean-up"];
    let expect = |middle: &[&'static str]| [&begin[..], middle, &end].concat();
    let both =
        ["controller", "layer2", "layer2-end", "prepare", "first-nodes", "services", "nodes"];
    assert_eq!(steps(&plan(&read(&["metallb.yaml"]), None)), expect(&both));
    let bgp = ["controller", "prepare", "first-nodes", "services", "nodes"];
    assert_eq!(steps(&plan(&without("L2Advertisement"), None)), expect(&bgp));
    let layer2 = ["controller", "layer2", "layer2-end", "services"];
    assert_eq!(steps(&plan(&without("BGPPeer"), None)), expect(&layer2));
}

#[test]
fn no_block_of_the_runbook_is_a_comment() {
    let text = runbook(&plan(&read(&["metallb.yaml"]), None));
    assert!(
        text.contains("\n- [ ] Check on the routers"),
        "an action without a command has no block"
    );
    assert!(!text.contains("```sh\n  #"), "{text}");
}

#[test]
fn moved_peers_have_the_label_in_each_selector_and_a_wrong_type_is_no_panic() {
    let moved =
        |spec: Value| metallb_nodes::moved_peers(&[json!({"spec": spec})])[0]["spec"].clone();
    let label = json!({"ferrolb.io/migration": "bgp"});
    let selectors = |it: Value| json!({"nodeSelectors": it});
    assert_eq!(moved(json!({})), selectors(json!([{"matchLabels": label}])));
    let exists = json!([{"key": "a", "operator": "Exists"}]);
    assert_eq!(
        moved(selectors(json!([{"matchLabels": {"b": "c"}}, {"matchExpressions": exists}]))),
        selectors(json!([{"matchLabels": {"b": "c", "ferrolb.io/migration": "bgp"}},
            {"matchExpressions": exists, "matchLabels": label}]))
    );
    assert_eq!(moved(json!("text")), json!("text"));
    assert_eq!(moved(selectors(json!(["text"]))), selectors(json!(["text"])));
}

#[test]
fn groups_have_equal_labels_and_the_rest_is_last() {
    let nodes = [
        node("a", json!({})),
        node("b", json!({"rack": "2"})),
        node("c", json!({"rack": "1"})),
        node("d", json!({"rack": "2"})),
    ];
    let objects = Objects::new(nodes);
    let groups = |by| {
        let groups = Groups::find(&objects, NAMESPACE, by).unwrap();
        groups.all.into_iter().map(|it| (it.name, it.nodes.join(" "))).collect::<Vec<_>>()
    };
    let pair = |name: &str, nodes: &str| (name.to_owned(), nodes.to_owned());
    let racks = [pair("rack=1", "c"), pair("rack=2", "b d"), pair("nodes without rack", "a")];
    assert_eq!(groups(Some("rack")), racks);
    assert_eq!(groups(None), ["a", "b", "c", "d"].map(|it| pair(it, it)));
    for (objects, message) in [(&objects, "--show-labels"), (&Objects::default(), "get nodes")] {
        let error = Groups::find(objects, NAMESPACE, Some("zone")).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// Returns a Service of MetalLB with an address of the pool `lan`.
fn served_by_metallb(address: &str) -> Value {
    let mut service = served("web", "lan", address);
    service["metadata"]["annotations"] = json!({"metallb.io/ip-allocated-from-pool": "lan"});
    service
}

#[test]
fn a_service_moves_with_the_node_that_announces_it() {
    let object = |kind: &str, spec: Value| {
        json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
            "metadata": {"name": "lan", "namespace": NAMESPACE, "labels": {"a": "b"}}, "spec": spec})
    };
    // Of node1 to node3, sha256sum orders node1 first for 172.30.0.200.
    let address = "172.30.0.200";
    let exclude = "node.kubernetes.io/exclude-from-external-load-balancers";
    let owner = |advertisement: Value, labels: Value| {
        let objects = Objects::new([
            node("node1", labels),
            node("node2", json!({"rack": "a"})),
            node("node3", json!({})),
            object("IPAddressPool", json!({"addresses": [address]})),
            object("L2Advertisement", advertisement),
            served_by_metallb(address),
        ]);
        let groups = Groups::find(&objects, NAMESPACE, None).unwrap();
        let name = groups.on_layer2().map(|it| it.name.clone()).next();
        name.unwrap_or_else(|| format!("others: {}", groups.others.counted()))
    };
    let first = owner(json!({}), json!({}));
    assert_eq!(owner(json!({"ipAddressPools": ["lan"]}), json!({})), first);
    let selector = |value: &str| json!({"ipAddressPoolSelectors": [{"matchLabels": {"a": value}}]});
    assert_eq!(owner(selector("b"), json!({})), first);
    assert_eq!(owner(selector("c"), json!({})), "others: 1 Service");
    assert_eq!(owner(json!({"ipAddressPools": ["other"]}), json!({})), "others: 1 Service");
    let selected = json!({"nodeSelectors": [{"matchLabels": {"rack": "a"}}]});
    assert_eq!(owner(selected, json!({})), "node2");
    let excluded = owner(json!({}), json!({exclude: ""}));
    assert_eq!((&*first, excluded != first), ("node1", true));
    let mut service = served_by_metallb(address);
    service["spec"]["loadBalancerClass"] = json!("other");
    let objects = Objects::new([node("node1", json!({})), service]);
    let groups = Groups::find(&objects, NAMESPACE, None).unwrap();
    assert!(groups.others.is_empty(), "MetalLB does not serve a Service of another class");
}

#[test]
fn a_class_frr_k8s_elsewhere_and_a_single_group_prevent_single_nodes() {
    let is_reported = |objects: &Objects| {
        let migration = plan(objects, None);
        assert_eq!(steps(&migration), [""; 0]);
        migration.problems.iter().any(|it| it.text.ends_with("migrate with --own-group"))
    };
    assert!(is_reported(&read(&["metallb_class.yaml"])));
    let frr = json!({"apiVersion": "frrk8s.metallb.io/v1beta1", "kind": "FRRConfiguration",
        "metadata": {"name": "metallb-node1", "namespace": "frr-k8s-system"}, "spec": {}});
    assert!(is_reported(&read(&["metallb.yaml"]).with([frr])));
    let node2 = |it: &Value| it["kind"] == "Node" && objects::name(it) == "node2";
    assert!(is_reported(&read(&["metallb.yaml"]).without(node2)));
    // Without MetalLB's workloads, no command would stop it.
    assert_eq!(steps(&plan(&without("DaemonSet"), None)), [""; 0]);
}

/// Runs the command with a choice of the way, and returns the names of the files that it writes.
async fn written([own_group, in_place, node_by_node]: [bool; 3], to: PathBuf) -> String {
    let from = vec![fixture("metallb.yaml")];
    let common = Common { plan: false, from, to: to.clone(), output: None };
    let (group_by, metallb_namespace) = (None, None);
    let source =
        Source::Metallb { own_group, in_place, node_by_node, group_by, metallb_namespace, common };
    run(None, &source, FERROLB).await.unwrap();
    let entries = fs::read_dir(to).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn each_way_writes_a_runbook_and_its_objects() {
    let directory = std::env::temp_dir().join(format!("ferrolb-runbook-{}", std::process::id()));
    for (ways, files) in [
        ([true, false, false], "RUNBOOK.md ferrolb.yaml peers.yaml"),
        ([false, true, false], "RUNBOOK.md"),
        (
            [false, false, true],
            "RUNBOOK.md ferrolb.yaml metallb-layer2.yaml peers-moved.yaml peers.yaml",
        ),
    ] {
        assert_eq!(written(ways, directory.clone()).await, files);
        fs::remove_dir_all(&directory).unwrap();
    }
}
