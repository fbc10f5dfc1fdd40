//! Golden files of reports: one with all findings, one without, one before an installation.

mod others;

use std::collections::BTreeSet;

use ferrolb_controller_core::credibility::{SpeakerPods, stale_speakers};
use ferrolb_controller_core::other_load_balancers::{KUBE_VIP, METALLB, SERVICE_LB};
use ferrolb_controller_core::state::{Config, Names, PoolRow, ServiceRow};
use ferrolb_proto::api::{
    self, ConditionStatus, InterfaceIssue, InterfaceIssueReason, KubeProxyState, KubeProxyStatus,
    LateHellos,
};
use ferrolb_proto::facts::{
    AllocationDemand, AssignedAddress, BgpPeer, Key, Node, Pool, Service, Speaker, SpeakerInterface,
};
use serde_json::json;

use super::cluster;
use super::daemon_sets::LoadBalancer;
use super::facts::{ClusterFacts, KubeProxyConfig, Objects, ResourceCondition, Webhook};
use super::finding::{Category, Code, Object};
use super::plugins::CiliumConfig;
use super::rbac::Permission;
use super::report::{CategoryReport, Report};
use super::text::{short, text};
use crate::golden::golden;
use crate::installation::Installation;
use crate::why::key;
use others::traces;

fn node(name: &str, address: &str) -> Node {
    Node { name: name.into(), addresses: vec![address.parse().unwrap()], ..Node::default() }
}

/// Returns a speaker with the interface eth0 and these contacts.
fn speaker(node: &str, contacts: &[&str]) -> Speaker {
    let interface = SpeakerInterface {
        name: "eth0".into(),
        up: true,
        hello_senders: contacts.iter().map(|name| (*name).into()).collect(),
        subnets: ["192.168.1.0/24".parse().unwrap()].into(),
        ..SpeakerInterface::default()
    };
    Speaker { node: node.into(), interfaces: [interface].into(), ..Speaker::default() }
}

fn pool(name: &str, addresses: &[&str]) -> Pool {
    let object = json!({"metadata": {"name": name}, "spec": {"addresses": addresses}});
    serde_json::from_value::<api::IPAddressPoolObject>(object).unwrap().into()
}

fn row(service: &str, reason: &str) -> ServiceRow {
    ServiceRow {
        service: key(service, ""),
        announced: reason == "Announced",
        reason: reason.to_owned(),
        served: true,
        ..ServiceRow::default()
    }
}

fn permission(account: &str, resource: &str, allowed: bool) -> Permission {
    Permission {
        account: account.to_owned(),
        group: "apps".to_owned(),
        resource: resource.to_owned(),
        verb: "create".to_owned(),
        allowed,
        ..Permission::default()
    }
}

/// Returns an installation on three nodes without findings.
fn good() -> ClusterFacts {
    let installed = |crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        Some((crd.metadata.name.clone()?, crd))
    };
    let objects = Objects {
        installation: Installation {
            namespace: api::NAMESPACE.to_owned(),
            config: Config {
                default_implementation: true,
                names: Names { namespace: api::NAMESPACE.into(), group: api::GROUP.into() },
                ..Config::default()
            },
            exists: true,
            marks_pods: true,
            controllers: Some([2, 2]),
            leader: Some("controller-x7k".to_owned()),
            ..Installation::default()
        },
        nodes: ["node1", "node2", "node3"]
            .iter()
            .enumerate()
            .map(|(index, name)| node(name, &format!("192.168.1.1{index}")))
            .collect(),
        speakers: vec![
            speaker("node1", &["node2", "node3"]),
            speaker("node2", &["node1", "node3"]),
            speaker("node3", &["node1", "node2"]),
        ],
        pools: vec![pool("lan", &["192.168.1.240-192.168.1.250"])],
        rows: vec![row("default/web", "Announced")],
        ..Objects::default()
    };
    ClusterFacts {
        kubernetes: Some([1, 36]),
        kube_proxy: Some(KubeProxyConfig { mode: "nftables".to_owned(), strict_arp: false }),
        service_ranges: vec!["10.96.0.0/12".parse().unwrap()],
        crds: Some(api::crds().into_iter().filter_map(installed).collect()),
        permissions: vec![permission("controller", "a", true), permission("speaker", "b", true)],
        objects: Some(objects),
        ..ClusterFacts::default()
    }
}

