//! Stall of the owner's speaker: the speaker is stopped (SIGSTOP) until another node has claimed
//! its address. When the speaker resumes, it must not reply to requests that are still in its
//! receive queue.

use crate::frame_log::{self, FrameLog, RecordedFrame};
use crate::metrics::metric;
use crate::node_failure::serve_from_other_node;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, Options, Signal, wait};
use std::net::IpAddr;
use std::time::Duration;

/// Lengths of the three periods in which the client sends requests for the address: before the
/// stall of the owner's speaker, during the stall, and after it.
const BEFORE_STALL: Duration = Duration::from_secs(1);
const STALL: Duration = Duration::from_secs(5);
const AFTER_STALL: Duration = Duration::from_secs(3);
/// Minimum number of replies from each owner for a valid result: the client sends about 50 requests
/// per second.
const REPLIES_MIN: usize = 10;

#[test]
fn a_stalled_owner_does_not_reply_after_another_claim() {
    run_scenario(&Options::named("stalledowner"), |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        let (address, owner) = step("a Service is served", || serve_from_other_node(lab))?;
        let fences = metric(lab, &owner, "ferrolb_speaker_fences_total")?;
        let ((), evidence) =
            step("the owner's speaker is stopped for 5 s while the client sends requests", || {
                FrameLog::of(lab, &keys, || stall_speaker(lab, address, &owner))
            })?;
        let (claims, replies) =
            (evidence.claims(address), evidence.announcements_and_replies(lab, address));
        let claim = step("another node claims the address", || {
            let claim = claims.first().context("no node claims the address")?;
            ensure!(
                claims.iter().all(|claim| claim.host != owner),
                "the stalled node claims the address too: {claims:?}"
            );
            Ok(claim)
        })?;
        step("the old owner sends no reply after that claim", || {
            let replies_of =
                |host: &str| replies.iter().filter(|reply| reply.host == host).collect::<Vec<_>>();
            let (old, new) = (replies_of(&owner), replies_of(&claim.host));
            ensure!(
                old.len() >= REPLIES_MIN && new.len() >= REPLIES_MIN,
                "too few replies for a result: {replies:?}"
            );
            let late: Vec<&&RecordedFrame> =
                old.iter().filter(|reply| reply.position > claim.position).collect();
            ensure!(late.is_empty(), "the old owner replied after the claim {claim:?}: {late:?}");
            let (last, first) = (
                old.last().context("the old owner sent no reply")?,
                new.first().context("the new owner sent no reply")?,
            );
            print_measured(&format!(
                "owner stalled: no node replied for {:?}",
                first.at.saturating_duration_since(last.at)
            ));
            Ok(())
        })?;
        step("the old owner has counted a fence, and the new owner stays", || {
            let now = metric(lab, &owner, "ferrolb_speaker_fences_total")?;
            ensure!(now == fences + 1.0, "the metric counts {} fences", now - fences);
            let current = segment::owner(lab, address)?;
            ensure!(
                current == claim.host,
                "{current} replies, but {} has claimed the address",
                claim.host
            );
            Ok(())
        })
    });
}

/// Stops and continues the owner's speaker while the client sends requests.
fn stall_speaker(lab: &Lab, address: IpAddr, owner: &str) -> Result<()> {
    let (mut socket, speaker) = (SegmentSocket::open(lab)?, format!("speaker-{owner}"));
    wait::during(BEFORE_STALL, || socket.request(address))?;
    lab.signal(&speaker, Signal::STOP)?;
    let result = wait::during(STALL, || socket.request(address));
    lab.signal(&speaker, Signal::CONT)?;
    result?;
    wait::during(AFTER_STALL, || socket.request(address))
}
