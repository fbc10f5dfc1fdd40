//! Scenes of the demo: actions in the lab, and their descriptions.

use anyhow::{Context, Result, anyhow, bail};
use ferrolb_lab::lab::kubectl_command;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, ProbeReport, wait};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Name of the example's Service, and label value of the pods that it selects.
const SERVICE: &str = "web";
const HTTP_PORT: u16 = 80;
/// Maximum time for a change to show before the demo fails.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// Length and interval of the client's probe during a node failure. [`PROBE_BEFORE`] is the time
/// from the start of the probe to the failure.
const PROBE_LENGTH: Duration = Duration::from_secs(4);
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_BEFORE: Duration = Duration::from_secs(1);

/// Starts a web pod on each node.
pub(crate) fn run_pods(lab: &Lab) -> Result<()> {
    for (index, node) in lab.nodes().iter().enumerate() {
        lab.pod(&format!("web-{}", index + 1), node, &[("app", SERVICE)])?;
    }
    Ok(())
}

/// Output of kubectl for the Service, from its creation until it has an address.
pub(crate) struct WatchedService(Vec<String>);

impl fmt::Display for WatchedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n$ kubectl get svc --watch\n{}", aligned(&self.0))
    }
}

/// Creates the Service while kubectl watches all Services, and waits until kubectl prints the
/// Service's address.
pub(crate) fn create_service(lab: &Lab, manifest: &Path) -> Result<WatchedService> {
    let mut kubectl = lab.within(CLIENT, || {
        let mut command = kubectl_command(lab.state())?;
        command.args(["get", "svc", "--watch"]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().context("cannot start kubectl")
    })??;
    let watched = watch(&mut kubectl, || lab.apply_file(manifest));
    kubectl.kill()?;
    kubectl.wait()?;
    watched.with_context(|| format!("the Service {SERVICE} got no address"))
}

/// Aligns the columns of lines. kubectl prints lines one by one in a watch, and cannot align
/// columns in advance.
fn aligned(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.len()).max().unwrap_or(0)
    };
    let line = |row: &Vec<&str>| {
        let cells = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn watch(kubectl: &mut Child, create: impl FnOnce() -> Result<()>) -> Result<WatchedService> {
    let lines = lines(kubectl.stdout.take().context("kubectl has no output")?);
    let next = || {
        lines
            .recv_timeout(CHANGE_MAX)
            .map_err(|_| anyhow!("kubectl printed no line within {CHANGE_MAX:?}"))
    };
    let heading = next()?;
    // This line is that of the Service `kubernetes`. After this line, kubectl prints only changes.
    next()?;
    create()?;
    let mut shown = vec![heading];
    loop {
        let line = next()?;
        if !line.starts_with(SERVICE) {
            continue;
        }
        let assigned = external_address(&line).is_some();
        // A change outside of the printed columns would repeat the line.
        if shown.last() != Some(&line) {
            shown.push(line);
        }
        if assigned {
            return Ok(WatchedService(shown));
        }
    }
}

/// Returns the lines of a program's output as they arrive.
fn lines(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

/// Returns the first address in the fourth column of `kubectl get svc`, if there is one.
fn external_address(line: &str) -> Option<IpAddr> {
    line.split_whitespace().nth(3)?.split(',').next()?.parse().ok()
}

/// A page that a client received over the network, and the owner of the address.
pub(crate) struct ServedPage {
    pub(crate) address: IpAddr,
    pub(crate) owner: String,
    curl: String,
}

impl fmt::Display for ServedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, owner, curl } = self;
        write!(
            f,
            "\nclient$ curl http://{address}/\n{curl}\n{owner} owns {address}: it replies to ARP requests, and its kube-proxy selected the pod."
        )
    }
}

/// Fetches the page with curl on the client's host, and finds the owner of the address by an ARP
/// request.
pub(crate) fn fetch(lab: &Lab) -> Result<ServedPage> {
    let line = lab.kubectl(&["get", "svc", SERVICE, "--no-headers"])?;
    let address = external_address(&line).with_context(|| format!("no address in {line:?}"))?;
    let curl =
        wait::until("the client receives the page", CHANGE_MAX, || curl(lab, address).map(Some))?;
    let owner = lab.owner_of(address)?.with_context(|| format!("no node replies for {address}"))?;
    Ok(ServedPage { address, owner, curl })
}

fn curl(lab: &Lab, address: IpAddr) -> Result<String> {
    let page = lab.exec(
        CLIENT,
        &["curl", "--silent", "--show-error", "--max-time", "1", &format!("http://{address}/")],
    )?;
    Ok(page.trim_end().to_owned())
}

/// The client's results of a node failure.
pub(crate) struct FailoverResult {
    failed_node: String,
    after: ServedPage,
    report: ProbeReport,
}

impl fmt::Display for FailoverResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, new_owner, gap) =
            (&self.failed_node, &self.after.owner, self.report.longest_gap_ms);
        let ProbeReport { sent, ok, lost, .. } = &self.report;
        writeln!(
            f,
            "\n{failed} has failed: its switch port is down and all its processes are killed. {new_owner} owns the address now."
        )?;
        writeln!(
            f,
            "Longest time without a page for the client: {gap:.0} ms ({sent} connections, {ok} served, {lost} not;"
        )?;
        writeln!(
            f,
            "Kubernetes has not detected the failure yet, so every third connection still goes to the failed node's pod)."
        )?;
        writeln!(f, "\nclient$ curl http://{}/\n{}", self.after.address, self.after.curl)
    }
}

/// Powers the owner off while the client connects, and finds the new owner.
pub(crate) fn power_off(lab: &Lab, served: &ServedPage) -> Result<FailoverResult> {
    let probing =
        lab.start_probe(SocketAddr::new(served.address, HTTP_PORT), PROBE_LENGTH, PROBE_INTERVAL);
    wait::during(PROBE_BEFORE, || Ok(()))?;
    lab.power_off(&served.owner)?;
    let report = probing.finish()?;
    let after = fetch(lab)?;
    if after.owner == served.owner {
        bail!("{} still replies, although it is off", served.owner);
    }
    Ok(FailoverResult { failed_node: served.owner.clone(), after, report })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let lines =
            ["NAME   IP", "web  <pending>   80", "web  172.30.0.200   80"].map(str::to_owned);
        assert_eq!(
            aligned(&lines),
            "NAME   IP\nweb    <pending>      80\nweb    172.30.0.200   80\n"
        );
    }

    #[test]
    fn the_external_address_is_parsed_from_kubectl_output() {
        for (line, expect) in [
            ("web   LoadBalancer   10.96.1.2   <pending>     80/TCP   0s", None),
            ("web   LoadBalancer   10.96.1.2   172.30.0.200   80/TCP   0s", Some("172.30.0.200")),
            (
                "web   LoadBalancer   10.96.1.2   172.30.0.200,fd30::c8   80/TCP   0s",
                Some("172.30.0.200"),
            ),
            ("", None),
        ] {
            assert_eq!(
                external_address(line).map(|address| address.to_string()).as_deref(),
                expect,
                "{line}"
            );
        }
    }
}
