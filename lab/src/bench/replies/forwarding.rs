//! Cost of a speaker's sockets to a node that forwards other traffic.
//!
//! # Method
//!
//! - The client sends 89,285 UDP datagrams of 1,400 bytes, one gigabit, to a pod on the node, as
//!   fast as one processor can, over IPv4 and IPv6. The result is the processor time of the sender.
//!   In its context, the kernel of the lab also carries the datagrams over the switch, through the
//!   node and into the pod.
//! - Three streams without the speaker and three with it alternate three times. The ratio is the
//!   median of the three.
//! - A node that forwards 1 Gbit/s spends the addition for one gigabit in each second. The result
//!   is a share of the complete path; the share of the node alone would be larger.
//!
//! ARP has its own EtherType, and adds nothing to IPv4. The kernel shows every received IPv6 packet
//! to the packet socket for Neighbor Discovery, and copies its head (`skb_clone` under
//! `ip6_rcv_core`) before the filter of eight instructions rejects it.

use super::median;
use crate::bench::report::Findings;
use crate::bench::stats::ratio;
use crate::bench::targets::{FORWARDING_COST, ForwardingMeasures};
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::topology::{CLIENT, Host, node_index, pod_ranges};
use crate::traffic::stream::{self, PAYLOAD_BYTES};
use crate::{Lab, Signal};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

/// Destination pod and port of the stream. No program reads from the socket, so no value includes
/// the cost of reading.
const SINK_POD: &str = "sink";
const SINK_PORT: u16 = 9;
/// Datagrams in one gigabit of payload.
const DATAGRAMS_PER_GIGABIT: usize = 1_000_000_000 / (8 * PAYLOAD_BYTES);
/// Number of times that the speaker is stopped and started.
const PAIRS: usize = 3;
/// Number of streams, of one gigabit each, per family and measurement. The result is their median.
const GIGABITS: usize = 3;
/// Minimum share of a stream that must arrive. With less, the value would describe a part of the
/// path only.
const ARRIVED_MIN: f64 = 0.99;

/// Processor time per gigabit of one family in milliseconds: a pair of the times without and with a
/// speaker, for each stop of the speaker.
type TimePairs = Vec<[f64; 2]>;

/// Measures the cost of forwarding through `node`. The node's speaker must run before, and runs
/// again afterwards.
///
/// # Errors
/// If the stream does not arrive.
pub(super) fn measure(lab: &Lab, node: &Host, findings: &mut Findings) -> Result<()> {
    lab.pod(SINK_POD, &node.name, &[])?;
    let (pod, speaker) = (addresses(lab)?, speaker_name(&node.name));
    let sink = lab.within(SINK_POD, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SINK_PORT)))??;
    let ranges = pod_ranges(node_index(&node.name).context("the node is not a host of the lab")?);
    for (range, gateway) in ranges.iter().zip([IpAddr::from(node.v4()), node.v6().into()]) {
        lab.exec(CLIENT, &["ip", "route", "add", range, "via", &gateway.to_string()])?;
    }
    let mut families = [TimePairs::new(), TimePairs::new()];
    for _ in 0..PAIRS {
        lab.stop(&speaker, Signal::TERM)?;
        let without = streams(lab, pod)?;
        lab.restart(&speaker)?;
        lab.wait_healthy(&speaker, &node.name, ADMIN_PORT, "/readyz")?;
        let with = streams(lab, pod)?;
        for (pairs, pair) in families.iter_mut().zip(without.into_iter().zip(with)) {
            pairs.push(pair.into());
        }
    }
    drop(sink);
    FORWARDING_COST
        .iter()
        .zip(&families)
        .try_for_each(|(measures, pairs)| conclude(findings, measures, pairs))
}

/// Returns the pod's addresses, IPv4 first.
fn addresses(lab: &Lab) -> Result<[IpAddr; 2]> {
    let pod: Value = serde_json::from_str(&lab.kubectl(&["get", "pod", SINK_POD, "-o", "json"])?)?;
    let address = |index: usize| {
        pod["status"]["podIPs"][index]["ip"]
            .as_str()
            .context("the pod has fewer than two addresses")
    };
    Ok([address(0)?.parse()?, address(1)?.parse()?])
}

/// Returns the processor time for a gigabit to each address of the pod, in milliseconds.
fn streams(lab: &Lab, pod: [IpAddr; 2]) -> Result<[f64; 2]> {
    let mut times = [0.0; 2];
    for (address, time) in pod.into_iter().zip(&mut times) {
        let server = SocketAddr::new(address, SINK_PORT);
        let measure_stream = || -> Result<f64> {
            let before = received_packets(lab)?;
            let used = lab.within(CLIENT, || stream::send(server, DATAGRAMS_PER_GIGABIT))??;
            let share = (received_packets(lab)? - before) as f64 / DATAGRAMS_PER_GIGABIT as f64;
            ensure!(share >= ARRIVED_MIN, "only {share:.3} of the stream to {server} arrived");
            Ok(used.as_secs_f64() * 1000.0)
        };
        let all = (0..GIGABITS).map(|_| measure_stream()).collect::<Result<Vec<_>>>()?;
        *time = median(&all).context("no stream was measured")?;
    }
    Ok(times)
}

/// Returns the number of packets received by the pod's interface.
fn received_packets(lab: &Lab) -> Result<u64> {
    let table = lab.within(SINK_POD, || fs::read_to_string("/proc/thread-self/net/dev"))??;
    parse_received(&table).context("/proc/net/dev does not have the format of proc(5)")
}

/// Parses `/proc/net/dev` (proc(5)) and returns the packets received by `eth0`.
fn parse_received(table: &str) -> Option<u64> {
    let counts = table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    counts.split_whitespace().nth(1)?.parse().ok()
}

fn conclude(
    findings: &mut Findings,
    measures: &ForwardingMeasures,
    pairs: &TimePairs,
) -> Result<()> {
    let (without, with): (Vec<f64>, Vec<f64>) =
        pairs.iter().map(|[without, with]| (*without, *with)).unzip();
    let ratios: Option<Vec<f64>> =
        pairs.iter().map(|[without, with]| ratio(*with, *without)).collect();
    findings.add(&measures.without, median(&without).context("no stream was measured")?);
    findings.add(&measures.with, median(&with).context("no stream was measured")?);
    findings.add(
        &measures.ratio,
        median(&ratios.unwrap_or_default()).context("the stream took no time")?,
    );
    findings.keep_samples(measures.without.id, without);
    findings.keep_samples(measures.with.id, with);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_of_eth0_are_parsed() {
        let table = "Inter-|   Receive\n face |bytes    packets errs\n    lo: 9 8 0\n  eth0: 1504 12 0 0\nbeth0: 7 6 0\n";
        assert_eq!(parse_received(table), Some(12));
        assert_eq!(parse_received("    lo: 9 8 0\n"), None);
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs() {
        let mut findings = Findings::default();
        conclude(
            &mut findings,
            &FORWARDING_COST[0],
            &vec![[100.0, 103.0], [400.0, 404.0], [100.0, 102.0]],
        )
        .unwrap();
        let values: Vec<_> = findings.measures.iter().map(|measure| measure.value).collect();
        assert_eq!(values, [100.0, 103.0, 1.02]);
        assert!(conclude(&mut findings, &FORWARDING_COST[0], &TimePairs::new()).is_err());
    }
}
