//! A node whose interface is a bridge with the network card as its port: the speaker uses only the
//! bridge, in the same way as any other interface.

use std::time::Duration;

use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::links;
use ferrolb_speaker_core::health::prober::CheckDefaults;
use ferrolb_speaker_core::plan::{Memo, plan};
use ferrolb_speaker_core::state::{State, StateConfig};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::raw_socket::{RawSocket, plain_replies};
use crate::segment::Segment;
use crate::speaker::{BOTH_VIPS, HOSTS, TIMEOUT, runtime, start_pair_on};

/// Waits until the plan for a host uses exactly the interfaces `expect`. The facts for the plan
/// come from the host's kernel.
fn wait_for_interfaces(lan: &Segment, host: &str, expect: &[&str]) {
    let config = StateConfig {
        node: host.into(),
        classes: Vec::new(),
        default_implementation: true,
        pool_grace: Duration::from_secs(60),
        ignore_exclude_label: false,
        exclude_interfaces: Vec::new(),
        kube_proxy_address: None,
        gobgp: false,
        health_check_defaults: CheckDefaults { interval: Duration::from_secs(1), fall: 2, rise: 3 },
        checked_ranges: Some(Vec::new()),
    };
    let plan_matches = async {
        let (events, mut inbox) = mpsc::channel(1);
        let update_state = async {
            let mut state = State::new(config);
            while let Some(event) = inbox.recv().await {
                state.handle(event, Clock::now());
                let links = plan(&state, &mut Memo::default(), Clock::now()).links;
                if links.values().map(|link| &*link.name).eq(expect.iter().copied()) {
                    return;
                }
            }
        };
        tokio::select! {
            () = links::run(events) => panic!("links::run returned"),
            result = timeout(TIMEOUT, update_state) => result,
        }
    };
    lan.inside(host, || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert!(
            runtime.block_on(plan_matches).is_ok(),
            "the plan for {host} never uses exactly {expect:?}"
        );
    });
}

#[test]
fn a_bridge_replies_once_and_with_its_own_mac() {
    let lan = Segment::new(&HOSTS);
    for (host, address) in HOSTS.into_iter().zip(["172.30.0.11/24", "172.30.0.12/24"]) {
        // Without a subnet, eth0 counts as a pod's interface.
        wait_for_interfaces(&lan, host, &[]);
        lan.ip("-n", host, &format!("address add {address} dev eth0"));
        wait_for_interfaces(&lan, host, &["eth0"]);
        lan.ip("-n", host, "link add mac0 link eth0 up type macvlan mode bridge");
        wait_for_interfaces(&lan, host, &["eth0"]);
        lan.ip("-n", host, "link delete mac0");
        lan.add_bridge(host);
        wait_for_interfaces(&lan, host, &["br0"]);
    }
    runtime().block_on(async {
        let (owner, mut other) = start_pair_on(&lan, "br0", &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        // The replies to the second round of requests prove that all replies to the first round
        // have arrived, including any from the bridge's port.
        let replies =
            [client.probe_and_collect_replies(), client.probe_and_collect_replies()].concat();
        assert_eq!(replies, [plain_replies(owner.mac); 2].concat());
        for address in BOTH_VIPS {
            lan.client_learns(address, owner.mac).await;
        }
        drop(owner.handle);
        other.wait_until("took over the addresses", |report| report.owned.len() == 2).await;
        for address in BOTH_VIPS {
            lan.client_learns(address, other.mac).await;
        }
        assert_eq!(
            RawSocket::open(&lan, "client", "eth0").probe_and_collect_replies(),
            plain_replies(other.mac)
        );
        assert_eq!((other.metrics.node_failures.get(), other.metrics.conflicts.get()), (1, 0));
    });
}
