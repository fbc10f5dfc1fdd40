//! Cost of 200 endpoint changes per second in a large cluster.
//!
//! # Method
//!
//! - Each change updates another EndpointSlice, in a random order that is the same in every run. In
//!   turn, one of the five endpoints is not ready any more, or is removed. No address moves.
//! - The changes start at equal distances for 30 s. The rate counts until the last reply of the API
//!   server. Below 90 % of 200 changes per second, the benchmark fails.
//! - The processor time of a process includes all threads and the kernel part, during the changes.
//! - The planning times are those of `ferrolb_speaker_plan_seconds` of all speakers, as in the
//!   benchmark `health`. The last bound of that histogram is 1 s: a value of 1 s means at least
//!   that.
//! - [`received`] has the method for the bytes that the first speaker receives.

use super::{cluster, received};
use crate::bench::report::Findings;
use crate::bench::targets::{self, CLUSTER_CHANGES_PLAN};
use crate::bench::{cpu, plan_times};
use crate::cluster::ferrolb::CONTROLLER;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

/// Changes per second, and the share of them that the API server must process in time.
const RATE: u32 = 200;
const RATE_SHARE_MIN: f64 = 0.9;
/// Time for which endpoints change.
const LENGTH: Duration = Duration::from_secs(30);
/// Maximum number of concurrent changes at the API server.
const CONCURRENT_CHANGES_MAX: usize = 32;
/// Seed of the order of the changes.
const SEED: u64 = 22;

/// Changes endpoints and measures the cost.
pub(super) fn measure(lab: &Lab, findings: &mut Findings, nodes: &[String]) -> Result<()> {
    let speakers = lab.nodes();
    let observed = speakers.first().context("the lab has no node")?;
    let mut processes = vec![CONTROLLER.to_owned()];
    processes.extend(super::speakers(lab));
    let plans = plan_times::histogram(lab, &speakers)?;
    let (start, connections) = (wait::now(), received::connections(lab, observed)?);
    let mut rate = 0.0;
    let times = cpu::milliseconds_per_second(lab, &processes, || {
        rate = lab.api(async |client| change_endpoints(&client, nodes).await)?;
        Ok(())
    })?;
    let bytes = received::bytes_since(&connections, &received::connections(lab, observed)?);
    let seconds = start.elapsed().as_secs_f64();
    let (controller, speakers_times) =
        times.split_first().context("no processor time was measured")?;
    let busiest = speakers_times.iter().copied().fold(0.0, f64::max);
    ensure!(
        rate >= f64::from(RATE) * RATE_SHARE_MIN,
        "the API server processed {rate:.0} of {RATE} changes per second, while the busiest \
         speaker used {busiest:.0} ms of processor time per second: run the benchmark on an idle \
         machine"
    );
    findings.add(&targets::CLUSTER_CHANGE_RATE, rate);
    findings.add(&targets::CLUSTER_CHANGES_CONTROLLER_CPU, *controller);
    findings.add(&targets::CLUSTER_CHANGES_SPEAKER_CPU, busiest);
    let planned = plan_times::histogram(lab, &speakers)?;
    for (measure, share) in CLUSTER_CHANGES_PLAN.iter().zip([0.5, 0.99]) {
        findings.add(measure, plan_times::quantile(&plans, &planned, share)? * 1000.0);
    }
    findings.add(&targets::CLUSTER_CHANGES_RECEIVED, bytes as f64 / 1000.0 / seconds);
    Ok(())
}

/// Changes endpoints for [`LENGTH`] and returns the number of changes per second.
async fn change_endpoints(client: &Client, nodes: &[String]) -> Result<f64> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let names = cluster::names();
    let ticks =
        stream::unfold(tokio::time::interval(Duration::from_secs(1) / RATE), async |mut ticks| {
            ticks.tick().await;
            Some(((), ticks))
        });
    let change = async |(turn, service): (usize, usize)| -> Result<()> {
        let name = names.get(service).context("there is no such Service")?;
        let patch = Patch::Merge(json!({"endpoints": changed(turn, service, nodes)}));
        slices.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    };
    let start = wait::now();
    let changes = stream::iter(order().into_iter().enumerate())
        .zip(ticks)
        .take_until(tokio::time::sleep(LENGTH))
        .map(|(turn, ())| change(turn));
    let done: Vec<()> = changes.buffer_unordered(CONCURRENT_CHANGES_MAX).try_collect().await?;
    Ok(done.len() as f64 / start.elapsed().as_secs_f64())
}

/// Returns the numbers of the Services that change, in the order of their changes.
fn order() -> Vec<usize> {
    let count = u64::from(RATE) * LENGTH.as_secs();
    let mut services: Vec<usize> = (0..cluster::SERVICES).collect();
    fastrand::Rng::with_seed(SEED).shuffle(&mut services);
    services.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    services
}

/// Returns the endpoints of a Service after its change. In an even turn, one endpoint is not ready.
/// In an odd turn, it is missing.
fn changed(turn: usize, service: usize, nodes: &[String]) -> Vec<Value> {
    let mut endpoints = cluster::endpoints(service, nodes);
    let index = service % cluster::ENDPOINTS;
    if turn.is_multiple_of(2) {
        endpoints[index]["conditions"]["ready"] = json!(false);
    } else {
        endpoints.remove(index);
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_change_is_of_another_service_and_the_order_is_fixed() {
        let services = order();
        assert_eq!(services.len(), 6_000);
        assert_eq!(services.iter().collect::<BTreeSet<_>>().len(), 6_000);
        assert_eq!(services, order());
    }

    #[test]
    fn a_change_affects_one_endpoint() {
        let nodes = ["a".to_owned()];
        let before = cluster::endpoints(7, &nodes);
        let not_ready = changed(0, 7, &nodes);
        let differing: Vec<usize> =
            (0..cluster::ENDPOINTS).filter(|index| before[*index] != not_ready[*index]).collect();
        assert_eq!(differing, [2]);
        assert_eq!(not_ready[2]["conditions"]["ready"], json!(false));
        let removed = changed(1, 7, &nodes);
        assert_eq!(removed, [&before[..2], &before[3..]].concat());
    }
}
