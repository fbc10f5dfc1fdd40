//! Objects as the API server sends them, and the facts decoded from them.

use serde_json::json;

use super::*;
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
    assert!(service.load_balancer && !service.has_non_ip_ingress);
    assert_eq!(service.policy, TrafficPolicy::Local);
    assert_eq!(
        service.assigned.iter().map(|a| a.mode).collect::<Vec<_>>(),
        [Some(IpMode::Vip), None]
    );
    assert_eq!(service.pool_annotation.as_deref(), Some("lan"));
    let kept: Vec<_> = service.conditions.iter().map(|c| (c.kind, c.status, c.since)).collect();
    let expect = [
        (ServiceConditionType::AddressAssigned, ConditionStatus::True, Some(1_767_323_045)),
        (ServiceConditionType::Announced, ConditionStatus::Unknown, None),
    ];
    assert_eq!(kept, expect, "conditions of others are not ours to keep");
}

#[test]
fn what_is_no_load_balancer_is_not_ours() {
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
    for (spec, ours) in cases {
        let service = service(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}));
        assert_eq!(
            service.is_served_by_ferrolb(&["ferrolb.io/ferrolb".to_owned()], true),
            ours,
            "{spec}"
        );
        assert_eq!(
            service.is_served_by_ferrolb(&["ferrolb.io/ferrolb".to_owned()], false),
            ours && service.class.is_some(),
            "{spec}"
        );
    }
}

#[test]
fn an_ingress_that_is_not_an_address_is_seen() {
    for ingress in [json!([{"hostname": "lb.example.com"}]), json!([{"ip": "not-an-address"}])] {
        let service =
            service(json!({"metadata": {}, "status": {"loadBalancer": {"ingress": ingress}}}));
        assert!(service.has_non_ip_ingress);
        assert_eq!(service.assigned, []);
    }
}

#[test]
fn what_decides_about_addresses_is_read_and_sorted() {
    let service = service(json!({
        "metadata": {"namespace": "n", "name": "s", "labels": {"b": "2", "a": "1"},
            "annotations": {"metallb.io/allow-shared-ip": "dns", "metallb.io/ip-allocated-from-pool": "theirs"}},
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
    assert_eq!(service.pool_annotation, None, "what another group's controller wrote is not ours");
}

#[test]
fn of_a_service_that_is_no_load_balancer_only_what_it_takes_from_pools_takes_memory() {
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
        "its labels say which pools"
    );
}

#[test]
fn in_another_api_group_the_annotation_of_that_group_is_ours() {
    let object = json!({"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": "lan"}}});
    let service = Service::read(serde_json::from_value(object).expect("service"), "metallb.io");
    assert_eq!(service.pool_annotation.as_deref(), Some("lan"));
}

#[test]
fn the_digest_of_sharing_parameters_is_sixteen_hexadecimal_digits() {
    let read = |text: &str| {
        service(json!({"metadata": {"annotations": {"ferrolb.io/sharing-parameters": text}}}))
            .sharing_parameters
    };
    assert_eq!(read("00000000000000ab"), Some(0xab));
    assert_eq!(read("ffffffffffffffff"), Some(u64::MAX));
    for other in ["", "shared", "10000000000000000", "-1"] {
        assert_eq!(read(other), None, "{other}");
    }
}

#[test]
fn what_metallb_says_that_it_has_is_ours_by_class_or_in_its_own_api_group_alone() {
    let [now, before] =
        ["metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool"];
    let read = |annotation: &str, class: Option<&str>, group| {
        let object = json!({"metadata": {"annotations": {annotation: "lan"}},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerClass": class}});
        Service::read(serde_json::from_value(object).expect("service"), group)
    };
    let cases = [
        (now, None, api::GROUP, (false, true)),
        (before, None, api::GROUP, (false, true)),
        ("metallb.io/address-pool", None, api::GROUP, (true, false)),
        (now, Some("ours"), api::GROUP, (true, false)),
        (now, Some("theirs"), api::GROUP, (false, false)),
        (now, None, "metallb.io", (true, false)),
        (before, None, "metallb.io", (true, false)),
    ];
    for (annotation, class, group, expect) in cases {
        let service = read(annotation, class, group);
        let is = (
            service.is_served_by_ferrolb(&["ours".to_owned()], true),
            service.is_served_by_metallb(true),
        );
        assert_eq!(is, expect, "{annotation} {class:?} {group}");
        assert!(!service.is_served_by_metallb(false), "what is not ours anyhow is not contested");
    }
}

#[test]
fn a_health_check_node_port_is_read_with_policy_local_alone() {
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
fn a_health_check_asks_the_first_tcp_port_unless_it_names_one() {
    let read = |annotation: &str, ports: serde_json::Value| {
        let service = service(
            json!({"metadata": {"annotations": {"ferrolb.io/health-check": annotation}}, "spec": {"ports": ports}}),
        );
        let told = service.health_check().map(|check| match check {
            Ok(check) => Ok(check.port.clone()),
            Err(problem) => Err(problem.clone()),
        });
        assert_eq!(service.health_check_annotation.is_some(), told.is_some());
        told
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
        "an empty one is not there"
    );
    let theirs = json!({"metadata": {"annotations": {"metallb.io/health-check": "tcp:9"}}});
    assert_eq!(service(theirs).health_check(), None, "it is known under our own prefix only");
}

#[test]
fn a_slip_in_what_is_said_about_endpoints_is_kept_and_the_default_is_used() {
    let read = |text: &str| {
        service(json!({"metadata": {"annotations": {"ferrolb.io/endpoint-condition": text}}}))
    };
    let problems = |service: &Service| service.endpoint_problems().collect::<Vec<_>>();
    let (sound, slip) = (read("serving"), read("servign"));
    assert_eq!((sound.endpoint_condition, problems(&sound)), (EndpointCondition::Serving, vec![]));
    assert_eq!(slip.endpoint_condition, EndpointCondition::ReadyOrTerminating);
    assert_eq!(
        problems(&slip),
        [
            "annotation ferrolb.io/endpoint-condition: \"servign\" is not valid: write ready or serving, or remove it"
        ]
    );
    let theirs = json!({"metadata": {"annotations": {"metallb.io/usable": "serving"}}});
    assert_eq!(
        service(theirs).endpoint_condition,
        EndpointCondition::ReadyOrTerminating,
        "it is ours alone"
    );
}
