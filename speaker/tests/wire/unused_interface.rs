//! An interface that the speaker stops using while it owns addresses there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::order;
use ferrolb_speaker::link::{ClaimSettings, LinkSet};
use ferrolb_speaker::metrics::Metrics;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::plan::LinkPlan;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::segment::Segment;
use crate::speaker::{HOSTS, TIMEOUT, TestSpeaker, VIP, healthy_watchdog, link_config, runtime};

#[test]
fn addresses_of_an_unused_interface_are_handed_over() {
    let lan = Segment::new(&HOSTS);
    let mut nodes = HOSTS;
    nodes.sort_by_key(|node| order(node, &VIP.to_string()));
    let [owner, other] = nodes;
    let protocol = ClaimSettings {
        node: owner.into(),
        // Failure detection takes three hello intervals, much longer than a release.
        hello_interval: Duration::from_secs(1),
        hello_misses_max: 3,
        detection_time_max: Duration::from_secs(2),
        preempt_delay: Some(Duration::from_secs(30)),
        gratuitous_interval: None,
    };
    let run = || async {
        let (sender, mut events) = mpsc::channel(64);
        let mut set = LinkSet::new(
            protocol,
            Metrics::new(&mut Registry::default()),
            healthy_watchdog(),
            None,
            sender,
        );
        let eth0 = LinkPlan {
            name: "eth0".into(),
            mac: lan.mac(owner),
            selected: true,
            config: Arc::new(link_config(&[VIP.into()])),
            ndp_addresses: Arc::default(),
        };
        set.apply(&BTreeMap::from([(lan.index_of(owner, "eth0"), eth0)])).expect("random numbers");
        let mut other = TestSpeaker::start(&lan, other, &[VIP.into()]);
        let claimed = async {
            while !matches!(events.recv().await, Some(Event::Report { report, .. }) if !report.owned.is_empty())
            {
            }
        };
        timeout(TIMEOUT, claimed).await.expect("the owner claims the address");
        other.wait_until("received hellos of the owner", |report| report.speakers.len() == 1).await;
        set.apply(&BTreeMap::new()).expect("random numbers");
        other.wait_until("took over the addresses", |report| !report.owned.is_empty()).await;
        assert_eq!(
            (other.metrics.suspicions.get(), other.metrics.node_failures.get()),
            (0, 0),
            "no suspicion and no node failure"
        );
    };
    lan.inside(owner, || runtime().block_on(run()));
}
