//! Two speakers on a wire where no other host says or answers anything.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_runtime::clock::Clock;

use crate::lan::Lan;
use crate::speaker::{GRATUITOUS_INTERVAL, HOSTS, Speaker, counted, runtime};

const ADDRESSES: u8 = 12;
/// Within this time of a node failure all its addresses are announced by the node that is left.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(1_300);

#[test]
fn the_last_speaker_announces_all_addresses_although_nobody_answers_it() {
    let lan = Lan::alone(&HOSTS);
    lan.ip("-n", "client", "link set eth0 down");
    let addresses: Vec<IpAddr> = (0..ADDRESSES).map(|n| [172, 30, 0, 200 + n].into()).collect();
    let [failing, left] = HOSTS;
    runtime().block_on(async {
        let mut owner = Speaker::start(&lan, failing, &addresses);
        owner.until("claimed the addresses", |report| report.held.len() == addresses.len()).await;
        let mut other = Speaker::start(&lan, left, &addresses);
        other.until("heard the owner", |report| report.heard.len() == 1).await;
        // All that it hears in this time are the owner's announcements: those for the newcomer, and
        // those that come again and again.
        tokio::time::sleep(3 * GRATUITOUS_INTERVAL).await;
        assert!(!other.holds());
        let before = other.metrics.gratuitous.get();
        lan.ip("-n", failing, "link set eth0 down");
        let failed = Clock::now();
        other.until("took over", |report| report.held.len() == addresses.len()).await;
        // Each in both forms.
        counted(
            || other.metrics.gratuitous.get().min(before + 2 * u64::from(ADDRESSES)),
            before + 2 * u64::from(ADDRESSES),
        )
        .await;
        let took = Clock::now().since(failed);
        println!("the last speaker has announced {ADDRESSES} addresses {took:?} after the other node failed");
        assert!(took < ANNOUNCED_WITHIN, "{took:?}");
    });
}
