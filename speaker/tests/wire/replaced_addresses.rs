//! Ten thousand addresses are replaced while a client requests two addresses that stay: the client
//! gets its replies in time.
//!
//! The client sends a request every millisecond. The test prints the slowest reply, with
//! `--nocapture`: 4 ms on two processors, and 2 ms with the profile `lab`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::{arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::plan::LinkConfig;

use crate::raw_socket::RawSocket;
use crate::segment::Segment;
use crate::speaker::{BOTH_VIPS, TestSpeaker, VIP, VIP6, link_config, runtime, with_one_candidate};

/// Number of replaced addresses, half of each family.
const ADDRESSES: u32 = 10_000;
/// Time during which the client sends requests after each replacement. The ARP probes of the new
/// addresses take 5.5 s.
const REQUEST_PERIOD: Duration = Duration::from_secs(6);
/// Pause after each reply: a client without pauses would be blocked.
const PAUSE: Duration = Duration::from_millis(1);
/// Maximum time from a request to its reply: three times two hello intervals. A node that stalls
/// for two hello intervals may lose its addresses.
const REPLY_TIME_MAX: Duration = Duration::from_millis(300);

const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const REQUESTER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);

/// Returns the config to announce [`BOTH_VIPS`] and `ADDRESSES` other addresses, numbered from
/// `first` on.
fn config_with_others(first: u32) -> Arc<LinkConfig> {
    let other = |n: u32| -> IpAddr {
        if n.is_multiple_of(2) {
            Ipv4Addr::from(0x0a00_0000 + n).into()
        } else {
            Ipv6Addr::from(0xfd30 << 112 | u128::from(0x10000 + n)).into()
        }
    };
    let mut config = link_config(&BOTH_VIPS);
    for n in first..first + ADDRESSES {
        for (address, unit) in link_config(&[other(n)]).units.iter() {
            config.units.insert(*address, Arc::clone(unit));
        }
    }
    Arc::new(with_one_candidate(config))
}

#[test]
fn requests_get_replies_while_ten_thousand_addresses_change() {
    let lan = Segment::exclusive(&["node1"]);
    runtime().block_on(async {
        let mut owner = TestSpeaker::start(&lan, "node1", &BOTH_VIPS);
        owner
            .wait_until("claimed the addresses", |report| report.owned.len() == BOTH_VIPS.len())
            .await;
        let client = RawSocket::unicast_only(&lan, "client", "eth0");
        let mut unicast_request = arp::request(client.mac, REQUESTER, VIP);
        unicast_request[..6].copy_from_slice(&owner.mac.0);
        let requests: [&[u8]; 2] =
            [&unicast_request, &ndp::unicast_solicitation(client.mac, REQUESTER6, VIP6, owner.mac)];
        for first in [1, 1 + ADDRESSES] {
            let config = config_with_others(first);
            owner.handle.set_config(config);
            let (start, mut times) = (Clock::now(), Vec::new());
            while Clock::now() < start + REQUEST_PERIOD {
                for request in requests {
                    let sent_at = Clock::now();
                    client.send(request);
                    client.read_until("a reply", |frame| client.parse_reply(frame).is_some());
                    times.push(Clock::now().since(sent_at));
                }
                tokio::time::sleep(PAUSE).await;
            }
            let longest = times.iter().max().expect("at least one request");
            println!(
                "{} replies while {ADDRESSES} addresses change, the slowest after {longest:?}",
                times.len()
            );
            assert!(*longest < REPLY_TIME_MAX, "{longest:?}");
            owner
                .wait_until("claimed all addresses of the config", |report| {
                    report.owned.len() == BOTH_VIPS.len() + ADDRESSES as usize
                })
                .await;
        }
        assert_eq!(owner.metrics.stalls.get(), 0);
    });
}