fn condition(kind: &'static str, condition: &str, message: &str) -> ResourceCondition {
    ResourceCondition {
        kind,
        name: "tor".to_owned(),
        condition: condition.to_owned(),
        status: ConditionStatus::False,
        reason: "Any".to_owned(),
        message: message.to_owned(),
    }
}

/// Adds the findings about the cluster and other load balancers.
fn with_bad_cluster(mut facts: ClusterFacts) -> ClusterFacts {
    let daemon_set = |product, name| LoadBalancer {
        product,
        daemon_set: Key::new("lb", name),
        version: "v0.9.6".to_owned(),
    };
    facts.kubernetes = Some([1, 30]);
    facts.kube_proxy = Some(KubeProxyConfig { mode: "ipvs".to_owned(), strict_arp: false });
    facts.load_balancers = vec![
        daemon_set(&METALLB, "speaker"),
        daemon_set(&SERVICE_LB, "svclb-web"),
        daemon_set(&KUBE_VIP, "kube-vip"),
    ];
    facts.traces = traces();
    facts.webhooks = vec![Webhook {
        configuration: "metallb-webhook-configuration".to_owned(),
        service: Key::new("metallb-system", "webhook"),
        has_endpoint: false,
    }];
    facts.denied = [(Category::LoadBalancers, "daemonsets.apps is forbidden".to_owned())].into();
    let objects = facts.objects.as_mut().unwrap();
    objects.nodes[..2].iter_mut().for_each(|node| node.excluded = true);
    objects.served_by_others = [Key::new("default", "other")].into();
    let address = "10.96.0.7".parse().unwrap();
    objects.services = vec![Service {
        key: Key::new("default", "tunneled"),
        load_balancer: true,
        assigned: vec![AssignedAddress { address, mode: None }],
        demand: AllocationDemand { cluster_ips: [address].into(), ..AllocationDemand::default() },
        ..Service::default()
    }];
    objects.services.push(Service {
        key: Key::new("default", "cleared"),
        status_manager: Some("cilium-operator-lb-ipam".into()),
        ..Service::default()
    });
    facts
}

/// Returns the speakers of the report with all findings.
fn bad_speakers() -> Vec<Speaker> {
    let mut one = speaker("node1", &["node2"]);
    one.interfaces[0].unheard = ["node2".into()].into();
    one.interfaces[0].addresses = ["192.168.1.241".parse().unwrap()].into();
    let late = LateHellos { milliseconds: 640, detection_milliseconds: 990 };
    one.interfaces[0].late_hellos = Some(late);
    one.interfaces[0].issues = [InterfaceIssue {
        address: "192.168.1.241".parse().unwrap(),
        reason: InterfaceIssueReason::AddressConflict,
        mac: "02:00:00:00:00:09".to_owned(),
        node: None,
    }]
    .into();
    one.kube_proxy = Some(Box::new(KubeProxyStatus {
        state: KubeProxyState::Unhealthy,
        message: "http://10.0.0.1:10256/livez: connection refused".to_owned(),
        last_healthy: Some("2026-11-30T12:01:00Z".to_owned()),
    }));
    let mut two = speaker("node2", &[]);
    two.kube_proxy = Some(Box::new(KubeProxyStatus {
        state: KubeProxyState::NotChecked,
        message: "no node has had a healthy kube-proxy for 120 s".to_owned(),
        last_healthy: Some("2026-11-30T12:04:00Z".to_owned()),
    }));
    vec![one, two, speaker("node4", &["node1"])]
}

/// Warning about a Service with unchecked endpoints.
const UNCHECKED: &str = "1 of 2 endpoints on node1 are not checked (10.0.0.122)";

