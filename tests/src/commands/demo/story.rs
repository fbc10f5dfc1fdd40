//! The scenes of the demo: what is done in the lab, and how it is told.

use anyhow::{Context, Result, anyhow, bail};
use ferrolb_tests::lab::kubectl_command;
use ferrolb_tests::topology::CLIENT;
use ferrolb_tests::{Lab, Report, wait};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The Service of the example, and the label of the pods it selects.
const SERVICE: &str = "web";
const HTTP_PORT: u16 = 80;
/// How long a change may take to show before the demo gives up.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// How long and how often the client connects while a node dies, and when after its start that happens.
const PROBE_LENGTH: Duration = Duration::from_secs(4);
const PROBE_STEP: Duration = Duration::from_millis(10);
const CALM_BEFORE: Duration = Duration::from_secs(1);

/// A web pod on each node.
pub(crate) fn run_pods(lab: &Lab) -> Result<()> {
    for (index, node) in lab.nodes().iter().enumerate() {
        lab.pod(&format!("web-{}", index + 1), node, &[("app", SERVICE)])?;
    }
    Ok(())
}

/// What kubectl showed of the Service, from its creation until it had an address.
pub(crate) struct Watched(Vec<String>);

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n$ kubectl get svc --watch\n{}", aligned(&self.0))
    }
}

/// Creates the Service while kubectl watches, until its line shows an address.
pub(crate) fn create_service(lab: &Lab, manifest: &Path) -> Result<Watched> {
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

/// Lines with their columns under one another: kubectl, printing as it watches, cannot know the widths yet.
fn aligned(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.len()).max().unwrap_or(0);
    let line = |row: &Vec<&str>| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn watch(kubectl: &mut Child, create: impl FnOnce() -> Result<()>) -> Result<Watched> {
    let lines = lines(kubectl.stdout.take().context("kubectl has no output")?);
    let next =
        || lines.recv_timeout(CHANGE_MAX).map_err(|_| anyhow!("kubectl shows nothing new within {CHANGE_MAX:?}"));
    let heading = next()?;
    // The Service that every cluster has: kubectl is watching from here on.
    next()?;
    create()?;
    let mut shown = vec![heading];
    loop {
        let line = next()?;
        if !line.starts_with(SERVICE) {
            continue;
        }
        let assigned = external_address(&line).is_some();
        // A change that the line does not show would look like the same line twice.
        if shown.last() != Some(&line) {
            shown.push(line);
        }
        if assigned {
            return Ok(Watched(shown));
        }
    }
}

/// The lines of a program's output, as they come.
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

/// The first address in the fourth column of `kubectl get svc`, if there is one yet.
fn external_address(line: &str) -> Option<IpAddr> {
    line.split_whitespace().nth(3)?.split(',').next()?.parse().ok()
}

/// A page that came over the wire, and from whom.
pub(crate) struct Served {
    pub(crate) address: IpAddr,
    pub(crate) owner: String,
    curl: String,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, owner, curl } = self;
        write!(
            f,
            "\nclient$ curl http://{address}/\n{curl}\n{owner} answers for {address} on the wire, and kube-proxy there chose the pod."
        )
    }
}

/// Fetches the page by curl on the client's host, and asks the wire who brought it.
pub(crate) fn fetch(lab: &Lab) -> Result<Served> {
    let line = lab.kubectl(&["get", "svc", SERVICE, "--no-headers"])?;
    let address = external_address(&line).with_context(|| format!("no address in {line:?}"))?;
    let curl = wait::until("the page", CHANGE_MAX, || curl(lab, address).map(Some))?;
    let owner = lab.who_answers(address)?.with_context(|| format!("nobody answers for {address}"))?;
    Ok(Served { address, owner, curl })
}

fn curl(lab: &Lab, address: IpAddr) -> Result<String> {
    let page =
        lab.exec(CLIENT, &["curl", "--silent", "--show-error", "--max-time", "1", &format!("http://{address}/")])?;
    Ok(page.trim_end().to_owned())
}

/// What the client saw of a node's death.
pub(crate) struct Survived {
    dead: String,
    after: Served,
    report: Report,
}

impl fmt::Display for Survived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dead, heir, gap) = (&self.dead, &self.after.owner, self.report.longest_gap_ms);
        let Report { sent, ok, lost, .. } = &self.report;
        writeln!(f, "\n{dead} is dead: its port is down and all its processes are killed. {heir} answers now.")?;
        writeln!(
            f,
            "The longest the client was without a page: {gap:.0} ms ({sent} connections, {ok} served, {lost} not;"
        )?;
        writeln!(
            f,
            "Kubernetes has not noticed the death yet, so every third connection still goes to the dead node's pod)."
        )?;
        writeln!(f, "\nclient$ curl http://{}/\n{}", self.after.address, self.after.curl)
    }
}

/// Pulls the owner's plug while the client connects, and finds its heir.
pub(crate) fn power_off(lab: &Lab, served: &Served) -> Result<Survived> {
    let probing = lab.start_probe(SocketAddr::new(served.address, HTTP_PORT), PROBE_LENGTH, PROBE_STEP);
    wait::during(CALM_BEFORE, || Ok(()))?;
    lab.power_off(&served.owner)?;
    let report = probing.finish()?;
    let after = fetch(lab)?;
    if after.owner == served.owner {
        bail!("{} answers still, although it is off", served.owner);
    }
    Ok(Survived { dead: served.owner.clone(), after, report })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_one_another() {
        let lines = ["NAME   IP", "web  <pending>   80", "web  172.30.0.200   80"].map(str::to_owned);
        assert_eq!(aligned(&lines), "NAME   IP\nweb    <pending>      80\nweb    172.30.0.200   80\n");
    }

    #[test]
    fn an_address_is_read_from_kubectl_s_line_once_it_is_there() {
        for (line, expect) in [
            ("web   LoadBalancer   10.96.1.2   <pending>     80/TCP   0s", None),
            ("web   LoadBalancer   10.96.1.2   172.30.0.200   80/TCP   0s", Some("172.30.0.200")),
            ("web   LoadBalancer   10.96.1.2   172.30.0.200,fd30::c8   80/TCP   0s", Some("172.30.0.200")),
            ("", None),
        ] {
            assert_eq!(external_address(line).map(|address| address.to_string()).as_deref(), expect, "{line}");
        }
    }
}
