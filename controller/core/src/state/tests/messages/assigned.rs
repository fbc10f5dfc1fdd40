//! Messages of the condition `ferrolb.io/AddressAssigned`.

use ferrolb_proto::facts::{AddressRequestProblem, ServicePort, TrafficPolicy};

use super::*;
use crate::desired::RejectedStatus;
use crate::state::alloc::{AddressUser, Refusal, UnmanagedSource, UnmanagedUse};
use crate::state::choose::{Shortage, UnusablePools};
use crate::state::contest::changes::Contest;
use crate::state::messages::assigned::{AssignedMessage, with_released};
use crate::state::service_addresses::Assignment;
use crate::state::sharing::SharingConflict;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn used_by_web(source: UnmanagedSource) -> UnmanagedUse {
    UnmanagedUse { user: AddressUser::Service(key("web")), source }
}

fn of_node() -> UnmanagedUse {
    used_by_node(UnmanagedSource::NodeAddress)
}

fn used_by_node(source: UnmanagedSource) -> UnmanagedUse {
    UnmanagedUse { user: AddressUser::node("n1"), source }
}

fn assigned_to_web(conflict: SharingConflict) -> Refusal {
    Refusal::AssignedTo(key("web"), conflict)
}

fn port() -> ServicePort {
    ServicePort { protocol: "TCP".into(), port: 80 }
}

fn shortage_message(shortage: &Shortage) -> (String, String) {
    shortage_message_with(&default_names(), shortage)
}

fn shortage_message_with(names: &Names, shortage: &Shortage) -> (String, String) {
    (shortage.reason().to_owned(), shortage.text(&Assignment::default(), names))
}

#[test]
fn every_shortage_has_its_message() {
    table!(Shortage, shortage_message;
        Shortage::BadRequest(_) => [(
            Shortage::BadRequest(AddressRequestProblem::Mode("vip".into())),
            "BadAnnotation",
            "annotation ferrolb.io/ip-mode: \"vip\" is not an ipMode: write VIP, Proxy or Proxy,announce"
        )],
        Shortage::OneFamily(_) => [(Shortage::OneFamily(Family::V4), "FamilyMissing", "spec.ipFamilyPolicy is RequireDualStack, and the Service has only an IPv4 cluster IP: make the cluster dual-stack, or set spec.ipFamilyPolicy to SingleStack")],
        Shortage::Refused(..) => [(Shortage::Refused(ADDRESS, Refusal::Unmanaged(of_node())), "RequestedAddressInUse", "requested address 192.0.2.7 is an address of Node n1: request another address, or remove it there")],
        Shortage::UnknownPool(_) => [(Shortage::UnknownPool("lan".into()), "NoPoolMatches", "IPAddressPool lan, which the Service requests, does not exist: create it, or remove the annotation ferrolb.io/address-pool")],
        Shortage::InvalidPool(_) => [(Shortage::InvalidPool("lan".into()), "NoPoolMatches", "IPAddressPool lan, which the Service needs an address from, is invalid. See `kubectl -n ferrolb-system describe ipaddresspools.ferrolb.io lan`")],
        Shortage::PoolNotAllowed(_) => [(Shortage::PoolNotAllowed("lan".into()), "NoPoolMatches", "IPAddressPool lan, which the Service requests, is for other namespaces or Services: change its spec.serviceAllocation, or request another pool")],
        Shortage::NoPool(UnusablePools { .. }) => [
            (Shortage::NoPool(UnusablePools::default()), "NoPoolMatches", "no IPAddressPool exists: create one in namespace ferrolb-system, for example with `kubectl ferrolb init`"),
            (
                Shortage::NoPool(UnusablePools {
                    invalid: vec!["lan".into()],
                    manual: vec!["dmz".into()],
                    others: vec!["a".into(), "b".into()],
                }),
                "NoPoolMatches",
                "no IPAddressPool assigns addresses to this Service automatically: lan (invalid), dmz (spec.autoAssign is false), a, b (spec.serviceAllocation excludes it). Change or create a pool, or request one with annotation ferrolb.io/address-pool"
            ),
        ],
        Shortage::Family(_) => [
            (Shortage::Family(vec![Family::V6]), "FamilyMissing", "no IPAddressPool has IPv6 addresses: add a range to one of them"),
            (Shortage::Family(vec![Family::V4, Family::V6]), "FamilyMissing", "no IPAddressPool has IPv4 and IPv6 addresses: add the missing range to one of them, or set spec.ipFamilyPolicy to SingleStack"),
        ],
        Shortage::Exhausted(_) => [(Shortage::Exhausted(vec!["lan".into(), "wan".into()]), "PoolExhausted", "no address is free in IPAddressPool lan, wan: add addresses to spec.addresses, or delete a Service that has one")],
    );
}

