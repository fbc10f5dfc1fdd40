//! Two speakers on a segment where no other host sends anything or replies.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_runtime::clock::Clock;

use crate::segment::Segment;
use crate::speaker::{GRATUITOUS_INTERVAL, HOSTS, TestSpeaker, runtime, wait_for_count};

const ADDRESSES: u8 = 12;
/// Time after a node failure within which the other node announces all addresses of the failed one.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(1_300);

#[test]
fn the_last_speaker_announces_all_addresses_on_a_quiet_segment() {
    let lan = Segment::exclusive(&HOSTS);
    lan.ip("-n", "client", "link set eth0 down");
    let addresses: Vec<IpAddr> = (0..ADDRESSES).map(|n| [172, 30, 0, 200 + n].into()).collect();
    let [failing, remaining] = HOSTS;
    runtime().block_on(async {
        let mut owner = TestSpeaker::start(&lan, failing, &addresses);
        owner
            .wait_until("claimed the addresses", |report| report.owned.len() == addresses.len())
            .await;
        let mut other = TestSpeaker::start(&lan, remaining, &addresses);
        other.wait_until("received hellos of the owner", |report| report.speakers.len() == 1).await;
        // All frames that arrive in this time are the owner's announcements: those for the
        // speaker that joined, and the periodic ones.
        tokio::time::sleep(3 * GRATUITOUS_INTERVAL).await;
        assert!(!other.owns_any());
        let before = other.metrics.announcements_sent.get();
        lan.ip("-n", failing, "link set eth0 down");
        let failed = Clock::now();
        other
            .wait_until("took over the addresses", |report| report.owned.len() == addresses.len())
            .await;
        // A gratuitous ARP request and a gratuitous ARP reply for each address.
        wait_for_count(
            || other.metrics.announcements_sent.get().min(before + 2 * u64::from(ADDRESSES)),
            before + 2 * u64::from(ADDRESSES),
        )
        .await;
        let took = Clock::now().since(failed);
        println!("the last speaker announces {ADDRESSES} addresses {took:?} after the failure");
        assert!(took < ANNOUNCED_WITHIN, "{took:?}");
    });
}
