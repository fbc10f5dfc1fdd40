//! The state as `/state` shows it: for whoever wants to know why. Made on request, by the main loop.

use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;
use serde::Serialize;

use super::State;
use super::service::{self, Entry};
use crate::desired::{Desired, Figures};
use crate::plan::plan;

/// What `/state` answers.
#[derive(Debug, Serialize)]
pub struct Dump {
    leading: bool,
    in_office: bool,
    waiting_for_lists: Vec<&'static str>,
    figures: Figures,
    services: Vec<ServiceRow>,
    tenants: Vec<(IpAddr, Vec<String>)>,
    desired: Desired,
}

#[derive(Debug, Serialize)]
struct ServiceRow {
    service: String,
    assigned: Vec<IpAddr>,
    given: Vec<IpAddr>,
    pool: Option<Box<str>>,
    reason: Option<&'static str>,
}

impl ServiceRow {
    fn of(entry: &Entry) -> Self {
        let claim = entry.claim.as_ref();
        Self {
            service: entry.service.key.to_string(),
            assigned: entry.service.assigned.iter().map(|assigned| assigned.address).collect(),
            given: claim.map(|claim| claim.addresses.clone()).unwrap_or_default(),
            pool: claim.and_then(|claim| claim.pool.clone()),
            reason: claim.and_then(service::reason),
        }
    }
}

impl State {
    /// The state as `/state` shows it. Services that are none of ours and hold nothing are left out.
    #[must_use]
    pub fn dump(&self, now: Instant) -> Dump {
        let shown = |entry: &&Entry| entry.claim.is_some() || entry.service.load_balancer;
        Dump {
            leading: self.leading,
            in_office: self.in_office,
            waiting_for_lists: self.never_listed(),
            figures: self.figures(),
            services: self.services.iter().map(|(_, entry)| entry).filter(shown).map(ServiceRow::of).collect(),
            tenants: self
                .allocator
                .tenants()
                .map(|(address, keys)| (address, keys.into_iter().map(Key::to_string).collect()))
                .collect(),
            desired: plan(self, now),
        }
    }
}
