//! Questions in turn: one for a Service's address, one for the owner's own, so that whatever slows the machine slows both.

use super::{SEED, median, of, own};
use crate::Lab;
use crate::bench::budgets::Answered;
use crate::bench::report::Findings;
use crate::bench::stats::{Spread, ratio};
use crate::bench::wire::{Wire, mac};
use crate::chance::Chance;
use crate::topology::{CLIENT, Host};
use crate::wait;
use anyhow::{Context, Result};
use ferrolb_proto::wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

/// How many answers of each make one set.
const ROUNDS: usize = 1000;
/// How many sets are measured, a pause apart: their median is the figure, so that one busy moment of the machine is not.
const SETS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How many are asked for before, for the caches' sake.
const WARM_UP: usize = 50;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks for the addresses in every way of `known`, in turn with the owner's own.
///
/// # Errors
/// When an answer is lost: a time without it would be a lie.
pub(super) fn compare(
    lab: &Lab,
    owner: &Host,
    addresses: &[IpAddr],
    known: &[Answered],
    findings: &mut Findings,
) -> Result<()> {
    let mut ways = known.iter().map(|known| Way::of(lab, owner, addresses, known)).collect::<Result<Vec<_>>>()?;
    ways.iter_mut().try_for_each(|way| way.ask_in_turn(WARM_UP).map(drop))?;
    for _ in 0..SETS {
        wait::during(PAUSE, || Ok(()))?;
        for way in &mut ways {
            let set = way.ask_in_turn(ROUNDS)?;
            way.sets.push(set);
        }
    }
    ways.into_iter().try_for_each(|way| conclude(findings, way.known, &way.sets))
}

/// The times of one set, in microseconds: ours and the kernel's.
type Set = [Vec<f64>; 2];

/// A way to ask, and what came of it so far.
struct Way<'a> {
    known: &'a Answered,
    wire: Wire,
    whom: Option<Mac>,
    addresses: Vec<IpAddr>,
    /// The owner's own address.
    own: IpAddr,
    chance: Chance,
    sets: Vec<Set>,
}

impl<'a> Way<'a> {
    fn of(lab: &Lab, owner: &Host, addresses: &[IpAddr], known: &'a Answered) -> Result<Self> {
        let wire = lab.within(CLIENT, || Wire::open(known.family))??;
        let whom = (!known.of_all).then(|| mac(owner)).transpose()?;
        let addresses = of(known.family, addresses);
        let (own, chance) = (own(owner, known.family), Chance::new(SEED));
        Ok(Self { known, wire, whom, addresses, own, chance, sets: Vec::new() })
    }

    /// The times of `rounds` answers for Services' addresses, taken by chance so that each has to be looked up anew, and as many for the
    /// owner's own.
    fn ask_in_turn(&mut self, rounds: usize) -> Result<Set> {
        let mut times = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
        for round in 0..rounds {
            let address = self.chance.pick(&self.addresses);
            for (address, times) in [address, self.own].into_iter().zip(&mut times) {
                let time = self.wire.ask(self.whom, address, ANSWER_MAX)?;
                let time = time.with_context(|| format!("no answer for {address} in round {round}"))?;
                times.push(time.as_secs_f64() * 1e6);
            }
        }
        Ok(times)
    }
}

fn conclude(findings: &mut Findings, known: &Answered, sets: &[Set]) -> Result<()> {
    for (place, figure) in [median, p99].into_iter().enumerate() {
        let pairs: Vec<(f64, f64)> = sets
            .iter()
            .map(|[ours, kernels]| figure(ours).zip(figure(kernels)))
            .collect::<Option<_>>()
            .unwrap_or_default();
        let ratios: Option<Vec<f64>> = pairs.iter().map(|(our, kernel)| ratio(*our, *kernel)).collect();
        let (ours, kernels): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        findings.add(&known.address[place], median(&ours).context("nothing was asked")?);
        findings.add(&known.kernel[place], median(&kernels).context("nothing was asked")?);
        findings.add(&known.ratio[place], median(&ratios.unwrap_or_default()).context("the kernel took no time")?);
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
    use crate::bench::budgets::ANSWERED_1;

    #[test]
    fn the_figure_is_the_median_set_s_ratio_of_percentiles() {
        let quiet = [vec![60.0, 30.0, 40.0], vec![20.0, 50.0, 10.0]];
        let busy = [vec![9000.0, 9000.0], vec![1.0, 1.0]];
        let mut findings = Findings::default();
        conclude(&mut findings, &ANSWERED_1[0], &[busy, quiet.clone(), quiet]).unwrap();
        let value = |id: &str| findings.measures.iter().find(|measure| measure.id == id).unwrap().value;
        assert_eq!((value("answers.ratio.p50"), value("answers.ratio.p99")), (2.0, 1.2));
        assert_eq!((value("answers.address.p50"), value("answers.kernel.p99")), (40.0, 50.0));
        assert_eq!(findings.samples["answers.kernel"].len(), 8);
    }

    #[test]
    fn no_answers_are_no_findings() {
        let none = || [Vec::new(), Vec::new()];
        for sets in [vec![], vec![none()], vec![[vec![1.0], Vec::new()]], vec![[vec![1.0], vec![0.0]]]] {
            assert!(conclude(&mut Findings::default(), &ANSWERED_1[1], &sets).is_err(), "{sets:?}");
        }
    }
}
