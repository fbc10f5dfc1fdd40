//! Snapshot of the state that the admin listener returns at `/state`, for debugging. The main loop
//! creates it on request.

use std::net::IpAddr;

use ferrolb_proto::facts::Key;
use serde::Serialize;

use super::State;
use super::service::{self, ServiceEntry};
use crate::desired::{Desired, MetricValues};
use crate::plan::plan;

/// Content of the HTTP response to `/state`.
#[derive(Debug, Serialize)]
pub struct Dump {
    leading: bool,
    active_leader: bool,
    waiting_for_lists: Vec<&'static str>,
    metrics: MetricValues,
    services: Vec<DumpedService>,
    addresses: Vec<(IpAddr, Vec<String>)>,
    desired: Desired,
}

#[derive(Debug, Serialize)]
struct DumpedService {
    service: String,
    assigned: Vec<IpAddr>,
    given: Vec<IpAddr>,
    pool: Option<Box<str>>,
    reason: Option<&'static str>,
}

impl DumpedService {
    fn of(entry: &ServiceEntry) -> Self {
        let assignment = entry.assignment.as_ref();
        Self {
            service: entry.service.key.to_string(),
            assigned: entry.service.assigned.iter().map(|assigned| assigned.address).collect(),
            given: assignment.map(|assignment| assignment.addresses.clone()).unwrap_or_default(),
            pool: assignment.and_then(|assignment| assignment.pool.clone()),
            reason: service::reason(entry),
        }
    }
}

impl State {
    /// Returns the snapshot for `/state`. The list of Services contains those of type LoadBalancer,
    /// and those to which FerroLB has assigned addresses.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let is_listed =
            |entry: &&ServiceEntry| entry.assignment.is_some() || entry.service.load_balancer;
        Dump {
            leading: self.leadership.has_lease(),
            active_leader: self.leadership.is_active,
            waiting_for_lists: self.never_listed(),
            metrics: self.metric_values(),
            services: self
                .services
                .iter()
                .map(|(_, entry)| entry)
                .filter(is_listed)
                .map(DumpedService::of)
                .collect(),
            addresses: self
                .allocator
                .assignments()
                .map(|(address, keys)| (address, keys.into_iter().map(Key::to_string).collect()))
                .collect(),
            desired: plan(self),
        }
    }
}
