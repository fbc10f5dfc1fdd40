//! `cargo lab status`.

use anyhow::Result;
use ferrolb_lab::cluster::nodes;
use ferrolb_lab::process::{self, ProcessRecord};
use ferrolb_lab::state::{self, LabState};
use ferrolb_lab::topology::LabName;

/// Lists the labs, their hosts and processes.
pub(crate) fn status() -> Result<()> {
    let labs = state::labs();
    if labs.is_empty() {
        println!("No lab is running: start one with `cargo lab up`.");
    }
    for name in labs {
        match describe(&name) {
            Ok(text) => print!("{text}"),
            Err(error) => println!("{name}: {error:#}"),
        }
    }
    Ok(())
}

fn describe(name: &LabName) -> Result<String> {
    let state = LabState::open(name)?;
    let facts = state.facts()?;
    let status = match (facts.kept, LabState::claim(name)) {
        (true, Ok(_)) => "running".to_owned(),
        (false, Ok(_)) => {
            format!("left by a killed process: remove it with `cargo lab --name {name} down`")
        }
        (_, Err(busy)) => busy.to_string(),
    };
    let proxies = nodes::proxies(facts.proxy_mode.as_deref());
    let mut text =
        format!("{name}: {status}\n  {} node(s), {}, {proxies}\n", facts.nodes, facts.families);
    for host in facts.hosts() {
        let addresses = facts
            .families
            .of(host.addresses().map(|address| format!("{:<12}", address.to_string())));
        text += &format!("  {:<8} {} {}\n", host.name, addresses.join(" "), host.mac());
    }
    for record in process::records(&state) {
        text += &process_line(&record, record.is_alive());
    }
    Ok(text)
}

fn process_line(record: &ProcessRecord, alive: bool) -> String {
    let launch = &record.launch;
    format!(
        "  {:<24} on {:<8} {}\n",
        launch.name,
        launch.host,
        if alive { format!("pid {}", record.pid) } else { "ended".to_owned() }
    )
}
