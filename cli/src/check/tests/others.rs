//! Tests of the texts about other load balancers for one Service.

use ferrolb_controller_core::state::{AddressExplanation, Explanation};

use super::*;
use crate::check::facts::OtherLoadBalancers;
use crate::check::load_balancers::others_of;

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
    assert_eq!(of("default/web", "Announced", false), announcers);
    assert_eq!(of("shop/db", "Announced", false), ["kube-vip"]);
    assert_eq!(of("default/web", "KernelAnswers", false), [announcers, running].concat());
    assert_eq!(of("shop/db", "Pending", true)[..2], ["kube-vip", "Cilium"]);
}
