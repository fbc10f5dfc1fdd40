//! Log of the addresses assigned to every Service of a batch, from watch events, and a check that
//! each Service gets exactly one address and keeps it.

use crate::services;
use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All lists of addresses that a Service has had, in order, by the name of the Service. Equal lists
/// in a row are recorded once.
#[derive(Debug, Default)]
pub(crate) struct AssignmentLog(BTreeMap<String, Vec<Vec<IpAddr>>>);

impl AssignmentLog {
    /// Records the current addresses of a Service.
    pub(crate) fn record(&mut self, service: &Service) {
        let history = self.0.entry(service.name_any()).or_default();
        let now = services::addresses(service);
        if history.last().is_none_or(|last| *last != now) {
            history.push(now);
        }
    }

    /// Returns the number of Services that have an address.
    pub(crate) fn assigned(&self) -> usize {
        self.0
            .values()
            .filter(|history| history.last().is_some_and(|last| !last.is_empty()))
            .count()
    }

    /// Checks that there are `count` Services, and that each got one address of its own and kept
    /// it.
    pub(crate) fn check(&self, count: usize) -> Result<()> {
        ensure!(self.0.len() == count, "there are {} Services, not {count}", self.0.len());
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, history) in &self.0 {
            let ([address], true) =
                (assigned_once(history), history.last().is_some_and(|last| !last.is_empty()))
            else {
                bail!(
                    "{name} did not get exactly one address and keep it; its addresses over time: {history:?}"
                );
            };
            if let Some(other) = owners.insert(*address, name) {
                bail!("{other} and {name} both have {address}");
            }
        }
        Ok(())
    }
}

/// Returns the only list of addresses in a history, which may begin with an empty list. Returns an
/// empty slice for any other history.
fn assigned_once(history: &[Vec<IpAddr>]) -> &[IpAddr] {
    match history {
        [one] => one,
        [unassigned, one] if unassigned.is_empty() => one,
        _ => &[],
    }
}

#[test]
fn the_log_accepts_exactly_one_permanent_address_per_service() {
    let check = |history: &[(&str, &[&str])]| {
        let mut log = AssignmentLog::default();
        for (name, addresses) in history {
            let ingress: Vec<_> =
                addresses.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
            let object = serde_json::json!({"metadata": {"name": name}, "status": {"loadBalancer": {"ingress": ingress}}});
            log.record(&serde_json::from_value(object).unwrap());
        }
        log.check(2).is_ok()
    };
    let (none, first, second): (&[&str], &[&str], &[&str]) =
        (&[], &["172.31.0.1"], &["172.31.0.2"]);
    assert!(check(&[("a", none), ("b", first), ("a", none), ("a", second), ("b", first)]));
    for (what, history) in [
        ("a Service is missing", vec![("a", first)]),
        ("a Service has no address", vec![("a", none), ("b", first)]),
        ("two Services have the same address", vec![("a", first), ("b", first)]),
        ("an address changed", vec![("b", first), ("a", none), ("a", second), ("a", first)]),
        ("a Service lost its address", vec![("b", first), ("a", second), ("a", none)]),
        (
            "a Service lost its address and got it again",
            vec![("b", first), ("a", second), ("a", none), ("a", second)],
        ),
        ("a Service has two addresses", vec![("b", first), ("a", &["172.31.0.2", "172.31.0.3"])]),
    ] {
        assert!(!check(&history), "{what}");
    }
}
