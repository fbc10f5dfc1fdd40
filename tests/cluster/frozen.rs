//! The owner's speaker is frozen, long enough for another to claim its address, and wakes with requests waiting: it answers none of them.

use crate::client_wire::{self, Wire};
use crate::evidence::{self, Evidence, Said};
use crate::metrics::metric;
use crate::node_death::serve_elsewhere;
use crate::stage::{measured, play, step};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::{Lab, Options, Signal, wait};
use std::net::IpAddr;
use std::time::Duration;

/// How long the speaker is asked before it is frozen, how long it is frozen, and how long it is watched after.
const BEFORE: Duration = Duration::from_secs(1);
const FROZEN: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(3);
/// So many answers must have been heard of an owner before they say anything: it is asked some 50 times a second.
const ANSWERS_MIN: usize = 10;

#[test]
fn an_owner_that_was_frozen_answers_nothing_once_another_has_claimed() {
    play(&Options::named("frozen"), |lab| {
        lab.start_ferrolb()?;
        let keys = evidence::keys(lab)?;
        let (address, owner) = step("a Service is served", || serve_elsewhere(lab))?;
        let fences = metric(lab, &owner, "ferrolb_speaker_fences_total")?;
        let ((), evidence) = step("its owner's speaker is frozen for 5 s, asked for the address all the time", || {
            Evidence::of(lab, &keys, || freeze(lab, address, &owner))
        })?;
        let (claims, answers) = (evidence.claims(address), evidence.answers(lab, address));
        let claim = step("another claims the address", || {
            let claim = claims.first().context("nobody does")?;
            ensure!(claims.iter().all(|claim| claim.who != owner), "the frozen one claims it, too: {claims:?}");
            Ok(claim)
        })?;
        step("no answer of the old owner follows that claim on the wire", || {
            let of = |who: &str| answers.iter().filter(|said| said.who == who).collect::<Vec<_>>();
            let (old, new) = (of(&owner), of(&claim.who));
            ensure!(old.len() >= ANSWERS_MIN && new.len() >= ANSWERS_MIN, "too few answers to tell: {answers:?}");
            let late: Vec<&&Said> = old.iter().filter(|said| said.place > claim.place).collect();
            ensure!(late.is_empty(), "the claim is {claim:?}, and then there are {late:?}");
            let (last, first) = (old.last().context("an answer")?, new.first().context("an answer")?);
            measured(&format!("owner frozen: nobody answered for {:?}", first.at.saturating_duration_since(last.at)));
            Ok(())
        })?;
        step("the old owner knows that it was frozen", || {
            let now = metric(lab, &owner, "ferrolb_speaker_fences_total")?;
            ensure!(now == fences + 1.0, "it counts {} fences", now - fences);
            let answering = client_wire::owner(lab, address)?;
            ensure!(answering == claim.who, "{answering} answers, and {} has claimed", claim.who);
            Ok(())
        })
    });
}

fn freeze(lab: &Lab, address: IpAddr, owner: &str) -> Result<()> {
    let (mut wire, speaker) = (Wire::open(lab)?, format!("speaker-{owner}"));
    wait::during(BEFORE, || wire.ask(address))?;
    lab.signal(&speaker, Signal::STOP)?;
    let asked = wait::during(FROZEN, || wire.ask(address));
    lab.signal(&speaker, Signal::CONT)?;
    asked?;
    wait::during(AFTER, || wire.ask(address))
}
