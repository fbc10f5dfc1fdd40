//! Log of the addresses assigned to every Service of a batch, from watch events, and a check that
//! each Service gets exactly one address and keeps it.

use crate::services;
use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Each list of addresses that a Service ever had, in order, by Service. A repeated list counts
/// once.
#[derive(Debug, Default)]
pub(crate) struct AssignmentLog(BTreeMap<String, Vec<Vec<IpAddr>>>);

impl AssignmentLog {
    /// Records the current addresses of a Service.
    pub(crate) fn record(&mut self, service: &Service) {
        let shown = self.0.entry(service.name_any()).or_default();
        let now = services::addresses(service);
        if shown.last().is_none_or(|last| *last != now) {
            shown.push(now);
        }
    }

    /// Returns the number of Services that have an address.
    pub(crate) fn assigned(&self) -> usize {
        self.0.values().filter(|shown| shown.last().is_some_and(|last| !last.is_empty())).count()
    }

    /// Checks that there are `count` Services, that each got one address, once, and kept it, and
    /// that no two have the same.
    pub(crate) fn check(&self, count: usize) -> Result<()> {
        ensure!(self.0.len() == count, "there are {} Services, not {count}", self.0.len());
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, shown) in &self.0 {
            let ([address], true) =
                (given(shown), shown.last().is_some_and(|last| !last.is_empty()))
            else {
                bail!(
                    "{name} does not have one address that it kept; it showed, one after the other: {shown:?}"
                );
            };
            if let Some(other) = owners.insert(*address, name) {
                bail!("{other} and {name} both have {address}");
            }
        }
        Ok(())
    }
}

/// Returns the only list of addresses after an optional empty one. Empty if there was any other
/// list.
fn given(shown: &[Vec<IpAddr>]) -> &[IpAddr] {
    match shown {
        [one] => one,
        [nothing, one] if nothing.is_empty() => one,
        _ => &[],
    }
}

#[test]
fn the_log_accepts_exactly_one_permanent_address_per_service() {
    let check = |history: &[(&str, &[&str])]| {
        let mut ledger = AssignmentLog::default();
        for (name, addresses) in history {
            let ingress: Vec<_> =
                addresses.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
            let object = serde_json::json!({"metadata": {"name": name}, "status": {"loadBalancer": {"ingress": ingress}}});
            ledger.record(&serde_json::from_value(object).unwrap());
        }
        ledger.check(2).is_ok()
    };
    let (none, first, second): (&[&str], &[&str], &[&str]) =
        (&[], &["172.31.0.1"], &["172.31.0.2"]);
    assert!(check(&[("a", none), ("b", first), ("a", none), ("a", second), ("b", first)]));
    for (what, history) in [
        ("one never came", vec![("a", first)]),
        ("one has nothing", vec![("a", none), ("b", first)]),
        ("two have the same", vec![("a", first), ("b", first)]),
        ("one changed", vec![("b", first), ("a", none), ("a", second), ("a", first)]),
        ("one lost it", vec![("b", first), ("a", second), ("a", none)]),
        (
            "one lost it and got it back",
            vec![("b", first), ("a", second), ("a", none), ("a", second)],
        ),
        ("one has two", vec![("b", first), ("a", &["172.31.0.2", "172.31.0.3"])]),
    ] {
        assert!(!check(&history), "{what}");
    }
}
