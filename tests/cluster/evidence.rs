//! What was said on the switch while something happened, in the order in which it was said: who claimed an address, and who answered for it.

use crate::client_wire::named;
use anyhow::{Context, Result};
use ferrolb_proto::api::{HELLO_SECRET, NAMESPACE};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame, KeyRing};
use ferrolb_tests::Lab;
use ferrolb_tests::traffic::capture::{Capture, Seen, holder};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// One thing that was said of an address, or by a speaker.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Its place in the order of all frames.
    pub(crate) place: usize,
    pub(crate) at: Instant,
    /// The node, or the hardware address where it is none.
    pub(crate) who: String,
}

/// All that was said.
pub(crate) struct Evidence {
    frames: Vec<Seen>,
    keys: KeyRing,
}

impl Evidence {
    /// Does `work` and records what is said meanwhile. The keys are those of [`keys`], read while the API server is there.
    pub(crate) fn of<T>(lab: &Lab, keys: &KeyRing, work: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let capture = Capture::start(lab)?;
        let done = work();
        let frames = capture.stop()?;
        Ok((done?, Self { frames, keys: keys.clone() }))
    }

    /// Each CLAIM of the address.
    pub(crate) fn claims(&self, address: impl Into<IpAddr>) -> Vec<Said> {
        let address = address.into();
        let claims =
            |frame: &Frame| matches!(&frame.body, Body::Claim { addresses, .. } if addresses.contains(&address));
        self.words().filter(|(_, frame)| claims(frame)).map(|(said, _)| said).collect()
    }

    /// The first frame of each epoch of a node's speaker, and the first CLAIM in it, if there was one.
    pub(crate) fn lives(&self, node: &str) -> Vec<(Said, Option<Said>)> {
        let mut lives: Vec<(u64, Said, Option<Said>)> = Vec::new();
        for (said, frame) in self.words().filter(|(said, _)| said.who == node) {
            let is_claim = matches!(frame.body, Body::Claim { .. });
            match lives.iter_mut().find(|(epoch, ..)| *epoch == frame.epoch) {
                Some((_, _, claim)) => *claim = claim.take().or_else(|| is_claim.then_some(said)),
                None => lives.push((frame.epoch, said.clone(), is_claim.then_some(said))),
            }
        }
        lives.into_iter().map(|(_, first, claim)| (first, claim)).collect()
    }

    /// Each frame in which somebody says that it has the address: answers, and what nobody asked for.
    pub(crate) fn answers(&self, lab: &Lab, address: impl Into<IpAddr>) -> Vec<Said> {
        let (address, frames) = (address.into(), self.frames.iter().enumerate());
        let holders = frames.filter_map(|(place, seen)| Some((place, seen.at, holder(&seen.bytes, address)?)));
        holders.map(|(place, at, mac)| Said { place, at, who: named(lab, mac) }).collect()
    }

    /// Each frame in which this host says unasked that it has the address.
    pub(crate) fn announcements(&self, address: Ipv4Addr, host: Mac) -> Vec<Instant> {
        let unasked = |seen: &&Seen| {
            seen.arp().is_some_and(|arp| (arp.sender, arp.target, arp.sender_mac) == (address, address, host))
        };
        self.frames.iter().filter(unasked).map(|seen| seen.at).collect()
    }

    /// Every word of a speaker.
    fn words(&self) -> impl Iterator<Item = (Said, Frame)> + '_ {
        self.frames.iter().enumerate().filter_map(|(place, seen)| {
            let frame = seen.hello(&self.keys)?;
            Some((Said { place, at: seen.at, who: frame.node.to_string() }, frame))
        })
    }
}

/// The keys that the speakers of a lab sign with.
pub(crate) fn keys(lab: &Lab) -> Result<KeyRing> {
    let secret = lab.api(async |client| {
        Api::<Secret>::namespaced(client, NAMESPACE).get(HELLO_SECRET).await.context("the speakers' keys")
    })?;
    let data = secret.data.unwrap_or_default();
    Ok(KeyRing::from_secret(data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice()))))
}
