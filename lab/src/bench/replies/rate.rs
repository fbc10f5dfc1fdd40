//! Maximum rate of replies.
//!
//! The client sends unicast requests to the owner, for random addresses of the 10,000, and keeps
//! 100 requests outstanding for 3 s: each reply triggers the next request. The requests appear to
//! come from many hosts, because the speaker limits the rate of a single source.
//!
//! - Replies per second are those that the client receives. One thread of the client sends and
//!   receives, and may be the limit. It is the limit for the kernel, which replies within the
//!   client's own `send`.
//! - Processor time for 1,000 replies is that of the speaker's process meanwhile
//!   (`clock_getcpuclockid(3)`). It includes the work of the lab's switch until the client has the
//!   reply. The replies that one processor has time for are the inverse.

use super::{SEED, addresses_of_family, own_address};
use crate::bench::cpu;
use crate::bench::report::Findings;
use crate::bench::segment::{ClientSocket, RequestSender, mac};
use crate::bench::targets::RateMeasures;
use crate::cluster::ferrolb::speaker_name;
use crate::topology::{CLIENT, Host};
use crate::{Lab, wait};
use anyhow::{Result, ensure};
use fastrand::Rng;
use ferrolb_proto::wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

/// Length of the measurement.
const MEASUREMENT_TIME: Duration = Duration::from_secs(3);
/// Number of outstanding requests: far fewer than the buffer of a socket holds, and more than a
/// speaker reads in one batch.
const OUTSTANDING_MAX: usize = 100;
/// Time without any reply after which all outstanding requests count as lost.
const NO_REPLY_MAX: Duration = Duration::from_millis(100);
/// Maximum share of requests without a reply. A speaker whose answer lease expires for lack of
/// processor time sends its next hello before it replies again.
const LOSS_MAX: f64 = 0.01;

/// Result of one measurement of the reply rate.
#[derive(Debug)]
struct FloodResult {
    replies: usize,
    lost: usize,
    elapsed: Duration,
}

impl FloodResult {
    fn per_second(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64()
    }
}

/// Measures the replies per second of one protocol and their cost to the owner's speaker, and the
/// replies per second of the owner's kernel for its own address.
///
/// # Errors
/// If more than one request in a hundred gets no reply.
pub(super) fn flood(
    lab: &Lab,
    owner: &Host,
    addresses: &[IpAddr],
    measures: &RateMeasures,
    findings: &mut Findings,
) -> Result<()> {
    let socket = lab.within(CLIENT, || ClientSocket::open(measures.family))??;
    let (destination, pid) = (mac(owner)?, lab.pid(&speaker_name(&owner.name))?);
    let before = cpu::processor_time(pid)?;
    let speaker_result =
        flood_addresses(&socket, destination, &addresses_of_family(measures.family, addresses))?;
    let used = cpu::processor_time(pid)? - before;
    let kernel_result =
        flood_addresses(&socket, destination, &[own_address(owner, measures.family)])?;
    let time_per_reply = used.as_secs_f64() / speaker_result.replies as f64;
    findings.add(&measures.rate, speaker_result.per_second());
    findings.add(&measures.kernel, kernel_result.per_second());
    findings.add(&measures.cpu, time_per_reply * 1e6);
    findings.add(&measures.core, 1.0 / time_per_reply);
    Ok(())
}

fn flood_addresses(
    socket: &ClientSocket,
    destination: Mac,
    addresses: &[IpAddr],
) -> Result<FloodResult> {
    let mut random = Rng::with_seed(SEED);
    let (mut flood, mut outstanding) =
        (FloodResult { replies: 0, lost: 0, elapsed: Duration::ZERO }, 0);
    let start = wait::now();
    let mut last_reply = start;
    while start.elapsed() < MEASUREMENT_TIME {
        while outstanding < OUTSTANDING_MAX {
            let sender = RequestSender::foreign_host(random.u8(..));
            socket.send(
                &sender.request(Some(destination), addresses[random.usize(..addresses.len())]),
            )?;
            outstanding += 1;
        }
        if socket.next()?.is_some_and(|claim| claim.is_reply) {
            last_reply = wait::now();
            (flood.replies, outstanding) = (flood.replies + 1, outstanding.saturating_sub(1));
        } else if last_reply.elapsed() >= NO_REPLY_MAX {
            last_reply = wait::now();
            (flood.lost, outstanding) = (flood.lost + outstanding, 0);
        }
    }
    flood.elapsed = start.elapsed();
    let requests = (flood.replies + flood.lost) as f64;
    ensure!(
        flood.replies > 0 && flood.lost as f64 <= requests * LOSS_MAX,
        "too many requests got no reply: {flood:?}"
    );
    Ok(flood)
}
