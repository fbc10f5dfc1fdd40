//! Without an API server: at the start the programs wait, and say once what for; later the speakers go on answering, and a dead node is
//! still replaced.

use crate::client_wire;
use crate::metrics::{metric, readyz};
use crate::node_death::{PROBE_LENGTH, probed, serve_elsewhere, within_budget};
use crate::stage::{play, step};
use anyhow::{Result, ensure};
use ferrolb_tests::cluster::api;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, Options, Signal, wait};
use std::time::Duration;

/// What the programs say once when the API server is away.
const AWAY: &str = "no answer from the API server";
/// How many requests must have failed before the log's silence about them means something.
const FAILURES: f64 = 10.0;
/// How long a program may take back to its work: its longest wait between two tries is 20 s.
const BACK_MAX: Duration = Duration::from_secs(30);
/// It publishes the endpoints. It is away as long as the API server: its own longest wait between two tries is 30 s.
const PUBLISHER: &str = "kube-controller-manager";

#[test]
fn without_an_api_server_the_programs_wait_and_the_speakers_go_on_answering() {
    play(&Options::named("noapi"), |lab| {
        lab.install_ferrolb()?;
        let programs = programs(lab);
        lab.stop("kube-apiserver", Signal::KILL)?;
        lab.stop(PUBLISHER, Signal::KILL)?;
        step("started without an API server, all wait, are not ready, and say why", || {
            lab.start_controller(&[])?;
            lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
            programs.iter().try_for_each(|(_, host)| waits(lab, host))
        })?;
        step("once each, however often they try", || said(lab, &programs, 1))?;
        step("and become ready when it appears", || {
            lab.restart("kube-apiserver")?;
            back(lab, &programs)?;
            lab.restart(PUBLISHER)
        })?;
        let (address, owner) = step("a Service is served", || serve_elsewhere(lab))?;
        step("the API server stops: the owner goes on answering, and all say so once more", || {
            let failures = metric(lab, &owner, "ferrolb_api_failures_total")?;
            lab.stop("kube-apiserver", Signal::KILL)?;
            wait::until("some tries", BACK_MAX, || {
                let now = metric(lab, &owner, "ferrolb_api_failures_total")?;
                Ok((now >= failures + FAILURES).then_some(()))
            })?;
            let now = client_wire::owner(lab, address)?;
            ensure!(now == owner, "{now} took it from {owner}");
            said(lab, &programs, 2)
        })?;
        step("its owner dies: another node answers", || {
            let report = probed(lab, address, "owner off, no API server", PROBE_LENGTH, || lab.power_off(&owner))?;
            within_budget(&report)
        })?;
        let second = client_wire::owner(lab, address)?;
        ensure!(second != owner, "{owner} is off and answers");
        step("the API server is back, and so are all that live; the owner stays", || {
            lab.restart("kube-apiserver")?;
            let living: Vec<_> = programs.into_iter().filter(|(_, host)| *host != owner).collect();
            back(lab, &living)?;
            let now = client_wire::owner(lab, address)?;
            ensure!(now == second, "{now} took it from {second}");
            Ok(())
        })
    });
}

/// FerroLB's programs in a lab: process and host.
fn programs(lab: &Lab) -> Vec<(String, String)> {
    let mut programs = vec![("controller".to_owned(), CONTROL_PLANE.to_owned())];
    programs.extend(lab.nodes().into_iter().map(|node| (format!("speaker-{node}"), node)));
    programs
}

/// The program of a host is not ready, and says what it waits for, after many tries.
fn waits(lab: &Lab, host: &str) -> Result<()> {
    wait::until(&format!("the program on {host} tries"), BACK_MAX, || {
        Ok((metric(lab, host, "ferrolb_api_failures_total")? >= FAILURES).then_some(()))
    })?;
    wait::until(&format!("the program on {host} says what it waits for"), BACK_MAX, || {
        let (status, words) = readyz(lab, host)?;
        ensure!(status == 503 && words.contains("waiting for"), "/readyz answers {status}: {words:?}");
        Ok(Some(()))
    })
}

/// Each program lives and comes to have said so many times, and no more, that the API server is away.
fn said(lab: &Lab, programs: &[(String, String)], times: usize) -> Result<()> {
    for (program, _) in programs {
        lab.pid(program)?;
        let count = || lab.logs(program).lines().filter(|line| line.contains(AWAY)).count();
        wait::until("the absence is said", BACK_MAX, || Ok((count() >= times).then_some(())))?;
        ensure!(count() == times, "{program} said {} times, not {times}, that the API server is away", count());
    }
    Ok(())
}

/// Waits until the API server and all programs are ready.
fn back(lab: &Lab, programs: &[(String, String)]) -> Result<()> {
    lab.api(async |client| api::wait_ready(&client).await)?;
    programs.iter().try_for_each(|(program, host)| {
        wait::until(&format!("{program} is ready"), BACK_MAX, || {
            let (status, words) = readyz(lab, host)?;
            ensure!(status == 200, "{status}: {words}");
            Ok(Some(()))
        })
    })
}
