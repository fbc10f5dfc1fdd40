//! A node whose link is a bridge, with the network card as its port: the bridge alone is spoken on, and speaks as any link does.

use std::time::Duration;

use ferrolb_proto::health::prober::Defaults;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::links;
use ferrolb_speaker::plan::plan;
use ferrolb_speaker::state::{Config, State};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::lan::Lan;
use crate::port::{Port, plain};
use crate::speaker::{BOTH, HOSTS, PATIENCE, elected_on, runtime};

/// Waits until these are the links of a host that its speaker would speak on: what its kernel says, and what the plan makes of it.
fn chosen(lan: &Lan, host: &str, expect: &[&str]) {
    let config = Config {
        node: host.into(),
        classes: Vec::new(),
        default_implementation: true,
        ignore_exclude_label: false,
        exclude_interfaces: Vec::new(),
        kube_proxy_address: None,
        gobgp: false,
        drain_delay: None,
        checks: Defaults { interval: Duration::from_secs(1), fall: 2, rise: 3 },
        checked_ranges: Some(Vec::new()),
    };
    let found = async {
        let (events, mut inbox) = mpsc::channel(1);
        let follow = async {
            let mut state = State::new(config);
            while let Some(event) = inbox.recv().await {
                state.handle(event, Clock::now());
                let links = plan(&state, Clock::now()).links;
                if links.values().map(|link| &*link.name).eq(expect.iter().copied()) {
                    return;
                }
            }
        };
        tokio::select! {
            () = links::run(events) => panic!("it follows for ever"),
            found = timeout(PATIENCE, follow) => found,
        }
    };
    lan.inside(host, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert!(runtime.block_on(found).is_ok(), "{host} never speaks on {expect:?} alone");
    });
}

#[test]
fn a_bridge_answers_for_its_ports_once_and_with_its_own_hardware_address() {
    let lan = Lan::new(&HOSTS);
    for (host, address) in HOSTS.into_iter().zip(["172.30.0.11/24", "172.30.0.12/24"]) {
        // Without a subnet it is taken for a pod's.
        chosen(&lan, host, &[]);
        lan.ip("-n", host, &format!("address add {address} dev eth0"));
        chosen(&lan, host, &["eth0"]);
        lan.ip("-n", host, "link add mac0 link eth0 up type macvlan mode bridge");
        chosen(&lan, host, &["eth0"]);
        lan.ip("-n", host, "link delete mac0");
        lan.bridge(host);
        chosen(&lan, host, &["br0"]);
    }
    runtime().block_on(async {
        let (owner, mut other) = elected_on(&lan, "br0", &BOTH).await;
        let client = Port::open(&lan, "client", "eth0");
        // Of the first questions all answers have come when the second are answered, the port's own, too, if it had any.
        let answers = [client.answers(), client.answers()].concat();
        assert_eq!(answers, [plain(owner.mac); 2].concat());
        for address in BOTH {
            lan.client_learns(address, owner.mac).await;
        }
        drop(owner.handle);
        other.until("took over", |report| report.held.len() == 2).await;
        for address in BOTH {
            lan.client_learns(address, other.mac).await;
        }
        assert_eq!(Port::open(&lan, "client", "eth0").answers(), plain(other.mac));
        assert_eq!((other.metrics.deaths.get(), other.metrics.conflicts.get()), (1, 0));
    });
}
