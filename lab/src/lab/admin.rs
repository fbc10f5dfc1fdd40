//! Metrics and readiness of FerroLB's components, read over HTTP like by a monitoring system.

use super::Lab;
use crate::cluster::ferrolb::ADMIN_PORT;
use crate::topology::CLIENT;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Returns the address of the admin listener of the component on a host.
///
/// # Errors
/// If there is no such host.
pub fn admin(lab: &Lab, host: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(lab.address(host)?, ADMIN_PORT))
}

/// Returns the value of a metric of the component on `host`, summed over all its series.
///
/// # Errors
/// If the component does not reply, or has no such metric.
pub fn metric(lab: &Lab, host: &str, name: &str) -> Result<f64> {
    metric_at(lab, admin(lab, host)?, name)
}

/// Returns the value of a metric like [`metric`], from the admin listener `admin`.
///
/// # Errors
/// If the component does not reply, or has no such metric.
pub fn metric_at(lab: &Lab, admin: SocketAddr, name: &str) -> Result<f64> {
    let page = page(lab, admin)?;
    let series = page.lines().filter_map(|line| sample(line, name)).collect::<Vec<_>>();
    ensure!(!series.is_empty(), "no metric {name} at {admin}; there are:\n{page}");
    Ok(series.iter().sum())
}

/// Returns the sums of a metric of the component on `host` by the value of a label; none if nothing
/// was counted yet.
///
/// # Errors
/// If the component does not reply.
pub fn metric_by(lab: &Lab, host: &str, name: &str, label: &str) -> Result<BTreeMap<String, f64>> {
    let start = format!("{label}=\"");
    let mut sums = BTreeMap::new();
    for line in page(lab, admin(lab, host)?)?.lines() {
        let value = line.split_once(&start).and_then(|(_, rest)| rest.split('"').next());
        if let Some((sample, value)) = sample(line, name).zip(value) {
            *sums.entry(value.to_owned()).or_default() += sample;
        }
    }
    Ok(sums)
}

/// Returns the buckets of a histogram without labels of the component on `host`: the upper bound of
/// each, and the number of samples up to it.
///
/// # Errors
/// If the component does not reply, or has no such histogram.
pub fn buckets(lab: &Lab, host: &str, name: &str) -> Result<Vec<(f64, f64)>> {
    let page = page(lab, admin(lab, host)?)?;
    let start = format!("{name}_bucket{{le=\"");
    let bucket = |line: &str| {
        let (end, rest) = line.strip_prefix(&start)?.split_once('"')?;
        let end = if end == "+Inf" { f64::INFINITY } else { end.parse().ok()? };
        Some((end, rest.rsplit(' ').next()?.parse().ok()?))
    };
    let buckets: Vec<_> = page.lines().filter_map(bucket).collect();
    ensure!(!buckets.is_empty(), "no histogram {name} on {host}; there are:\n{page}");
    Ok(buckets)
}

/// Returns the metrics at an admin listener as OpenMetrics text.
fn page(lab: &Lab, admin: SocketAddr) -> Result<String> {
    let page = lab.http_get(CLIENT, admin, "/metrics")?;
    ensure!(page.status == 200, "/metrics returned {}", page.status);
    Ok(page.body)
}

/// Returns the value of a line of OpenMetrics text if it belongs to this metric. The metric's name
/// ends at its labels or its value.
fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
    rest.rsplit(' ').next()?.parse().ok()
}

/// Returns status and body of `/readyz` of the component on `host`.
///
/// # Errors
/// If the component does not reply.
pub fn readyz(lab: &Lab, host: &str) -> Result<(u16, String)> {
    let page = lab
        .http_get(CLIENT, admin(lab, host)?, "/readyz")
        .with_context(|| format!("/readyz of {host}"))?;
    Ok((page.status, page.body.trim().to_owned()))
}
