//! Objects of other load balancers, and tests of the findings and texts about them.

use ferrolb_controller_core::state::{AddressExplanation, Explanation};

use super::*;
use crate::check::announcements::{Announcement, Announcer};
use crate::check::cilium::CiliumObject;
use crate::check::facts::OtherLoadBalancers;
use crate::check::load_balancers::others_of;
use crate::check::traces::Traces;

fn of_cilium(name: &str, services: &[&str]) -> CiliumObject {
    CiliumObject {
        name: name.to_owned(),
        services: services.iter().map(|service| key(service, "")).collect(),
    }
}

/// Returns the traces of the report with all findings.
pub(super) fn traces() -> Traces {
    let announcement = |announcer, kind, name: &str, service: Option<&str>| Announcement {
        announcer,
        object: Object::namespaced(kind, "kube-system", name),
        service: service.map(|name| Key::new("default", name)),
        node: "node3".to_owned(),
    };
    let cilium = |service| {
        let lease = format!("cilium-l2announce-default-{service}");
        announcement(Announcer::Cilium, "Lease", &lease, Some(service))
    };
    Traces {
        announcements: vec![
            cilium("web"),
            cilium("local"),
            announcement(Announcer::KubeVip, "Lease", "plndr-svcs-lock", None),
            announcement(Announcer::MetalLb, "ServiceL2Status", "l2-x7k", Some("web")),
        ],
        cilium_policies: vec![
            of_cilium("other", &["shop/db"]),
            of_cilium("policy", &["default/web", "default/local"]),
        ],
        cilium_advertisements: vec![of_cilium("bgp", &["default/web", "shop/cart"])],
        cilium_pools: vec![
            of_cilium("second", &["default/cleared", "shop/db"]),
            of_cilium("third", &["default/web"]),
        ],
    }
}

#[test]
fn only_load_balancers_that_can_be_the_cause_are_named_for_a_service() {
    let running = with_bad_cluster(good()).load_balancers;
    let others = OtherLoadBalancers { running, traces: traces() };
    let of = |service: &str, reason: &'static str, contested| {
        let address = AddressExplanation {
            address: "192.168.1.240".parse().unwrap(),
            reason,
            message: String::new(),
            nodes: Vec::new(),
        };
        let explanation = Explanation {
            row: ServiceRow { contested, ..row(service, reason) },
            assignment: String::new(),
            not_served: String::new(),
            explained: vec![address],
        };
        let texts = others_of(&explanation, &others);
        let product = |text: &String| text.split(' ').next().unwrap_or_default().to_owned();
        texts.iter().map(product).collect::<Vec<_>>()
    };
    let announcers = ["Cilium", "kube-vip", "MetalLB"];
    let running = ["MetalLB", "kube-vip", "ServiceLB"];
    let of_bgp = ["CiliumBGPAdvertisement"];
    let both = [&announcers[..], &of_bgp].concat();
    assert_eq!(of("default/web", "Announced", false), both);
    assert!(of("default/web", "NoAdvertisement", false).is_empty());
    assert_eq!(of("shop/db", "Announced", false), ["kube-vip"]);
    assert_eq!(of("default/web", "KernelAnswers", false), [&both[..], &running].concat());
    assert_eq!(of("shop/db", "Pending", true)[..2], ["kube-vip", "Cilium"]);
    assert_eq!(of("shop/cart", "Pending", true)[..3], ["kube-vip", of_bgp[0], "MetalLB"]);
}

#[test]
fn services_that_only_another_load_balancer_announces_are_no_finding() {
    let of_web = |it: &Announcement| it.service == Some(Key::new("default", "web"));
    let cilium_advertisements = vec![of_cilium("bgp", &["default/web"])];
    let announcements = traces().announcements.into_iter().filter(of_web).collect();
    for traces in [
        Traces { cilium_advertisements, ..Traces::default() },
        Traces { announcements, ..Traces::default() },
    ] {
        let has_finding = |reason| {
            let mut facts = ClusterFacts { traces: traces.clone(), ..good() };
            facts.objects.as_mut().unwrap().rows = vec![row("default/web", reason)];
            codes(&Report::new(&facts)).contains(&Code::OtherLoadBalancer)
        };
        assert_eq!([has_finding("Announced"), has_finding("NoAdvertisement")], [true, false]);
    }
}
