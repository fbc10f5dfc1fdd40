//! What was given to every Service of a batch, change by change, as the API server tells it; and whether that is one address each, for good.

use crate::services;
use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// For each Service each list of addresses that it ever showed, in order; a list that stays the same counts once.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<String, Vec<Vec<IpAddr>>>);

impl Ledger {
    /// Notes a Service as it is now.
    pub(crate) fn note(&mut self, service: &Service) {
        let shown = self.0.entry(service.name_any()).or_default();
        let now = services::addresses(service);
        if shown.last().is_none_or(|last| *last != now) {
            shown.push(now);
        }
    }

    /// How many Services have an address.
    pub(crate) fn given(&self) -> usize {
        self.0.values().filter(|shown| shown.last().is_some_and(|last| !last.is_empty())).count()
    }

    /// There are `count` Services. Each got one address, once, and kept it; no two have the same.
    pub(crate) fn check(&self, count: usize) -> Result<()> {
        ensure!(self.0.len() == count, "there are {} Services, not {count}", self.0.len());
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, shown) in &self.0 {
            let ([address], true) = (given(shown), shown.last().is_some_and(|last| !last.is_empty())) else {
                bail!("{name} does not have one address that it kept; it showed, one after the other: {shown:?}");
            };
            if let Some(other) = owners.insert(*address, name) {
                bail!("{other} and {name} both have {address}");
            }
        }
        Ok(())
    }
}

/// The one list of addresses that was shown after nothing; empty when there was another one before or after it.
fn given(shown: &[Vec<IpAddr>]) -> &[IpAddr] {
    match shown {
        [one] => one,
        [nothing, one] if nothing.is_empty() => one,
        _ => &[],
    }
}

#[test]
fn a_ledger_takes_only_one_address_each_for_good() {
    let check = |history: &[(&str, &[&str])]| {
        let mut ledger = Ledger::default();
        for (name, addresses) in history {
            let ingress: Vec<_> = addresses.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
            let object =
                serde_json::json!({"metadata": {"name": name}, "status": {"loadBalancer": {"ingress": ingress}}});
            ledger.note(&serde_json::from_value(object).unwrap());
        }
        ledger.check(2).is_ok()
    };
    let (none, first, second): (&[&str], &[&str], &[&str]) = (&[], &["172.31.0.1"], &["172.31.0.2"]);
    assert!(check(&[("a", none), ("b", first), ("a", none), ("a", second), ("b", first)]));
    for (what, history) in [
        ("one never came", vec![("a", first)]),
        ("one has nothing", vec![("a", none), ("b", first)]),
        ("two have the same", vec![("a", first), ("b", first)]),
        ("one changed", vec![("b", first), ("a", none), ("a", second), ("a", first)]),
        ("one lost it", vec![("b", first), ("a", second), ("a", none)]),
        ("one lost it and got it back", vec![("b", first), ("a", second), ("a", none), ("a", second)]),
        ("one has two", vec![("b", first), ("a", &["172.31.0.2", "172.31.0.3"])]),
    ] {
        assert!(!check(&history), "{what}");
    }
}
