//! Objects as the API server sends them, and the facts decoded from them.

use serde_json::json;

use super::*;
use crate::api::ConditionStatus;
use crate::facts::CheckPort;

fn service(json: serde_json::Value) -> Service {
    Service::read(serde_json::from_value::<ServiceObject>(json).expect("service"), api::GROUP)
}

#[test]
fn a_dual_stack_service_keeps_the_order_of_its_families() {
    let service = service(json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "u1", "annotations": {"ferrolb.io/ip-allocated-from-pool": "lan"}},
        "spec": {"type": "LoadBalancer", "clusterIP": "fd96::1", "clusterIPs": ["fd96::1", "10.96.0.1"], "externalTrafficPolicy": "Local"},
        "status": {"loadBalancer": {"ingress": [{"ip": "fd30::c8", "ipMode": "VIP"}, {"ip": "172.30.0.200"}]},
            "conditions": [{"type": "ferrolb.io/AddressAssigned", "status": "True", "reason": "Assigned", "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z"},
                {"type": "ferrolb.io/Announced", "status": "Unknown", "reason": "r", "message": "", "lastTransitionTime": "t"},
                {"type": "other.io/X", "status": "True", "reason": "r", "message": "", "lastTransitionTime": "t"}]}
    }));
    assert_eq!(service.families, [Family::V6, Family::V4]);
    assert!(service.load_balancer && !service.has_foreign_ingress);
    assert_eq!(service.policy, TrafficPolicy::Local);
    assert_eq!(
        service.assigned.iter().map(|a| a.mode).collect::<Vec<_>>(),
        [Some(IpMode::Vip), None]
    );
    assert_eq!(service.pool_annotation.as_deref(), Some("lan"));
    let stored: Vec<_> = service.conditions.iter().map(|c| (c.kind, c.status, c.since)).collect();
    let expect = [
        (ServiceConditionType::AddressAssigned, ConditionStatus::True, Some(1_767_323_045)),
        (ServiceConditionType::Announced, ConditionStatus::Unknown, None),
    ];
    assert_eq!(stored, expect, "only conditions of FerroLB are stored");
}

