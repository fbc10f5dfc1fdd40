//! The part of the second path that the thread of an interface executes: it passes received
//! datagrams to the claim machine, sends datagrams, and observes the proofs for path reports.

use std::net::IpAddr;

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Frame;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::claim::Input;

use super::LinkThread;
use crate::link::second_path::LINK_QUEUE_MAX;
use crate::link::{LinkError, SecondPath};

impl LinkThread<'_> {
    /// Passes the queued datagrams to the claim machine, all of them: the eventfd wakes the thread
    /// only for new ones. During a flood of hellos, the datagrams wait as the hellos do.
    pub(super) fn read_datagrams(&mut self) -> Result<(), LinkError> {
        let start = Clock::now();
        if self.hello_budget.deadline(start).is_some() {
            return Ok(());
        }
        let mut count = 0;
        while count < LINK_QUEUE_MAX
            && let Some(frame) = self.datagrams.as_ref().and_then(|queue| queue.try_recv().ok())
        {
            self.handle_input(Input::Datagram(frame), Clock::now())?;
            count += 1;
        }
        if count > 0 {
            self.hello_budget.charge(start, Clock::now());
        }
        Ok(())
    }

    pub(super) fn send_datagram(&self, to: &str, key: u32, frame: &Frame) {
        if let (Some(second_path), Some(key)) = (self.second_path(), self.keys.find(key)) {
            second_path.send(to, &frame.encode_datagram(key));
        }
    }

    /// Returns the address at which a liveness probe of a peer without claims is directed.
    pub(super) fn address_of(&self, node: &str) -> Option<IpAddr> {
        self.second_path()?.address_of(node)
    }

    /// Handles a request for `target` from the host with this MAC. If a peer waits for the proof,
    /// the claim machine is informed that this node has replied. The kernel replies for the
    /// InternalIPs of the node.
    pub(super) fn on_request(&mut self, mac: Mac, target: IpAddr) -> Result<(), LinkError> {
        let now = Clock::now();
        if !self.claims.members().peers().awaits_request_from(mac, now) {
            return Ok(());
        }
        let is_owned = match target {
            IpAddr::V4(target) => self.owned.contains(&target),
            IpAddr::V6(target) => self.owned_v6.contains(&target),
        };
        let is_own = || self.second_path().is_some_and(|second_path| second_path.is_own(target));
        if (is_owned && now < self.claims.members().own().answer_lease_end()) || is_own() {
            self.handle_input(Input::RequestAnswered(mac), now)?;
        }
        Ok(())
    }

    fn second_path(&self) -> Option<&SecondPath> {
        self.setup.second_path.as_deref()
    }
}
