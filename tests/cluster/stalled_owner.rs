//! Stall of the owner's speaker: it stops long enough for another node to claim its address, and
//! resumes with requests waiting. It must reply to none of them.

use crate::frame_log::{self, FrameLog, RecordedFrame};
use crate::metrics::metric;
use crate::node_failure::serve_elsewhere;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, Options, Signal, wait};
use std::net::IpAddr;
use std::time::Duration;

/// Time of requests before the speaker is stopped, while it is stopped, and after it resumes.
const BEFORE: Duration = Duration::from_secs(1);
const STALLED: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(3);
/// Minimum number of replies from each owner for a valid result. About 50 requests are sent per
/// second.
const REPLIES_MIN: usize = 10;

#[test]
fn a_stalled_owner_sends_no_reply_after_another_node_has_claimed() {
    run_scenario(&Options::named("frozen"), |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        let (address, owner) = step("a Service is served", || serve_elsewhere(lab))?;
        let fences = metric(lab, &owner, "ferrolb_speaker_fences_total")?;
        let ((), evidence) = step(
            "its owner's speaker is frozen for 5 s, asked for the address all the time",
            || FrameLog::of(lab, &keys, || freeze(lab, address, &owner)),
        )?;
        let (claims, answers) =
            (evidence.claims(address), evidence.announcements_and_replies(lab, address));
        let claim = step("another claims the address", || {
            let claim = claims.first().context("no node claims the address")?;
            ensure!(
                claims.iter().all(|claim| claim.host != owner),
                "the stalled node claims the address too: {claims:?}"
            );
            Ok(claim)
        })?;
        step("no answer of the old owner follows that claim on the wire", || {
            let of = |who: &str| answers.iter().filter(|said| said.host == who).collect::<Vec<_>>();
            let (old, new) = (of(&owner), of(&claim.host));
            ensure!(
                old.len() >= REPLIES_MIN && new.len() >= REPLIES_MIN,
                "too few replies for a result: {answers:?}"
            );
            let late: Vec<&&RecordedFrame> =
                old.iter().filter(|said| said.position > claim.position).collect();
            ensure!(late.is_empty(), "replies after the claim {claim:?}: {late:?}");
            let (last, first) = (old.last().context("a reply")?, new.first().context("a reply")?);
            print_measured(&format!(
                "owner frozen: nobody answered for {:?}",
                first.at.saturating_duration_since(last.at)
            ));
            Ok(())
        })?;
        step("the old owner knows that it was frozen", || {
            let now = metric(lab, &owner, "ferrolb_speaker_fences_total")?;
            ensure!(now == fences + 1.0, "the metric counts {} fences", now - fences);
            let answering = segment::owner(lab, address)?;
            ensure!(
                answering == claim.host,
                "{answering} replies, but {} has claimed the address",
                claim.host
            );
            Ok(())
        })
    });
}

fn freeze(lab: &Lab, address: IpAddr, owner: &str) -> Result<()> {
    let (mut wire, speaker) = (SegmentSocket::open(lab)?, format!("speaker-{owner}"));
    wait::during(BEFORE, || wire.request(address))?;
    lab.signal(&speaker, Signal::STOP)?;
    let asked = wait::during(STALLED, || wire.request(address));
    lab.signal(&speaker, Signal::CONT)?;
    asked?;
    wait::during(AFTER, || wire.request(address))
}