/// Returns facts with every finding that can occur together.
fn bad() -> ClusterFacts {
    let mut facts = with_bad_cluster(good());
    let crds = facts.crds.as_mut().unwrap();
    crds.remove("communities.ferrolb.io");
    let pools = crds.get_mut("ipaddresspools.ferrolb.io").unwrap();
    let root = pools.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
    root.properties
        .as_mut()
        .unwrap()
        .get_mut("spec")
        .unwrap()
        .properties
        .as_mut()
        .unwrap()
        .remove("routed");
    facts.conditions = vec![
        condition("BGPAdvertisement", "Valid", "spec.peers: no BGPPeer has the name x"),
        condition("BGPPeer", "Established", "no session on node1; node1: Bad Peer AS"),
    ];
    facts.permissions =
        vec![permission("controller", "a", true), permission("controller", "b", false)];
    let objects = facts.objects.as_mut().unwrap();
    objects.installation.controllers = Some([0, 2]);
    objects.installation.leader = None;
    objects.speakers = bad_speakers();
    objects.nodes.push(Node { excluded: true, ..node("node4", "192.168.1.13") });
    objects.stale = ["node4".into()].into();
    objects.nodes[1].pod_cidrs = vec!["10.244.1.0/24".parse().unwrap()];
    objects.pools = vec![pool("lan", &["192.168.1.0/24", "10.96.0.0/28", "10.244.1.70/26"])];
    objects.ranges_outside = [("lan".into(), vec!["10.96.0.0/28".parse().unwrap()])].into();
    objects.peers = vec![
        serde_json::from_value::<api::BgpPeerObject>(json!({
            "metadata": {"name": "tor"},
            "spec": {"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1"},
        }))
        .map(BgpPeer::from)
        .unwrap(),
    ];
    objects.pool_rows =
        vec![PoolRow { pool: "old".to_owned(), services: 2, missing: true, ..PoolRow::default() }];
    let warned = |service, reason| ServiceRow {
        announced: true,
        warnings: vec!["node1 announces it although it is draining".to_owned()],
        ..row(service, reason)
    };
    objects.rows = vec![
        row("default/web", "Announced"),
        ServiceRow { contested: true, ..warned("default/cleared", "StatusContested") },
        warned("default/old", "PoolMissing"),
        warned("default/draining", "Announced"),
        ServiceRow {
            warnings: vec![UNCHECKED.to_owned()],
            unchecked: Some(UNCHECKED.to_owned()),
            ..warned("default/unchecked", "Announced")
        },
        ServiceRow { served: false, ..row("default/of-others", "OtherClass") },
        row("shop/cart", "NoEndpoints"),
        ServiceRow { contested: true, ..row("shop/db", "NoEndpoints") },
    ];
    facts
}

fn codes(report: &Report) -> BTreeSet<Code> {
    report.findings().map(|it| it.code).collect()
}

#[test]
fn all_findings() {
    let report = Report::new(&bad());
    golden("check/golden/all.txt", &text(&report));
    golden("check/golden/all.short.txt", &short(&report));
    golden("check/golden/all.json", &(serde_json::to_string_pretty(&report).unwrap() + "\n"));
    assert!(!report.is_good(false));
}

#[test]
fn no_findings() {
    let report = Report::new(&good());
    golden("check/golden/none.txt", &text(&report));
    assert!(report.is_good(true));
    assert_eq!(short(&report), "");
}

#[test]
fn before_an_installation() {
    let mut facts = with_bad_cluster(good());
    facts.before_installation = true;
    facts.permissions = vec![permission("", "daemonsets", false)];
    let report = Report::new(&facts);
    golden("check/golden/pre.txt", &text(&report));
    assert!(report.categories.iter().all(|it| Category::PRE.contains(&it.category)));
    assert!(codes(&report).contains(&Code::InstallPermission));
}

#[test]
fn findings_that_exclude_others() {
    let with = |change: fn(&mut Objects)| {
        let mut facts = good();
        change(facts.objects.as_mut().unwrap());
        codes(&Report::new(&facts))
    };
    assert_eq!(with(|it| it.installation.exists = false), [Code::NotInstalled].into());
    assert_eq!(with(|it| it.speakers.clear()), [Code::NoSpeaker].into());
    let mut facts = ClusterFacts {
        denied: [(Category::Installation, "services".to_owned())].into(),
        ..ClusterFacts::default()
    };
    assert_eq!(codes(&Report::new(&facts)), [Code::NotChecked].into());
    facts.denied.clear();
    assert_eq!(codes(&Report::new(&facts)), BTreeSet::new());
}

