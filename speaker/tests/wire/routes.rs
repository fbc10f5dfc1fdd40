//! Routes that the speaker reads from a real kernel: those to pods of the node, in the forms of
//! Calico and Cilium.

use ferrolb_speaker::routes;
use ferrolb_speaker_core::event::{Event, PodRoute};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::segment::Segment;
use crate::speaker::TIMEOUT;

const NODE: &str = "node";

/// Waits until the routes to pods are those to `expect`, by an interface of the node.
async fn wait_routes(
    lan: &Segment,
    events: &mut mpsc::Receiver<Event>,
    link: &str,
    expect: &[&str],
) {
    let index = if expect.is_empty() { 0 } else { lan.index_of(NODE, link) };
    let route = |to: &&str| PodRoute { range: to.parse().expect("a range"), link: index };
    let expect: Vec<_> = expect.iter().map(route).collect();
    let matching = async {
        while let Some(event) = events.recv().await {
            if matches!(event, Event::Routes(routes) if *routes.to_pods == *expect) {
                return;
            }
        }
        panic!("routes::run returned");
    };
    assert!(timeout(TIMEOUT, matching).await.is_ok(), "the routes are never {expect:?}");
}

async fn change_routes(lan: &Segment, events: &mut mpsc::Receiver<Event>) {
    let ip = |arguments: &str| lan.ip("-n", NODE, arguments);
    wait_routes(lan, events, "", &[]).await;
    ip(&format!("link add cali7 up type veth peer name eth7 netns {}", lan.namespace("client")));
    lan.ip("-n", "client", "link set eth7 up");
    ip("route add 10.9.9.7/32 dev cali7");
    ip("route add fd09::7/128 dev cali7");
    ip("route add 10.9.9.8/32 via 10.9.9.7 dev cali7 onlink");
    wait_routes(lan, events, "cali7", &["10.9.9.7", "fd09::7"]).await;
    // Linux removes the routes, and sends no message about the one of IPv4.
    ip("route del fd09::7/128 dev cali7");
    wait_routes(lan, events, "cali7", &["10.9.9.7"]).await;
    ip("link set cali7 down");
    ip("link set cali7 up");
    wait_routes(lan, events, "", &[]).await;
    ip("link delete cali7");

    ip("link add cilium_host up type veth peer name cilium_net");
    ip("link set cilium_net up");
    ip("address add 10.0.1.13/32 dev cilium_host");
    ip("address add fd0c::113/128 dev cilium_host nodad");
    for range in ["10.0.1.0/24", "10.0.2.0/24"] {
        ip(&format!("route add {range} via 10.0.1.13 dev cilium_host src 10.0.1.13"));
    }
    for range in ["fd0c::100/120", "fd0c::200/120"] {
        ip(&format!("route add {range} dev cilium_host src fd0c::113"));
    }
    // The kernel itself adds the route to the address of IPv6.
    let expect = ["10.0.1.0/24", "fd0c::100/120", "fd0c::113"];
    wait_routes(lan, events, "cilium_host", &expect).await;
}

#[test]
fn routes_to_pods_are_followed_until_their_interface_goes_down() {
    let lan = Segment::new(&[NODE]);
    lan.inside(NODE, || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (sender, mut events) = mpsc::channel(1);
            tokio::select! {
                () = routes::run(sender) => panic!("routes::run returned"),
                () = change_routes(&lan, &mut events) => {}
            }
        });
    });
}
