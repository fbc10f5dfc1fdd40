//! Maximum rate of replies.
//!
//! The client sends unicast requests to the owner, for random addresses, and keeps a fixed number
//! of requests outstanding. The requests appear to come from many hosts, because the speaker limits
//! the rate of a single source.

use super::{SEED, of_family, own_address};
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
const LENGTH: Duration = Duration::from_secs(3);
/// Number of outstanding requests: far fewer than the buffer of a socket holds, and more than a
/// speaker reads in one batch.
const UNDER_WAY: usize = 100;
/// Time without a reply after which all outstanding requests count as lost.
const SILENCE: Duration = Duration::from_millis(100);
/// Maximum share of requests without a reply. A speaker that gets no processor time for too long
/// sends its next hello before it replies again.
const LOSS_MAX: f64 = 0.01;

/// Result of a measurement.
#[derive(Debug)]
struct FloodResult {
    answers: usize,
    lost: usize,
    took: Duration,
}

impl FloodResult {
    fn per_second(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
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
    known: &RateMeasures,
    findings: &mut Findings,
) -> Result<()> {
    let wire = lab.within(CLIENT, || ClientSocket::open(known.family))??;
    let (whom, pid) = (mac(owner)?, lab.pid(&speaker_name(&owner.name))?);
    let before = cpu::used(pid)?;
    let ours = flood_addresses(&wire, whom, &of_family(known.family, addresses))?;
    let used = cpu::used(pid)? - before;
    let kernels = flood_addresses(&wire, whom, &[own_address(owner, known.family)])?;
    let each = used.as_secs_f64() / ours.answers as f64;
    findings.add(&known.rate, ours.per_second());
    findings.add(&known.kernel, kernels.per_second());
    findings.add(&known.cpu, each * 1e6);
    findings.add(&known.core, 1.0 / each);
    Ok(())
}

fn flood_addresses(wire: &ClientSocket, whom: Mac, addresses: &[IpAddr]) -> Result<FloodResult> {
    let mut random = Rng::with_seed(SEED);
    let (mut flood, mut under_way) = (FloodResult { answers: 0, lost: 0, took: Duration::ZERO }, 0);
    let start = wait::now();
    let mut heard = start;
    while start.elapsed() < LENGTH {
        while under_way < UNDER_WAY {
            let asker = RequestSender::foreign(random.u8(..));
            wire.send(&asker.request(Some(whom), addresses[random.usize(..addresses.len())]))?;
            under_way += 1;
        }
        if wire.next()?.is_some_and(|heard| heard.answers) {
            heard = wait::now();
            (flood.answers, under_way) = (flood.answers + 1, under_way.saturating_sub(1));
        } else if heard.elapsed() >= SILENCE {
            heard = wait::now();
            (flood.lost, under_way) = (flood.lost + under_way, 0);
        }
    }
    flood.took = start.elapsed();
    let asked = (flood.answers + flood.lost) as f64;
    ensure!(
        flood.answers > 0 && flood.lost as f64 <= asked * LOSS_MAX,
        "replies are missing: {flood:?}"
    );
    Ok(flood)
}