#[test]
fn crds_that_the_user_may_not_read_are_no_problem() {
    let message = "customresourcedefinitions is forbidden".to_owned();
    let denied = [(Category::Installation, message)].into();
    let facts = ClusterFacts { crds: None, denied, ..good() };
    let report = Report::new(&facts);
    assert_eq!(codes(&report), [Code::NotChecked].into());
    let is_partial = |it: &&CategoryReport| {
        it.summary.as_ref().is_some_and(|it| it.contains("not all objects were checked"))
    };
    let partial: Vec<_> =
        report.categories.iter().filter(is_partial).map(|it| it.category).collect();
    assert_eq!(partial, [Category::Installation], "only CRDs were not checked");
}

/// Returns the code and the first object of each finding about speakers with these contacts.
fn contact_findings(contacts: &[&[&str]]) -> Vec<String> {
    let mut facts = good();
    let objects = facts.objects.as_mut().unwrap();
    objects.nodes.truncate(contacts.len());
    let speakers = ["node1", "node2", "node3"].into_iter().zip(contacts);
    objects.speakers = speakers.map(|(node, contacts)| speaker(node, contacts)).collect();
    let nodes = &objects.nodes;
    let node = |name: &str| nodes.iter().find(|node| *node.name == *name);
    objects.stale = stale_speakers(objects.speakers.iter(), node, &SpeakerPods::UNKNOWN);
    let report = Report::new(&facts);
    report.findings().map(|it| format!("{} {}", it.code.name(), it.objects[0].name)).collect()
}

#[test]
fn only_running_speakers_must_be_in_contact() {
    // node3 receives nothing.
    let filtered: [&[&str]; 3] = [&["node2", "node3"], &["node1", "node3"], &[]];
    assert_eq!(contact_findings(&filtered), ["FLB041 node1", "FLB041 node2", "FLB043 node3"]);
    assert_eq!(
        contact_findings(&[&[], &[], &[]]),
        ["FLB043 node1", "FLB043 node2", "FLB043 node3"]
    );
    // node3 has failed: its SpeakerStatus still lists the others.
    let failed: [&[&str]; 3] = [&["node2"], &["node1"], &["node1", "node2"]];
    assert_eq!(contact_findings(&failed), ["FLB009 node3"]);
    // Of two nodes, node2 has failed.
    assert_eq!(contact_findings(&[&[], &["node1"]]), ["FLB009 node2"]);
}

#[test]
fn a_stopped_speaker_has_one_finding() {
    let mut facts = good();
    let objects = facts.objects.as_mut().unwrap();
    objects.speakers = bad_speakers();
    objects.speakers[2].node = "node3".into();
    objects.stale = ["node1".into(), "node2".into()].into();
    assert_eq!(codes(&Report::new(&facts)), [Code::StaleSpeaker].into());
}

#[test]
fn a_kube_proxy_that_was_replaced_is_no_finding() {
    let mut facts = good();
    facts.objects.as_mut().unwrap().speakers = bad_speakers().split_off(1);
    facts.kube_proxy = Some(KubeProxyConfig { mode: "ipvs".to_owned(), strict_arp: false });
    let findings = |facts: &ClusterFacts| {
        let found = codes(&Report::new(facts));
        [Code::KubeProxyGone, Code::StrictArpOff].map(|code| found.contains(&code))
    };
    assert_eq!(findings(&facts), [true, true]);
    (facts.kube_proxy, facts.kube_proxy_replaced, facts.plugins) = (None, true, vec!["Cilium"]);
    assert_eq!(findings(&facts), [false, false]);
    assert_eq!(cluster::summary(&facts), "Kubernetes 1.36, kube-proxy replaced, Cilium, nodes: 3");
}

#[test]
fn hellos_that_ciliums_host_firewall_drops_name_its_setting() {
    let mut facts = bad();
    facts.cilium = Some(CiliumConfig { host_firewall: true, ..CiliumConfig::default() });
    let report = Report::new(&facts);
    let names_setting = |code| {
        let finding = report.findings().find(|it| it.code == code).unwrap();
        finding.text.contains("set hostFirewall.enabled to false")
    };
    let codes = [Code::OneWayContact, Code::HellosFiltered, Code::NoContact];
    assert!(codes.into_iter().all(names_setting));
}

