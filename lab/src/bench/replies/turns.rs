//! Alternating requests, one for a Service's address and one for the owner's own address, so that
//! any load on the machine affects both equally. The owner's kernel replies for its own address.
//!
//! # Method
//!
//! - The client sends 1,000 requests of each kind from one packet socket, each after the reply to
//!   the previous one. A fixed seed selects the address of each request at random.
//! - There are five such sets, one second apart. The median of the sets counts. The ratio is the
//!   median of the ratios of the sets, and not the quotient of the two printed times.
//! - Broadcast: a request to all hosts, or for NDP to the solicited-node group. A client without a
//!   cache entry sends it, and MetalLB was measured like this. This mode favors a reply from a
//!   process: the switch of the lab is the kernel, which delivers the frame to every host before
//!   the client's `send` returns. The delivery takes most of the time of both replies.
//! - Unicast: a request by which a client verifies its cache entry. The part of the switch is
//!   small, so the time of the reply itself is visible. This mode has no target.
//!
//! With 10,000 joined groups, the kernel takes far longer for each multicast frame, because it
//! searches the group in a list. The ratio is therefore lower where the times are higher.

use super::{SEED, addresses_of_family, median, own_address};
use crate::Lab;
use crate::bench::report::Findings;
use crate::bench::segment::{ClientSocket, mac};
use crate::bench::stats::{Spread, ratio};
use crate::bench::targets::ReplyMeasures;
use crate::topology::{CLIENT, Host};
use crate::wait;
use anyhow::{Context, Result};
use fastrand::Rng;
use ferrolb_proto::wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

/// Number of requests to the speaker in one set, and also of requests to the kernel.
const ROUNDS: usize = 1000;
/// Number of sets, separated by a pause. Their median is the value, so that one busy moment of the
/// machine does not affect it.
const SETS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// Number of unmeasured requests before the first measured ones, to warm up the caches.
const WARM_UP: usize = 50;
/// Maximum time from a request to its reply.
const REPLY_MAX: Duration = Duration::from_secs(1);

/// Measures the reply times for `addresses` and, alternately, for the owner's own address, in every
/// request mode of `measures`. A request mode is a family, and either broadcast or unicast.
///
/// # Errors
/// If a reply is lost: a statistic without it would be too low.
pub(super) fn compare(
    lab: &Lab,
    owner: &Host,
    addresses: &[IpAddr],
    measures: &[ReplyMeasures],
    findings: &mut Findings,
) -> Result<()> {
    let mut modes = measures
        .iter()
        .map(|measures| RequestMode::of(lab, owner, addresses, measures))
        .collect::<Result<Vec<_>>>()?;
    modes.iter_mut().try_for_each(|mode| mode.request_alternately(WARM_UP).map(drop))?;
    for _ in 0..SETS {
        wait::during(PAUSE, || Ok(()))?;
        for mode in &mut modes {
            let set = mode.request_alternately(ROUNDS)?;
            mode.sets.push(set);
        }
    }
    modes.into_iter().try_for_each(|mode| conclude(findings, mode.measures, &mode.sets))
}

/// Reply times of one set in microseconds: those of the speaker, and those of the kernel.
type SampleSet = [Vec<f64>; 2];

/// A request mode, with the reply times that were measured so far.
struct RequestMode<'a> {
    measures: &'a ReplyMeasures,
    socket: ClientSocket,
    destination: Option<Mac>,
    addresses: Vec<IpAddr>,
    /// Address of the owner's own interface.
    own: IpAddr,
    random: Rng,
    sets: Vec<SampleSet>,
}

impl<'a> RequestMode<'a> {
    fn of(
        lab: &Lab,
        owner: &Host,
        addresses: &[IpAddr],
        measures: &'a ReplyMeasures,
    ) -> Result<Self> {
        let socket = lab.within(CLIENT, || ClientSocket::open(measures.family))??;
        let destination = (!measures.broadcast).then(|| mac(owner)).transpose()?;
        let addresses = addresses_of_family(measures.family, addresses);
        let (own, random) = (own_address(owner, measures.family), Rng::with_seed(SEED));
        Ok(Self { measures, socket, destination, addresses, own, random, sets: Vec::new() })
    }

    /// Returns the times of `rounds` replies for Services' addresses and of as many replies for the
    /// owner's own address. Services' addresses are chosen at random, so that each reply needs a
    /// new lookup.
    fn request_alternately(&mut self, rounds: usize) -> Result<SampleSet> {
        let mut times = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
        for round in 0..rounds {
            let address = self.addresses[self.random.usize(..self.addresses.len())];
            for (address, times) in [address, self.own].into_iter().zip(&mut times) {
                let time = self.socket.round_trip(self.destination, address, REPLY_MAX)?;
                let time =
                    time.with_context(|| format!("request {round} for {address} got no reply"))?;
                times.push(time.as_secs_f64() * 1e6);
            }
        }
        Ok(times)
    }
}

fn conclude(findings: &mut Findings, measures: &ReplyMeasures, sets: &[SampleSet]) -> Result<()> {
    for (index, statistic) in [median, p99].into_iter().enumerate() {
        let pairs: Vec<(f64, f64)> = sets
            .iter()
            .map(|[speaker, kernel]| statistic(speaker).zip(statistic(kernel)))
            .collect::<Option<_>>()
            .unwrap_or_default();
        let ratios: Option<Vec<f64>> =
            pairs.iter().map(|(speaker, kernel)| ratio(*speaker, *kernel)).collect();
        let (speaker, kernel): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        findings.add(&measures.address[index], median(&speaker).context("there are no samples")?);
        findings.add(&measures.kernel[index], median(&kernel).context("there are no samples")?);
        findings.add(
            &measures.ratio[index],
            median(&ratios.unwrap_or_default()).context("the kernel's replies took no time")?,
        );
    }
    for (index, source) in ["address", "kernel"].into_iter().enumerate() {
        let samples = sets.iter().flat_map(|set| set[index].iter().copied()).collect();
        findings.keep_samples(&format!("{}.{source}", measures.name), samples);
    }
    Ok(())
}

fn p99(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.p99)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets::REPLIES_1;

    #[test]
    fn the_ratio_is_the_median_of_the_sets() {
        let quiet = [vec![60.0, 30.0, 40.0], vec![20.0, 50.0, 10.0]];
        let busy = [vec![9000.0, 9000.0], vec![1.0, 1.0]];
        let mut findings = Findings::default();
        conclude(&mut findings, &REPLIES_1[0], &[busy, quiet.clone(), quiet]).unwrap();
        let value =
            |id: &str| findings.measures.iter().find(|measure| measure.id == id).unwrap().value;
        assert_eq!((value("answers.ratio.p50"), value("answers.ratio.p99")), (2.0, 1.2));
        assert_eq!((value("answers.address.p50"), value("answers.kernel.p99")), (40.0, 50.0));
        assert_eq!(findings.samples["answers.kernel"].len(), 8);
    }

    #[test]
    fn missing_samples_are_an_error() {
        let none = || [Vec::new(), Vec::new()];
        for sets in
            [vec![], vec![none()], vec![[vec![1.0], Vec::new()]], vec![[vec![1.0], vec![0.0]]]]
        {
            assert!(conclude(&mut Findings::default(), &REPLIES_1[1], &sets).is_err(), "{sets:?}");
        }
    }
}
