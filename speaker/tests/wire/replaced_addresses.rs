//! Ten thousand addresses are replaced by ten thousand others while a client sends requests for one
//! that stays: the client gets its replies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::{arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::plan::LinkConfig;

use crate::raw_socket::RawSocket;
use crate::segment::Segment;
use crate::speaker::{BOTH, TestSpeaker, VIP, VIP6, link_config, runtime};

/// Number of replaced addresses, half of each family.
const ADDRESSES: u32 = 10_000;
/// Time during which the client sends requests after each replacement.
const REQUEST_PERIOD: Duration = Duration::from_secs(3);
/// Pause after each reply: a client without pauses would be blocked.
const PAUSE: Duration = Duration::from_millis(1);
/// Longest acceptable time to a reply. Three times two hello intervals, after which a stalled node
/// may have been replaced.
const REPLY_TIME_MAX: Duration = Duration::from_millis(300);

const ASKER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);

/// Returns the config to announce the address that stays, and `ADDRESSES` others from this number
/// on.
fn config_with_others(first: u32) -> Arc<LinkConfig> {
    let other = |n: u32| -> IpAddr {
        if n.is_multiple_of(2) {
            Ipv4Addr::from(0x0a00_0000 + n).into()
        } else {
            Ipv6Addr::from(0xfd30 << 112 | u128::from(0x10000 + n)).into()
        }
    };
    let mut all = link_config(&BOTH);
    (first..first + ADDRESSES).for_each(|n| all.units.extend(link_config(&[other(n)]).units));
    Arc::new(all)
}

#[test]
fn an_address_that_stays_is_answered_for_while_ten_thousand_are_exchanged() {
    let lan = Segment::exclusive(&["node1"]);
    runtime().block_on(async {
        let mut owner = TestSpeaker::start(&lan, "node1", &BOTH);
        owner.until("claimed the addresses", |report| report.owned.len() == BOTH.len()).await;
        let client = RawSocket::unicast_only(&lan, "client", "eth0");
        let mut to_one = arp::request(client.mac, ASKER, VIP);
        to_one[..6].copy_from_slice(&owner.mac.0);
        let questions: [&[u8]; 2] = [&to_one, &ndp::unicast_solicitation(client.mac, ASKER6, VIP6, owner.mac)];
        for first in [1, 1 + ADDRESSES] {
            let new = config_with_others(first);
            owner.handle.set_config(new);
            let (start, mut times) = (Clock::now(), Vec::new());
            while Clock::now() < start + REQUEST_PERIOD {
                for question in questions {
                    let asked = Clock::now();
                    client.send(question);
                    client.until("an answer", |frame| client.parse_reply(frame).is_some());
                    times.push(Clock::now().since(asked));
                }
                tokio::time::sleep(PAUSE).await;
            }
            let longest = times.iter().max().expect("many were asked");
            println!(
                "{} answers while {ADDRESSES} addresses were exchanged, the longest after {longest:?}",
                times.len()
            );
            assert!(*longest < REPLY_TIME_MAX, "{longest:?}");
            owner
                .until("has what it was told to have", |report| report.owned.len() == BOTH.len() + ADDRESSES as usize)
                .await;
        }
        assert_eq!(owner.metrics.stalls.get(), 0);
    });
}