#[test]
fn metallbs_objects_are_in_another_namespace_than_the_installation() {
    let mut facts = bad();
    let objects = facts.objects.as_mut().unwrap();
    objects.installation.config.names =
        Names { namespace: "metallb-system".to_owned(), group: "metallb.io".to_owned() };
    let report = Report::new(&facts);
    let of = |code| {
        let finding = report.findings().find(|it| it.code == code).unwrap();
        let objects: Vec<_> = finding.objects.iter().map(ToString::to_string).collect();
        format!("{}: {}", objects.join(" "), finding.text)
    };
    for code in [Code::ControllerNotReady, Code::ComponentPermission] {
        assert!(of(code).contains("ferrolb-system") && !of(code).contains("metallb-system"));
    }
    let no_leader = of(Code::NoLeader);
    assert!(no_leader.starts_with("Lease metallb-system/"), "{no_leader}");
    assert!(no_leader.contains("kubectl -n ferrolb-system get pods"), "{no_leader}");
    assert!(of(Code::InvalidResource).starts_with("BGPAdvertisement metallb-system/"));
}

#[test]
fn warnings_fail_only_a_strict_check() {
    let mut facts = good();
    facts.objects.as_mut().unwrap().installation.controllers = Some([1, 2]);
    let report = Report::new(&facts);
    assert_eq!([report.is_good(false), report.is_good(true)], [true, false]);
}

#[test]
fn excluded_nodes_are_a_warning_only_if_no_node_takes_over() {
    let with = |excluded: usize, ignores_label: bool| {
        let mut facts = good();
        let objects = facts.objects.as_mut().unwrap();
        objects.nodes[..excluded].iter_mut().for_each(|node| node.excluded = true);
        objects.installation.ignores_exclude_label = ignores_label;
        let report = Report::new(&facts);
        let cluster = report.categories.iter().find(|it| it.category == Category::Cluster).unwrap();
        (codes(&report), cluster.summary.clone())
    };
    let summary = "Kubernetes 1.36, kube-proxy nftables, nodes: 3";
    let excluded = format!("{summary} (by their label, not announcing: node1)");
    assert_eq!(with(1, false), (BTreeSet::new(), Some(excluded)));
    assert_eq!(with(2, false).0, [Code::NodeExcluded].into());
    // The label has no effect.
    for (excluded, ignores_label) in [(2, true), (3, false)] {
        assert_eq!(with(excluded, ignores_label), (BTreeSet::new(), Some(summary.to_owned())));
    }
}

#[test]
fn a_ferrolb_for_its_class_runs_next_to_metallb() {
    let mut facts = with_bad_cluster(good());
    facts.objects.as_mut().unwrap().installation.config.default_implementation = false;
    let codes = codes(&Report::new(&facts));
    assert!(!codes.contains(&Code::MetalLb) && !codes.contains(&Code::ServiceLb), "{codes:?}");
}

#[test]
fn each_code_has_a_test() {
    let other = [Code::NotInstalled, Code::NoSpeaker, Code::InstallPermission];
    let seen: BTreeSet<_> = codes(&Report::new(&bad())).into_iter().chain(other).collect();
    assert_eq!(seen, Code::ALL.iter().copied().collect::<BTreeSet<_>>());
    let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len(), "each code exists once");
    assert!(Code::ALL.is_sorted_by_key(|code| code.name()));
}

/// Page that explains the codes.
const PAGE: &str = include_str!("../../../docs/reference/checks.md");

#[test]
fn exactly_the_codes_are_documented() {
    let headings = PAGE.lines().filter_map(|line| line.strip_prefix("## FLB"));
    let documented: Vec<_> = headings.map(|number| format!("FLB{number}")).collect();
    let defined: Vec<_> = Code::ALL.iter().map(|code| code.name().to_owned()).collect();
    assert_eq!(
        documented, defined,
        "docs/reference/checks.md has a section for each code, in order"
    );
}
