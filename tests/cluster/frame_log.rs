//! Record of the frames on the switch during a step, in the order of arrival: claims of an address,
//! and replies for it.

use crate::segment::host_name;
use anyhow::{Context, Result};
use ferrolb_lab::Lab;
use ferrolb_lab::traffic::capture::{Capture, CapturedFrame, claimed_by};
use ferrolb_proto::api::{HELLO_SECRET, NAMESPACE};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Claim, Frame, HelloKeyRing};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// A recorded frame: a frame of the ownership protocol, or a frame that announces an address.
#[derive(Clone, Debug)]
pub(crate) struct RecordedFrame {
    /// Position of the frame in the order of all frames of the recording.
    pub(crate) position: usize,
    pub(crate) at: Instant,
    /// Name of the sending node, or its MAC address if it is no node.
    pub(crate) host: String,
}

/// All frames that were on the switch during a recording.
pub(crate) struct FrameLog {
    frames: Vec<CapturedFrame>,
    keys: HelloKeyRing,
}

impl FrameLog {
    /// Runs `work`, and records all frames on the switch meanwhile. `keys` comes from the function
    /// [`keys`], which needs the API server.
    pub(crate) fn of<T>(
        lab: &Lab,
        keys: &HelloKeyRing,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Self)> {
        let capture = Capture::start(lab)?;
        let result = work();
        let frames = capture.stop()?;
        Ok((result?, Self { frames, keys: keys.clone() }))
    }

    /// Returns each claim of the address.
    pub(crate) fn claims(&self, address: impl Into<IpAddr>) -> Vec<RecordedFrame> {
        let address = address.into();
        let has_address = |claims: &[Claim]| claims.iter().any(|claim| claim.address == address);
        let is_claim = |frame: &Frame| matches!(&frame.body, Body::Claim(all) if has_address(all));
        self.hello_frames().filter(|(_, frame)| is_claim(frame)).map(|(record, _)| record).collect()
    }

    /// Returns the first frame of each epoch of a node's speaker, and the first claim in that
    /// epoch, if there is one.
    pub(crate) fn epochs(&self, node: &str) -> Vec<(RecordedFrame, Option<RecordedFrame>)> {
        let mut epochs: Vec<(u64, RecordedFrame, Option<RecordedFrame>)> = Vec::new();
        for (record, frame) in self.hello_frames().filter(|(record, _)| record.host == node) {
            let is_claim = matches!(frame.body, Body::Claim(_));
            match epochs.iter_mut().find(|(epoch, ..)| *epoch == frame.epoch) {
                Some((_, _, claim)) => *claim = claim.take().or_else(|| is_claim.then_some(record)),
                None => epochs.push((frame.epoch, record.clone(), is_claim.then_some(record))),
            }
        }
        epochs.into_iter().map(|(_, first, claim)| (first, claim)).collect()
    }

    /// Returns each frame that announces the address: a reply or a gratuitous frame.
    pub(crate) fn announcements_and_replies(
        &self,
        lab: &Lab,
        address: impl Into<IpAddr>,
    ) -> Vec<RecordedFrame> {
        let (address, frames) = (address.into(), self.frames.iter().enumerate());
        let announcements = frames.filter_map(|(position, captured)| {
            Some((position, captured.at, claimed_by(&captured.bytes, address)?))
        });
        announcements
            .map(|(position, at, mac)| RecordedFrame { position, at, host: host_name(lab, mac) })
            .collect()
    }

    /// Returns the times at which `host` sent gratuitous ARP frames for the address.
    pub(crate) fn gratuitous_frames(&self, address: Ipv4Addr, host: Mac) -> Vec<Instant> {
        let is_gratuitous = |captured: &&CapturedFrame| {
            captured.arp().is_some_and(|arp| {
                (arp.sender, arp.target, arp.sender_mac) == (address, address, host)
            })
        };
        self.frames.iter().filter(is_gratuitous).map(|captured| captured.at).collect()
    }

    /// Returns every frame of the ownership protocol.
    fn hello_frames(&self) -> impl Iterator<Item = (RecordedFrame, Frame)> + '_ {
        self.frames.iter().enumerate().filter_map(|(position, captured)| {
            let frame = captured.hello(&self.keys)?;
            Some((RecordedFrame { position, at: captured.at, host: frame.node.to_string() }, frame))
        })
    }
}

/// Returns the keys with which the speakers of a lab sign their frames.
pub(crate) fn keys(lab: &Lab) -> Result<HelloKeyRing> {
    let secret = lab.api(async |client| {
        Api::<Secret>::namespaced(client, NAMESPACE)
            .get(HELLO_SECRET)
            .await
            .context("cannot read the Secret with the hello keys")
    })?;
    let data = secret.data.unwrap_or_default();
    Ok(HelloKeyRing::from_secret(
        data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())),
    ))
}
