//! As many answers as the owner gives: the client asks it alone, for addresses by chance, and has so many questions under way at all times, from many
//! hosts: one alone that asks so much is not heard.

use super::{SEED, of, own};
use crate::bench::budgets::Flooded;
use crate::bench::cpu;
use crate::bench::report::Findings;
use crate::bench::wire::{Asker, Wire, mac};
use crate::chance::Chance;
use crate::cluster::ferrolb::speaker_name;
use crate::topology::{CLIENT, Host};
use crate::{Lab, wait};
use anyhow::{Result, ensure};
use ferrolb_proto::wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

/// For how long.
const LENGTH: Duration = Duration::from_secs(3);
/// How many questions are under way: far fewer than a socket's buffer holds, and more than a speaker reads in one go.
const UNDER_WAY: usize = 100;
/// When no answer has come for so long, none of those under way will.
const SILENCE: Duration = Duration::from_millis(100);
/// So many of all questions may go without an answer: a speaker that is kept from its processor for too long does not answer until it has said
/// hello.
const LOST_MAX: f64 = 0.01;

/// What came of it.
#[derive(Debug)]
struct Flood {
    answers: usize,
    lost: usize,
    took: Duration,
}

impl Flood {
    fn per_second(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }
}

/// The owner's answers of one protocol in a second and what they cost its speaker; and its kernel's, for its own address.
///
/// # Errors
/// When more than one question of a hundred is not answered.
pub(super) fn flood(
    lab: &Lab,
    owner: &Host,
    addresses: &[IpAddr],
    known: &Flooded,
    findings: &mut Findings,
) -> Result<()> {
    let wire = lab.within(CLIENT, || Wire::open(known.family))??;
    let (whom, pid) = (mac(owner)?, lab.pid(&speaker_name(&owner.name))?);
    let before = cpu::used(pid)?;
    let ours = ask_on(&wire, whom, &of(known.family, addresses))?;
    let used = cpu::used(pid)? - before;
    let kernels = ask_on(&wire, whom, &[own(owner, known.family)])?;
    let each = used.as_secs_f64() / ours.answers as f64;
    findings.add(&known.rate, ours.per_second());
    findings.add(&known.kernel, kernels.per_second());
    findings.add(&known.cpu, each * 1e6);
    findings.add(&known.core, 1.0 / each);
    Ok(())
}

fn ask_on(wire: &Wire, whom: Mac, addresses: &[IpAddr]) -> Result<Flood> {
    let mut chance = Chance::new(SEED);
    let (mut flood, mut under_way) = (Flood { answers: 0, lost: 0, took: Duration::ZERO }, 0);
    let start = wait::now();
    let mut heard = start;
    while start.elapsed() < LENGTH {
        while under_way < UNDER_WAY {
            let asker = Asker::stranger(chance.number().to_le_bytes()[0]);
            wire.send(&asker.question(Some(whom), chance.pick(addresses)))?;
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
    ensure!(flood.answers > 0 && flood.lost as f64 <= asked * LOST_MAX, "answers are missing: {flood:?}");
    Ok(flood)
}