#[test]
fn only_load_balancers_of_a_known_class_are_served() {
    let cases = [
        (json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"]}), true),
        (json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1"}), true),
        (json!({"type": "LoadBalancer", "clusterIPs": ["None"]}), false),
        (json!({"type": "LoadBalancer"}), false),
        (json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1"]}), false),
        (json!({"type": "NodePort", "clusterIPs": ["10.96.0.1"]}), false),
        (json!({"type": "ExternalName", "externalName": "example.com"}), false),
        (
            json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerClass": "ferrolb.io/ferrolb"}),
            true,
        ),
        (
            json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerClass": "other.io/lb"}),
            false,
        ),
    ];
    for (spec, is_served) in cases {
        let service = service(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}));
        assert_eq!(
            service.is_served_by_ferrolb(&["ferrolb.io/ferrolb".to_owned()], true),
            is_served,
            "the spec is {spec}"
        );
        assert_eq!(
            service.is_served_by_ferrolb(&["ferrolb.io/ferrolb".to_owned()], false),
            is_served && service.class.is_some(),
            "the spec is {spec}"
        );
    }
}

#[test]
fn an_ingress_that_ferrolb_does_not_write_is_detected() {
    let with_ingress = |ingress| {
        service(json!({"metadata": {}, "status": {"loadBalancer": {"ingress": ingress}}}))
    };
    for ingress in [json!([{"hostname": "lb.example.com"}]), json!([{"ip": "not-an-address"}])] {
        let service = with_ingress(ingress);
        assert!(service.has_foreign_ingress);
        assert_eq!(service.assigned, []);
    }
    for (ports, is_foreign) in [(json!(null), false), (json!([]), false), (json!([{}]), true)] {
        let service = with_ingress(json!([{"ip": "10.0.0.1", "ports": ports}]));
        assert_eq!(service.has_foreign_ingress, is_foreign, "{ports}");
        assert_eq!(service.assigned.len(), 1);
    }
}

#[test]
fn the_allocation_demand_is_decoded_and_sorted() {
    let service = service(json!({
        "metadata": {"namespace": "n", "name": "s", "labels": {"b": "2", "a": "1"},
            "annotations": {"metallb.io/allow-shared-ip": "dns", "metallb.io/ip-allocated-from-pool": "other"}},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"protocol": "UDP", "port": 53}, {"port": 53}, {"protocol": "SCTP", "port": 9}],
            "selector": {"tier": "x", "app": "dns"}, "externalIPs": ["203.0.113.9", "no address"], "loadBalancerIP": "10.0.0.9"}
    }));
    let AllocationDemand {
        request,
        family_policy,
        ports,
        selector,
        labels,
        external_ips,
        cluster_ips,
    } = service.demand;
    assert_eq!(
        (request.sharing_key.as_deref(), request.addresses.len(), family_policy),
        (Some("dns"), 1, FamilyPolicy::Prefer)
    );
    assert_eq!(
        ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["SCTP/9", "TCP/53", "UDP/53"]
    );
    assert_eq!((&*selector, &*labels[0].0, external_ips.len()), ("app=dns,tier=x", "a", 1));
    assert_eq!(*cluster_ips, ["10.96.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(service.pool_annotation, None, "the annotation of another API group is ignored");
}

#[test]
fn other_service_types_store_only_addresses_and_labels() {
    let addresses = |texts: &[&str]| {
        texts.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect::<Box<[_]>>()
    };
    let demand = |external: &[&str]| {
        let service = service(json!({
            "metadata": {"labels": {"a": "1"}, "annotations": {"ferrolb.io/address-pool": "lan"}},
            "spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 53}],
                "selector": {"app": "dns"}, "externalIPs": external}
        }));
        service.demand
    };
    let plain =
        AllocationDemand { cluster_ips: addresses(&["10.96.0.1"]), ..AllocationDemand::default() };
    assert_eq!(demand(&[]), plain);
    let labels = [("a".into(), "1".into())].into();
    let external_ips = addresses(&["203.0.113.9"]);
    assert_eq!(
        demand(&["203.0.113.9"]),
        AllocationDemand { external_ips, labels, ..plain },
        "the fact contains the labels, because pools select Services by labels"
    );
}

#[test]
fn the_pool_annotation_follows_the_api_group() {
    let object = json!({"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": "lan"}}});
    let service = Service::read(serde_json::from_value(object).expect("service"), "metallb.io");
    assert_eq!(service.pool_annotation.as_deref(), Some("lan"));
}

