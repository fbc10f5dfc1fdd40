//! Ten thousand addresses are exchanged for ten thousand others while a client asks for one that stays: it gets its answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::{arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::plan::Order;

use crate::lan::Lan;
use crate::port::Port;
use crate::speaker::{BOTH, Speaker, VIP, VIP6, runtime, wanted};

/// How many addresses are exchanged, half of each family.
const ADDRESSES: u32 = 10_000;
/// How long the client asks after each exchange.
const ASKING: Duration = Duration::from_secs(3);
/// How long it waits after each answer: who asks without end is not heard.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an answer may take at worst: three times two hellos, behind which a node that stood still may have been replaced.
const ANSWER_MAX: Duration = Duration::from_millis(300);

const ASKER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);

/// The order to announce the address that stays, and so many others from this number on.
fn order(first: u32) -> Arc<Order> {
    let other = |n: u32| -> IpAddr {
        if n.is_multiple_of(2) {
            Ipv4Addr::from(0x0a00_0000 + n).into()
        } else {
            Ipv6Addr::from(0xfd30 << 112 | u128::from(0x10000 + n)).into()
        }
    };
    let mut all = wanted(&BOTH);
    (first..first + ADDRESSES).for_each(|n| all.units.extend(wanted(&[other(n)]).units));
    Arc::new(all)
}

#[test]
fn an_address_that_stays_is_answered_for_while_ten_thousand_are_exchanged() {
    let lan = Lan::alone(&["node1"]);
    runtime().block_on(async {
        let mut owner = Speaker::start(&lan, "node1", &BOTH);
        owner.until("claimed the addresses", |report| report.held.len() == BOTH.len()).await;
        let client = Port::direct(&lan, "client", "eth0");
        let mut to_one = arp::request(client.mac, ASKER, VIP);
        to_one[..6].copy_from_slice(&owner.mac.0);
        let questions: [&[u8]; 2] = [&to_one, &ndp::unicast_solicitation(client.mac, ASKER6, VIP6, owner.mac)];
        for first in [1, 1 + ADDRESSES] {
            let new = order(first);
            owner.handle.order(new);
            let (start, mut times) = (Clock::now(), Vec::new());
            while Clock::now() < start + ASKING {
                for question in questions {
                    let asked = Clock::now();
                    client.send(question);
                    client.until("an answer", |frame| client.answer(frame).is_some());
                    times.push(Clock::now().since(asked));
                }
                tokio::time::sleep(PAUSE).await;
            }
            let longest = times.iter().max().expect("many were asked");
            println!(
                "{} answers while {ADDRESSES} addresses were exchanged, the longest after {longest:?}",
                times.len()
            );
            assert!(*longest < ANSWER_MAX, "{longest:?}");
            owner
                .until("has what it was told to have", |report| report.held.len() == BOTH.len() + ADDRESSES as usize)
                .await;
        }
        assert_eq!(owner.metrics.fences.get(), 0);
    });
}
