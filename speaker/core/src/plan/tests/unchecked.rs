//! Tests of the report about endpoints that are not checked.

use super::probes::{checked, endpoint_on, slice_of, unchecked};
use super::*;
use crate::health::prober::TARGETS_MAX;

#[test]
fn unchecked_endpoints_are_counted_by_service_and_family() {
    let dual_stack = |name: &str| {
        let mut service = checked(name, "Local", "tcp");
        let v6 = "fd30::200".parse().unwrap();
        service.assigned.push(AssignedAddress { address: v6, mode: Some(IpMode::Vip) });
        service
    };
    let v4 = json!(["10.244.1.1", "10.0.0.9", "10.0.0.8"].map(|it| endpoint_on("node1", it)));
    let v6 = json!(["fd00::9", "fd00::1"].map(|it| endpoint_on("node1", it)));
    let slices = vec![
        slice_of("web-4", "IPv4", &[("web", 8080)], v4),
        slice_of("web-6", "IPv6", &[("web", 8080)], v6),
        slice_of("web-7", "IPv6", &[], json!([endpoint_on("node1", "fd00::2")])),
    ];
    let without = checked("without", "Local", "tcp");
    let services = vec![dual_stack("web"), without];
    let mut state = Cluster { services, slices, ..Cluster::default() }.state();
    let desired = plan(&state, Instant::ZERO);
    let no_port = "default/web 1 of 3 fd00::2 NoPort";
    assert_eq!(unchecked(&desired), ["default/web 2 of 3 10.0.0.8 OutsideRanges", no_port]);
    assert_eq!((desired.status.unchecked_services, desired.probes.disallowed), (1, 2));
    state.config.checked_ranges = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(unchecked(&plan(&state, Instant::ZERO)), [no_port]);
}

#[test]
fn endpoints_above_the_limit_of_a_node_are_reported() {
    let slice = |service: &str, count: u32| {
        let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0af4_0100 + n));
        let endpoints: Vec<_> =
            (0..count).map(|n| endpoint_on("node1", &address(n).to_string())).collect();
        let key = Key::new("default", service);
        let slice = slice_of(service, "IPv4", &[("web", 8080)], json!(endpoints));
        EndpointSlice { service: Some(key), ..slice }
    };
    let max = u32::try_from(TARGETS_MAX).unwrap();
    let state = |count| {
        let services = ["a", "b"].map(|name| checked(name, "Local", "tcp")).into();
        let node = Node { pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()], ..node("node1") };
        let slices = vec![slice("a", count), slice("b", 2)];
        Cluster { nodes: vec![node], services, slices, ..Cluster::default() }.state()
    };
    assert_eq!(unchecked(&plan(&state(max - 2), Instant::ZERO)), [""; 0]);
    let desired = plan(&state(max - 1), Instant::ZERO);
    assert_eq!(unchecked(&desired), ["default/b 1 of 2 10.244.1.1 TooMany"]);
    assert_eq!(desired.status.unchecked_services, 1);
}