#[test]
fn commands_contain_the_namespace_and_the_group_of_the_flags() {
    let names = Names { namespace: "lb".to_owned(), group: "metallb.io".to_owned() };
    let cases = [
        (
            Shortage::InvalidPool("lan".into()),
            (
                "NoPoolMatches",
                "IPAddressPool lan, which the Service needs an address from, is invalid. See `kubectl -n lb describe ipaddresspools.metallb.io lan`",
            ),
        ),
        (
            Shortage::NoPool(UnusablePools::default()),
            (
                "NoPoolMatches",
                "no IPAddressPool exists: create one in namespace lb, for example with `kubectl ferrolb init`",
            ),
        ),
    ];
    for (shortage, expect) in cases {
        check(shortage_message_with(&names, &shortage), expect);
    }
}

fn refusal_message(refusal: &Refusal) -> (String, String) {
    shortage_message(&Shortage::Refused(ADDRESS, refusal.clone()))
}

#[test]
fn every_refusal_of_a_requested_address_has_its_message() {
    table!(Refusal, refusal_message;
        Refusal::NoPool => [(Refusal::NoPool, "RequestedAddressOutsidePools", "requested address 192.0.2.7 is in no valid IPAddressPool, or excluded (spec.excludeAddresses, spec.avoidBuggyIPs): request another address, or add it to a pool")],
        Refusal::PoolNotAllowed(_) => [(Refusal::PoolNotAllowed("lan".into()), "NoPoolMatches", "requested address 192.0.2.7 is in IPAddressPool lan, which is for other namespaces or Services: change its spec.serviceAllocation, or request another address")],
        Refusal::OtherPool(_) => [(Refusal::OtherPool("lan".into()), "RequestedAddressOutsidePools", "requested address 192.0.2.7 is in IPAddressPool lan, and all addresses of a Service come from one pool, the one that it requests: request an address of that pool, or another pool")],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::NodeAddress, .. }) => [
            (Refusal::Unmanaged(of_node()), "RequestedAddressInUse", "requested address 192.0.2.7 is an address of Node n1: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::ExternalIps, .. }) => [
            (Refusal::Unmanaged(used_by_web(UnmanagedSource::ExternalIps)), "RequestedAddressInUse", "requested address 192.0.2.7 is in spec.externalIPs of Service default/web: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::OtherLoadBalancer, .. }) => [
            (Refusal::Unmanaged(used_by_web(UnmanagedSource::OtherLoadBalancer)), "RequestedAddressInUse", "requested address 192.0.2.7 is assigned to Service default/web by another load balancer: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::ClusterIp, .. }) => [
            (Refusal::Unmanaged(used_by_web(UnmanagedSource::ClusterIp)), "RequestedAddressInUse", "requested address 192.0.2.7 is the cluster IP of Service default/web: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::StillInStatus, .. }) => [
            (Refusal::Unmanaged(used_by_web(UnmanagedSource::StillInStatus)), "RequestedAddressInUse", "requested address 192.0.2.7 is still in the status of Service default/web, which has lost it: this Service gets it when that status is written, or when that Service is gone")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::InterfaceAddress, .. }) => [
            (Refusal::Unmanaged(used_by_node(UnmanagedSource::InterfaceAddress)), "RequestedAddressInUse", "requested address 192.0.2.7 is on an interface of Node n1: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::Gateway, .. }) => [
            (Refusal::Unmanaged(used_by_node(UnmanagedSource::Gateway)), "RequestedAddressInUse", "requested address 192.0.2.7 is a default gateway of Node n1: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::ApiServer, .. }) => [
            (Refusal::Unmanaged(UnmanagedUse { user: AddressUser::ApiServer, source: UnmanagedSource::ApiServer }), "RequestedAddressInUse", "requested address 192.0.2.7 is an address of the API server: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::NetworkAddress | UnmanagedSource::BroadcastAddress, .. }) => [
            (Refusal::Unmanaged(used_by_node(UnmanagedSource::NetworkAddress)), "RequestedAddressInUse", "requested address 192.0.2.7 is the network address of a subnet of Node n1: request another address, or remove it there")
        ],
        Refusal::AssignedTo(_, SharingConflict::NoKey) => [(assigned_to_web(SharingConflict::NoKey), "RequestedAddressInUse", "requested address 192.0.2.7 is assigned to Service default/web: request another address, or share it with the same annotation ferrolb.io/allow-shared-ip on both")],
        Refusal::AssignedTo(_, SharingConflict::Key) => [(assigned_to_web(SharingConflict::Key), "SharingConflict", "requested address 192.0.2.7 cannot be shared with Service default/web: set their annotations ferrolb.io/allow-shared-ip to the same value")],
        Refusal::AssignedTo(_, SharingConflict::Port(_)) => [(assigned_to_web(SharingConflict::Port(port())), "SharingConflict", "requested address 192.0.2.7 cannot be shared with Service default/web: both have port TCP/80. Change one of them")],
        Refusal::AssignedTo(_, SharingConflict::Local) => [(assigned_to_web(SharingConflict::Local), "SharingConflict", "requested address 192.0.2.7 cannot be shared with Service default/web: with externalTrafficPolicy Local both must be Local and have equal selectors. Change spec.externalTrafficPolicy or spec.selector of one")],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::ForeignHost, .. }) => [
            (Refusal::Unmanaged(used_by_web(UnmanagedSource::ForeignHost)), "RequestedAddressInUse", "requested address 192.0.2.7 is in use by another host, as Service default/web has found: request another address, or remove it there")
        ],
        Refusal::Unmanaged(UnmanagedUse { source: UnmanagedSource::FormerRoute, .. }) => [
            (Refusal::Unmanaged(used_by_node(UnmanagedSource::FormerRoute)), "RequestedAddressInUse", "requested address 192.0.2.7 is perhaps still advertised by Node n1, whose speaker does not run: request another address, or remove it there")
        ],
        Refusal::ForeignHost => [(Refusal::ForeignHost, "RequestedAddressInUse", "requested address 192.0.2.7 is in use by another host: request another address")],
        Refusal::NotRequested | Refusal::Family => [(Refusal::Family, "BadAnnotation", "requested address 192.0.2.7 is not of an IP family of the Service: request one address of each family")],
    );
}

fn release_message(refusal: &Refusal) -> (String, String) {
    (String::new(), with_released("10.0.0.1 from pool lan", &vec![(ADDRESS, refusal.clone())]))
}

#[test]
fn every_released_address_has_its_message() {
    table!(Refusal, release_message;
        Refusal::NoPool => [(Refusal::NoPool, "", "10.0.0.1 from pool lan; 192.0.2.7 was released: no IPAddressPool contains it any more")],
        Refusal::PoolNotAllowed(_) => [(Refusal::PoolNotAllowed("wan".into()), "", "10.0.0.1 from pool lan; 192.0.2.7 was released: IPAddressPool wan is now for other namespaces or Services")],
        Refusal::OtherPool(_) => [(Refusal::OtherPool("wan".into()), "", "10.0.0.1 from pool lan; 192.0.2.7 was released: it is from IPAddressPool wan, and the Service needs its addresses from another one")],
        Refusal::Unmanaged(_) => [(Refusal::Unmanaged(used_by_web(UnmanagedSource::ExternalIps)), "", "10.0.0.1 from pool lan; 192.0.2.7 was released: it is in spec.externalIPs of Service default/web")],
        Refusal::AssignedTo(_, SharingConflict::NoKey) => [(assigned_to_web(SharingConflict::NoKey), "", "10.0.0.1 from pool lan; 192.0.2.7 was released: it is assigned to Service default/web")],
        Refusal::AssignedTo(..) => [(assigned_to_web(SharingConflict::Port(port())), "", "10.0.0.1 from pool lan; 192.0.2.7 was released: it cannot be shared with Service default/web: both have port TCP/80. Change one of them")],
        Refusal::ForeignHost => [(Refusal::ForeignHost, "", "10.0.0.1 from pool lan; 192.0.2.7 was released: another host replied for it before any node announced it")],
        Refusal::NotRequested => [(Refusal::NotRequested, "", "10.0.0.1 from pool lan; 192.0.2.7 was released: the Service requests another address")],
        Refusal::Family => [(Refusal::Family, "", "10.0.0.1 from pool lan; 192.0.2.7 was released: the Service has no cluster IP of its family, or another address of that family")],
    );
}

#[test]
fn a_rejected_status_has_its_message() {
    let reply = "admission webhook \"policy.example\" denied the request (code 403)";
    let Notice { reason, message, .. } = RejectedStatus { reply }.notice();
    check(
        (reason.into_owned(), message.into()),
        (
            "NotWritten",
            "status update of this Service rejected, retrying: apply deploy/base/rbac.yaml if permissions are missing, or change the policy that rejects it. Reply: admission webhook \"policy.example\" denied the request (code 403)",
        ),
    );
}

#[test]
fn every_request_problem_has_its_message() {
    let text = |text: &str| text.to_owned();
    let field = || text("annotation ferrolb.io/loadBalancerIPs");
    table!(AddressRequestProblem, |problem| shortage_message(&Shortage::BadRequest(problem.clone()));
        AddressRequestProblem::DuplicateAddresses(_) => [(AddressRequestProblem::DuplicateAddresses(text("ferrolb.io/loadBalancerIPs")), "BadAnnotation", "spec.loadBalancerIP and annotation ferrolb.io/loadBalancerIPs are both set: remove spec.loadBalancerIP, which is deprecated")],
        AddressRequestProblem::Address { .. } => [
            (AddressRequestProblem::Address { field: field(), text: text("10.0.0.300") }, "BadAnnotation", "annotation ferrolb.io/loadBalancerIPs: \"10.0.0.300\" is not an address: write one address of each of the Service's families, comma separated")
        ],
        AddressRequestProblem::Families { .. } => [
            (AddressRequestProblem::Families { field: field(), requested: text("IPv6"), service_families: text("IPv4"), both: false }, "BadAnnotation", "annotation ferrolb.io/loadBalancerIPs requests IPv6, and the Service has cluster IPs of IPv4: request one address of each of these families"),
            (AddressRequestProblem::Families { field: field(), requested: text("IPv4 and IPv6"), service_families: text("IPv4"), both: true }, "BadAnnotation", "annotation ferrolb.io/loadBalancerIPs requests IPv4 and IPv6, and the Service has cluster IPs of IPv4: request one address of each of these families, or set spec.ipFamilyPolicy to PreferDualStack")
        ],
        AddressRequestProblem::Pool { .. } => [
            (AddressRequestProblem::Pool { field: text("ferrolb.io/address-pool"), text: text("My Pool") }, "BadAnnotation", "annotation ferrolb.io/address-pool: \"My Pool\" is not the name of an IPAddressPool: write the name of one, or remove the annotation")
        ],
        AddressRequestProblem::Mode(_) => [(AddressRequestProblem::Mode(text("vip")), "BadAnnotation", "annotation ferrolb.io/ip-mode: \"vip\" is not an ipMode: write VIP, Proxy or Proxy,announce")],
    );
}

/// Function that changes a Service and its assignment.
type Change = fn(&mut Service, &mut Assignment);

/// Returns reason and message for a Service with an address of the pool `lan`, after `change`.
fn decision_message(change: Change) -> (String, String) {
    let mut service = service("a");
    let (addresses, pool) = (vec![ADDRESS], Some("lan".into()));
    let mut assignment = Assignment { addresses, pool, satisfied: true, ..Assignment::default() };
    change(&mut service, &mut assignment);
    let names = &default_names();
    condition(&AssignedMessage::Decided {
        service: &service,
        assignment: &assignment,
        contest: None,
        names,
    })
}

/// Cases of [`decision_message`]: the change, and the expected reason and message.
const DECISIONS: [(Change, &str, &str); 10] = [
    (|_, _| {}, "Assigned", "192.0.2.7 from pool lan"),
    (
        |_, assignment| assignment.hosts = vec![(ADDRESS, of_node())],
        "Assigned",
        "192.0.2.7 from pool lan; 192.0.2.7 is also an address of Node n1, and the Service keeps it: remove it from that node (kubelet flag --node-ip), or request another address",
    ),
    (
        |_, assignment| {
            assignment.hosts = vec![(ADDRESS, used_by_node(UnmanagedSource::Gateway))];
        },
        "Assigned",
        "192.0.2.7 from pool lan; 192.0.2.7 is also a default gateway of Node n1, and the Service keeps it: request another address",
    ),
    (
        |_, assignment| {
            assignment.hosts = vec![(ADDRESS, used_by_node(UnmanagedSource::BroadcastAddress))];
        },
        "Assigned",
        "192.0.2.7 from pool lan; 192.0.2.7 is the broadcast address of a subnet of Node n1, and hosts there cannot use it: request another address",
    ),
    (
        |_, assignment| {
            assignment.shortage = Some(Box::new(Shortage::Family(vec![Family::V6])));
        },
        "Assigned",
        "192.0.2.7 from pool lan; ipFamilyPolicy PreferDualStack: IPAddressPool lan has no IPv6 addresses: add a range to it, request a pool with both, or set spec.ipFamilyPolicy to SingleStack",
    ),
    (
        |_, assignment| {
            assignment.shortage = Some(Box::new(Shortage::Family(vec![Family::V6])));
            assignment.satisfied = false;
        },
        "FamilyMissing",
        "IPAddressPool lan has no IPv6 addresses: add a range to it, request a pool with both, or set spec.ipFamilyPolicy to SingleStack; still assigned: 192.0.2.7 from pool lan",
    ),
    (
        |_, assignment| {
            *assignment = Assignment {
                shortage: Some(Box::new(Shortage::UnknownPool("dmz".into()))),
                ..Assignment::default()
            };
        },
        "NoPoolMatches",
        "IPAddressPool dmz, which the Service requests, does not exist: create it, or remove the annotation ferrolb.io/address-pool",
    ),
    (
        |service, _| {
            service.demand.request.sharing_key = Some("dns".into());
            service.demand.ports = [port()].into();
            service.demand.selector = "app=dns".into();
            service.policy = TrafficPolicy::Local;
        },
        "Assigned",
        "192.0.2.7 from pool lan; shared under key \"dns\" by TCP/80 for app=dns (Local)",
    ),
    (
        |_, assignment| assignment.mode = IpMode::Proxy,
        "Assigned",
        "192.0.2.7 from pool lan; ipMode is Proxy: kube-proxy accepts no traffic for it on any node, so the address is not announced",
    ),
    (
        |service, assignment| {
            service.demand.request.announce_in_proxy_mode = true;
            assignment.mode = IpMode::Proxy;
        },
        "Assigned",
        "192.0.2.7 from pool lan; ipMode is Proxy: kube-proxy accepts no traffic for it on any node, and the address is announced, as annotation ferrolb.io/ip-mode requests",
    ),
];

#[test]
fn every_decision_has_its_message() {
    for (change, reason, text) in DECISIONS {
        check(decision_message(change), (reason, text));
    }
    let service = service("web");
    let addresses = vec![ADDRESS];
    let assignment = Assignment {
        addresses,
        pool: Some("lan".into()),
        satisfied: true,
        ..Assignment::default()
    };
    let names = default_names();
    for (manager, suspect, text) in [
        (
            None,
            Some("cilium-operator-lb-ipam".into()),
            "192.0.2.7 from pool lan; another client repeatedly removes the address from the status, perhaps field manager \"cilium-operator-lb-ipam\" (Cilium LB IPAM): set Cilium's defaultLBServiceIPAM to none, or delete its CiliumLoadBalancerIPPools",
        ),
        (
            None,
            None,
            "192.0.2.7 from pool lan; another client repeatedly removes the address from the status. Kubernetes does not name a client that only removes: stop ServiceLB of k3s, minikube tunnel, or the other load balancer of this cluster",
        ),
        (
            Some("k3s".into()),
            Some("mine".into()),
            "192.0.2.7 from pool lan; field manager \"k3s\" (ServiceLB) repeatedly changes the addresses in the status: start the servers of k3s or RKE2 with --disable=servicelb",
        ),
        (
            Some("mine".into()),
            None,
            "192.0.2.7 from pool lan; field manager \"mine\" repeatedly changes the addresses in the status: stop it, or set spec.loadBalancerClass of the Service",
        ),
    ] {
        let mut contest = Contest::default();
        (contest.manager, contest.suspect) = (manager, suspect);
        let message = AssignedMessage::Decided {
            service: &service,
            assignment: &assignment,
            contest: Some(&contest),
            names: &names,
        };
        check(condition(&message), ("StatusContested", text));
    }
    let other = AssignedMessage::Other { service: &service, manager: "k3s" };
    check(
        condition(&other),
        (
            "ServedByOther",
            "field manager \"k3s\" (ServiceLB) has assigned the address, which is in no IPAddressPool, so FerroLB does not change it. To replace it by an address of FerroLB: kubectl -n default annotate service web ferrolb.io/adopt=true",
        ),
    );
    let metallb = AssignedMessage::MetalLb { annotation: "metallb.io/ip-allocated-from-pool" };
    check(
        condition(&metallb),
        (
            "ServedByMetalLB",
            "MetalLB serves this Service (annotation metallb.io/ip-allocated-from-pool), so FerroLB does not change it. If MetalLB is gone, remove the annotation; if both run, set spec.loadBalancerClass of the Services for FerroLB",
        ),
    );
}