#[test]
fn the_record_of_another_service_is_none() {
    let record = |name: &str| {
        let text = format!(r#"{{"service":"default/{name}","addresses":["10.0.0.1"]}}"#);
        let annotations = json!({"ferrolb.io/assigned": text});
        let metadata = json!({"namespace": "default", "name": "web", "annotations": annotations});
        service(json!({"metadata": metadata})).record
    };
    assert_eq!(*record("web").unwrap().addresses, [IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(record("copied"), None);
}

#[test]
fn metallb_services_are_served_only_by_class_or_api_group() {
    let [current, deprecated] =
        ["metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool"];
    let read = |annotation: &str, class: Option<&str>, group| {
        let object = json!({"metadata": {"annotations": {annotation: "lan"}},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerClass": class}});
        Service::read(serde_json::from_value(object).expect("service"), group)
    };
    let cases = [
        (current, None, api::GROUP, (false, true)),
        (deprecated, None, api::GROUP, (false, true)),
        ("metallb.io/address-pool", None, api::GROUP, (true, false)),
        (current, Some("own"), api::GROUP, (true, false)),
        (current, Some("other"), api::GROUP, (false, false)),
        (current, None, "metallb.io", (true, false)),
        (deprecated, None, "metallb.io", (true, false)),
    ];
    for (annotation, class, group, expect) in cases {
        let service = read(annotation, class, group);
        let actual = (
            service.is_served_by_ferrolb(&["own".to_owned()], true),
            service.is_served_by_metallb(true),
        );
        assert_eq!(
            actual, expect,
            "the annotation is {annotation}, the class {class:?} and the group {group}"
        );
        assert!(!service.is_served_by_metallb(false), "FerroLB would not serve the Service anyway");
    }
}

#[test]
fn a_health_check_node_port_requires_policy_local() {
    let port = |spec| {
        service(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}))
            .health_check_node_port
    };
    assert_eq!(
        port(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31234})),
        31234
    );
    assert_eq!(port(json!({"externalTrafficPolicy": "Local"})), 0);
    assert_eq!(port(json!({"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 31234})), 0);
    assert_eq!(port(json!({"healthCheckNodePort": 31234})), 0);
}

#[test]
fn a_health_check_uses_the_first_tcp_port_by_default() {
    let read = |annotation: &str, ports: serde_json::Value| {
        let service = service(
            json!({"metadata": {"annotations": {"ferrolb.io/health-check": annotation}}, "spec": {"ports": ports}}),
        );
        let port = service.health_check().map(|check| match check {
            Ok(check) => Ok(check.port.clone()),
            Err(problem) => Err(problem.clone()),
        });
        assert_eq!(service.health_check_annotation.is_some(), port.is_some());
        port
    };
    let named = |name: &str| Some(Ok(CheckPort::Named(name.into())));
    let several = || json!([{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "web", "port": 80}, {"name": "adm", "protocol": "TCP", "port": 81}]);
    assert_eq!(read("tcp", several()), named("web"));
    assert_eq!(read("http/x", json!([{"port": 80}])), named(""));
    assert_eq!(read("tcp:9", several()), Some(Ok(CheckPort::Number(9))));
    assert_eq!(
        read("tcp", json!([{"protocol": "UDP", "port": 53}])),
        Some(Err(HealthCheckProblem::NoPort))
    );
    assert_eq!(read("tcp", json!(null)), Some(Err(HealthCheckProblem::NoPort)));
    assert_eq!(read("udp", several()), Some(Err(HealthCheckProblem::Kind("udp".to_owned()))));
    assert_eq!(
        (read("", several()), read("  ", several())),
        (None, None),
        "an empty annotation counts as absent"
    );
    let metallb_annotation =
        json!({"metadata": {"annotations": {"metallb.io/health-check": "tcp:9"}}});
    assert_eq!(
        service(metallb_annotation).health_check(),
        None,
        "FerroLB reads the annotation only with the prefix ferrolb.io"
    );
}

#[test]
fn an_invalid_endpoint_condition_is_a_problem_and_ignored() {
    let read = |text: &str| {
        service(json!({"metadata": {"annotations": {"ferrolb.io/endpoint-condition": text}}}))
    };
    let problems = |service: &Service| {
        service.endpoint_problems().map(|problem| problem.to_string()).collect::<Vec<_>>()
    };
    let (valid, invalid) = (read("serving"), read("servign"));
    assert_eq!((valid.endpoint_condition, problems(&valid)), (EndpointCondition::Serving, vec![]));
    assert_eq!(invalid.endpoint_condition, EndpointCondition::ReadyOrTerminating);
    assert_eq!(
        problems(&invalid),
        [
            "annotation ferrolb.io/endpoint-condition: \"servign\" is not valid: write ready or serving, or remove it"
        ]
    );
    let metallb_annotation = json!({"metadata": {"annotations": {"metallb.io/usable": "serving"}}});
    assert_eq!(
        service(metallb_annotation).endpoint_condition,
        EndpointCondition::ReadyOrTerminating,
        "FerroLB reads the annotation only with the prefix ferrolb.io"
    );
}
