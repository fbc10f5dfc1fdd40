//! What FerroLB's programs count, read as a monitoring system reads it.

use anyhow::{Context, Result, ensure};
use ferrolb_tests::Lab;
use ferrolb_tests::cluster::ferrolb::ADMIN_PORT;
use ferrolb_tests::topology::{CLIENT, Host, node_index};
use std::net::{IpAddr, SocketAddr};

/// The admin endpoint of the program on a host.
pub(crate) fn admin(host: &str) -> SocketAddr {
    let host = node_index(host).map_or_else(Host::control_plane, Host::node);
    SocketAddr::new(IpAddr::V4(host.v4()), ADMIN_PORT)
}

/// The value of a metric of the program on `host`, all its series added up.
pub(crate) fn metric(lab: &Lab, host: &str, name: &str) -> Result<f64> {
    let page = lab.http_get(CLIENT, admin(host), "/metrics")?;
    ensure!(page.status == 200, "/metrics says {}", page.status);
    let series = page.body.lines().filter_map(|line| sample(line, name)).collect::<Vec<_>>();
    ensure!(!series.is_empty(), "no metric {name} on {host}; there are:\n{}", page.body);
    Ok(series.iter().sum())
}

/// The value of a line of OpenMetrics text, if it is of this metric: the name ends where its labels or its value begin.
fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
    rest.rsplit(' ').next()?.parse().ok()
}

/// What `/readyz` of the program on `host` answers: status and words.
pub(crate) fn readyz(lab: &Lab, host: &str) -> Result<(u16, String)> {
    let page = lab.http_get(CLIENT, admin(host), "/readyz").with_context(|| format!("/readyz of {host}"))?;
    Ok((page.status, page.body.trim().to_owned()))
}
