//! Record of the frames on the switch during a step, in the order of arrival: claims of an address,
//! and replies for it.

use crate::segment::host_name;
use anyhow::{Context, Result};
use ferrolb_lab::Lab;
use ferrolb_lab::traffic::capture::{Capture, CapturedFrame, claimed_by};
use ferrolb_proto::api::{HELLO_SECRET, NAMESPACE};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame, HelloKeyRing};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// One recorded frame about an address, or from a speaker.
#[derive(Clone, Debug)]
pub(crate) struct RecordedFrame {
    /// Position in the order of all frames.
    pub(crate) position: usize,
    pub(crate) at: Instant,
    /// The node's name, or the MAC address if no node has it.
    pub(crate) host: String,
}

/// All recorded frames.
pub(crate) struct FrameLog {
    frames: Vec<CapturedFrame>,
    keys: HelloKeyRing,
}

impl FrameLog {
    /// Runs `work` and records the frames meanwhile. The keys come from [`keys`], read while the
    /// API server is reachable.
    pub(crate) fn of<T>(
        lab: &Lab,
        keys: &HelloKeyRing,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Self)> {
        let capture = Capture::start(lab)?;
        let done = work();
        let frames = capture.stop()?;
        Ok((done?, Self { frames, keys: keys.clone() }))
    }

    /// Returns each CLAIM of the address.
    pub(crate) fn claims(&self, address: impl Into<IpAddr>) -> Vec<RecordedFrame> {
        let address = address.into();
        let claims = |frame: &Frame| matches!(&frame.body, Body::Claim { addresses, .. } if addresses.contains(&address));
        self.hello_frames().filter(|(_, frame)| claims(frame)).map(|(said, _)| said).collect()
    }

    /// Returns the first frame of each epoch of a node's speaker, and the first CLAIM in that
    /// epoch, if any.
    pub(crate) fn epochs(&self, node: &str) -> Vec<(RecordedFrame, Option<RecordedFrame>)> {
        let mut lives: Vec<(u64, RecordedFrame, Option<RecordedFrame>)> = Vec::new();
        for (said, frame) in self.hello_frames().filter(|(said, _)| said.host == node) {
            let is_claim = matches!(frame.body, Body::Claim { .. });
            match lives.iter_mut().find(|(epoch, ..)| *epoch == frame.epoch) {
                Some((_, _, claim)) => *claim = claim.take().or_else(|| is_claim.then_some(said)),
                None => lives.push((frame.epoch, said.clone(), is_claim.then_some(said))),
            }
        }
        lives.into_iter().map(|(_, first, claim)| (first, claim)).collect()
    }

    /// Returns each frame that announces the address: replies and gratuitous frames.
    pub(crate) fn announcements_and_replies(
        &self,
        lab: &Lab,
        address: impl Into<IpAddr>,
    ) -> Vec<RecordedFrame> {
        let (address, frames) = (address.into(), self.frames.iter().enumerate());
        let holders = frames
            .filter_map(|(place, seen)| Some((place, seen.at, claimed_by(&seen.bytes, address)?)));
        holders
            .map(|(place, at, mac)| RecordedFrame {
                position: place,
                at,
                host: host_name(lab, mac),
            })
            .collect()
    }

    /// Returns the times of this host's gratuitous ARP frames for the address.
    pub(crate) fn gratuitous_frames(&self, address: Ipv4Addr, host: Mac) -> Vec<Instant> {
        let unasked = |seen: &&CapturedFrame| {
            seen.arp().is_some_and(|arp| {
                (arp.sender, arp.target, arp.sender_mac) == (address, address, host)
            })
        };
        self.frames.iter().filter(unasked).map(|seen| seen.at).collect()
    }

    /// Returns every frame of the hello protocol.
    fn hello_frames(&self) -> impl Iterator<Item = (RecordedFrame, Frame)> + '_ {
        self.frames.iter().enumerate().filter_map(|(place, seen)| {
            let frame = seen.hello(&self.keys)?;
            Some((
                RecordedFrame { position: place, at: seen.at, host: frame.node.to_string() },
                frame,
            ))
        })
    }
}

/// Returns the keys that the speakers of a lab sign with.
pub(crate) fn keys(lab: &Lab) -> Result<HelloKeyRing> {
    let secret = lab.api(async |client| {
        Api::<Secret>::namespaced(client, NAMESPACE)
            .get(HELLO_SECRET)
            .await
            .context("the speakers' keys")
    })?;
    let data = secret.data.unwrap_or_default();
    Ok(HelloKeyRing::from_secret(
        data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())),
    ))
}
