//! Alternating requests, one for a Service's address and one for the owner's own address, so that
//! any load on the machine affects both equally.

use super::{SEED, median, of_family, own_address};
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

/// Replies of each kind in one set.
const ROUNDS: usize = 1000;
/// Number of sets, separated by a pause. Their median is the value, so that one busy moment of the
/// machine does not affect it.
const SETS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// Requests before the first set, to warm up the caches.
const WARM_UP: usize = 50;
/// Maximum time of a reply.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Requests the addresses in every mode of `known`, alternating with the owner's own address.
///
/// # Errors
/// If a reply is lost: a statistic without it would be too low.
pub(super) fn compare(
    lab: &Lab,
    owner: &Host,
    addresses: &[IpAddr],
    known: &[ReplyMeasures],
    findings: &mut Findings,
) -> Result<()> {
    let mut ways = known
        .iter()
        .map(|known| RequestMode::of(lab, owner, addresses, known))
        .collect::<Result<Vec<_>>>()?;
    ways.iter_mut().try_for_each(|way| way.request_alternately(WARM_UP).map(drop))?;
    for _ in 0..SETS {
        wait::during(PAUSE, || Ok(()))?;
        for way in &mut ways {
            let set = way.request_alternately(ROUNDS)?;
            way.sets.push(set);
        }
    }
    ways.into_iter().try_for_each(|way| conclude(findings, way.known, &way.sets))
}

/// Times of one set in microseconds: FerroLB's and the kernel's.
type SampleSet = [Vec<f64>; 2];

/// A request mode with its results so far.
struct RequestMode<'a> {
    known: &'a ReplyMeasures,
    wire: ClientSocket,
    destination: Option<Mac>,
    addresses: Vec<IpAddr>,
    /// Address of the owner's own interface.
    own: IpAddr,
    random: Rng,
    sets: Vec<SampleSet>,
}

impl<'a> RequestMode<'a> {
    fn of(lab: &Lab, owner: &Host, addresses: &[IpAddr], known: &'a ReplyMeasures) -> Result<Self> {
        let wire = lab.within(CLIENT, || ClientSocket::open(known.family))??;
        let whom = (!known.broadcast).then(|| mac(owner)).transpose()?;
        let addresses = of_family(known.family, addresses);
        let (own, random) = (own_address(owner, known.family), Rng::with_seed(SEED));
        Ok(Self { known, wire, destination: whom, addresses, own, random, sets: Vec::new() })
    }

    /// Returns the times of `rounds` replies for Services' addresses and of as many replies for the
    /// owner's own address. Services' addresses are chosen at random, so that each reply needs a
    /// new lookup.
    fn request_alternately(&mut self, rounds: usize) -> Result<SampleSet> {
        let mut times = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
        for round in 0..rounds {
            let address = self.addresses[self.random.usize(..self.addresses.len())];
            for (address, times) in [address, self.own].into_iter().zip(&mut times) {
                let time = self.wire.round_trip(self.destination, address, ANSWER_MAX)?;
                let time =
                    time.with_context(|| format!("no reply for {address} in round {round}"))?;
                times.push(time.as_secs_f64() * 1e6);
            }
        }
        Ok(times)
    }
}

fn conclude(findings: &mut Findings, known: &ReplyMeasures, sets: &[SampleSet]) -> Result<()> {
    for (place, figure) in [median, p99].into_iter().enumerate() {
        let pairs: Vec<(f64, f64)> = sets
            .iter()
            .map(|[ours, kernels]| figure(ours).zip(figure(kernels)))
            .collect::<Option<_>>()
            .unwrap_or_default();
        let ratios: Option<Vec<f64>> =
            pairs.iter().map(|(our, kernel)| ratio(*our, *kernel)).collect();
        let (ours, kernels): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        findings.add(&known.address[place], median(&ours).context("no request was sent")?);
        findings.add(&known.kernel[place], median(&kernels).context("no request was sent")?);
        findings.add(
            &known.ratio[place],
            median(&ratios.unwrap_or_default()).context("the kernel took no time")?,
        );
    }
    for (index, who) in ["address", "kernel"].into_iter().enumerate() {
        let samples = sets.iter().flat_map(|set| set[index].iter().copied()).collect();
        findings.keep(&format!("{}.{who}", known.name), samples);
    }
    Ok(())
}

fn p99(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.p99)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets::ANSWERED_1;

    #[test]
    fn the_figure_is_the_median_set_s_ratio_of_percentiles() {
        let quiet = [vec![60.0, 30.0, 40.0], vec![20.0, 50.0, 10.0]];
        let busy = [vec![9000.0, 9000.0], vec![1.0, 1.0]];
        let mut findings = Findings::default();
        conclude(&mut findings, &ANSWERED_1[0], &[busy, quiet.clone(), quiet]).unwrap();
        let value =
            |id: &str| findings.measures.iter().find(|measure| measure.id == id).unwrap().value;
        assert_eq!((value("answers.ratio.p50"), value("answers.ratio.p99")), (2.0, 1.2));
        assert_eq!((value("answers.address.p50"), value("answers.kernel.p99")), (40.0, 50.0));
        assert_eq!(findings.samples["answers.kernel"].len(), 8);
    }

    #[test]
    fn no_answers_are_no_findings() {
        let none = || [Vec::new(), Vec::new()];
        for sets in
            [vec![], vec![none()], vec![[vec![1.0], Vec::new()]], vec![[vec![1.0], vec![0.0]]]]
        {
            assert!(conclude(&mut Findings::default(), &ANSWERED_1[1], &sets).is_err(), "{sets:?}");
        }
    }
}
