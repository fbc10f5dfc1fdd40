//! What FerroLB's programs count and say of themselves, read as a monitoring system reads it.

use super::Lab;
use crate::cluster::ferrolb::ADMIN_PORT;
use crate::topology::CLIENT;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;

/// The admin endpoint of the program on a host.
///
/// # Errors
/// When there is no such host.
pub fn admin(lab: &Lab, host: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(lab.address(host)?, ADMIN_PORT))
}

/// The value of a metric of the program on `host`, all its series added up.
///
/// # Errors
/// When the program does not answer, or has no such metric.
pub fn metric(lab: &Lab, host: &str, name: &str) -> Result<f64> {
    metric_at(lab, admin(lab, host)?, name)
}

/// [`metric`] of the program with this admin endpoint.
///
/// # Errors
/// When the program does not answer, or has no such metric.
pub fn metric_at(lab: &Lab, admin: SocketAddr, name: &str) -> Result<f64> {
    let page = lab.http_get(CLIENT, admin, "/metrics")?;
    ensure!(page.status == 200, "/metrics says {}", page.status);
    let series = page.body.lines().filter_map(|line| sample(line, name)).collect::<Vec<_>>();
    ensure!(!series.is_empty(), "no metric {name} at {admin}; there are:\n{}", page.body);
    Ok(series.iter().sum())
}

/// The buckets of a histogram without labels of the program on `host`: the upper end of each, and how many samples are below it so far.
///
/// # Errors
/// When the program does not answer, or has no such histogram.
pub fn buckets(lab: &Lab, host: &str, name: &str) -> Result<Vec<(f64, f64)>> {
    let page = lab.http_get(CLIENT, admin(lab, host)?, "/metrics")?;
    let start = format!("{name}_bucket{{le=\"");
    let bucket = |line: &str| {
        let (end, rest) = line.strip_prefix(&start)?.split_once('"')?;
        let end = if end == "+Inf" { f64::INFINITY } else { end.parse().ok()? };
        Some((end, rest.rsplit(' ').next()?.parse().ok()?))
    };
    let buckets: Vec<_> = page.body.lines().filter_map(bucket).collect();
    ensure!(!buckets.is_empty(), "no histogram {name} on {host}; there are:\n{}", page.body);
    Ok(buckets)
}

/// The value of a line of OpenMetrics text, if it is of this metric: the name ends where its labels or its value begin.
fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
    rest.rsplit(' ').next()?.parse().ok()
}

/// What `/readyz` of the program on `host` answers: status and words.
///
/// # Errors
/// When the program does not answer.
pub fn readyz(lab: &Lab, host: &str) -> Result<(u16, String)> {
    let page = lab.http_get(CLIENT, admin(lab, host)?, "/readyz").with_context(|| format!("/readyz of {host}"))?;
    Ok((page.status, page.body.trim().to_owned()))
}
