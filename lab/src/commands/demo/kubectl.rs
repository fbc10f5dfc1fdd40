//! kubectl in the demo: commands with their output, also of FerroLB's plugin, and a watch of
//! Services.

use anyhow::{Context, Result, anyhow};
use ferrolb_lab::Lab;
use ferrolb_lab::lab::kubectl_command;
use ferrolb_lab::topology::CLIENT;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Maximum time for a change to show before the demo fails.
pub(crate) const CHANGE_MAX: Duration = Duration::from_secs(30);

/// Runs a kubectl command. Returns it as a reader would type it, with its output.
pub(crate) fn shown(lab: &Lab, args: &[&str]) -> Result<String> {
    let output = lab.kubectl(args)?;
    Ok(transcript("kubectl", args, &output))
}

/// Runs a command of `kubectl ferrolb` like [`shown`].
pub(crate) fn ferrolb_shown(lab: &Lab, args: &[&str]) -> Result<String> {
    Ok(transcript("kubectl ferrolb", args, &lab.kubectl_ferrolb(args)?))
}

/// Returns a command as a reader would type it, with its output.
fn transcript(program: &str, args: &[&str], output: &str) -> String {
    let quoted = args.iter().map(|arg| match arg.contains(['{', '(', '*']) {
        true => format!("'{arg}'"),
        false => (*arg).to_owned(),
    });
    let args = quoted.collect::<Vec<_>>().join(" ");
    format!("$ {program} {args}\n{}\n", output.trim_end())
}

/// Output of kubectl for a Service, from its creation until it has an address.
pub(crate) struct WatchedService(Vec<String>);

impl fmt::Display for WatchedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n$ kubectl get svc --watch\n{}", aligned(&self.0))
    }
}

/// Runs `create`, which creates the Service `name`, while kubectl watches all Services. Waits until
/// kubectl prints the Service's address.
pub(crate) fn watch_service(
    lab: &Lab,
    name: &str,
    create: impl FnOnce() -> Result<()>,
) -> Result<WatchedService> {
    let mut kubectl = lab.within(CLIENT, || {
        let mut command = kubectl_command(lab.state())?;
        command.args(["get", "svc", "--watch"]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().context("cannot start kubectl")
    })??;
    let watched = watch(&mut kubectl, name, create);
    kubectl.kill()?;
    kubectl.wait()?;
    watched.with_context(|| format!("the Service {name} got no address"))
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

fn watch(
    kubectl: &mut Child,
    name: &str,
    create: impl FnOnce() -> Result<()>,
) -> Result<WatchedService> {
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
        if !line.starts_with(name) {
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
pub(crate) fn external_address(line: &str) -> Option<IpAddr> {
    line.split_whitespace().nth(3)?.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_has_the_command_as_a_reader_types_it() {
        assert_eq!(
            transcript("kubectl ferrolb", &["why", "web"], "default/web: Announced\n\n"),
            "$ kubectl ferrolb why web\ndefault/web: Announced\n"
        );
        assert_eq!(
            transcript("kubectl", &["get", "svc", "-o", "jsonpath={.a}"], "b"),
            "$ kubectl get svc -o 'jsonpath={.a}'\nb\n"
        );
    }

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
