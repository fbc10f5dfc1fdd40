//! Raises the lab of a test, tells its story step by step, and takes it down whatever came of it. A story that fails shows the last words
//! of FerroLB's programs, and of the routers.

mod place;
mod stalls;

use crate::setup::Tools;
use crate::setup::kubernetes::Version;
use crate::{Lab, Options, rights, run, state};
use anyhow::{Context, Result};
use place::Place;
use stalls::Stalls;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Two hellos: a processor that stands still for so long makes a node on it late, and soon dead to the others.
const STALL: Duration = Duration::from_millis(100);
/// How often a story is told at most.
const TOLD_MAX: usize = 3;
/// How much of each program's log a failed test shows, in lines.
const LOG_LINES: usize = 25;
/// What each daemon of FRR says of each line of the configuration that they share, where the line is another's.
const FRR_SHARES: &str = "No such command on config line";
/// Whose log that is, by how its name begins.
const SHOWN: [&str; 5] = ["controller", "speaker", "gobgpd", "frr", "bird"];

/// Whether another lab may stand meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Alone,
    Shared,
}

/// Raises a lab, tells `story` in it, and takes it down. A panic or error in the story fails the test; where a processor of this machine stood
/// still meanwhile, an error does only if the story, told again, ends in one again. Another lab may stand beside it, since Kubernetes' own programs yield
/// in both. Not so where kubelets start FerroLB, which would yield with them.
pub fn play(options: &Options, story: impl Fn(&Lab) -> Result<()>) {
    let turn = if options.kubeadm { Turn::Alone } else { Turn::Shared };
    play_in(turn, options, story);
}

/// [`play`] with nothing beside it, for a story that looks at the clock closely.
pub fn play_alone(options: &Options, story: impl Fn(&Lab) -> Result<()>) {
    play_in(Turn::Alone, options, story);
}

fn play_in(turn: Turn, options: &Options, story: impl Fn(&Lab) -> Result<()>) {
    let tools = match options {
        Options { kubeadm: true, bgp: true, .. } => Tools::with_all,
        Options { kubeadm: true, .. } => Tools::with_kubeadm,
        Options { bgp: true, .. } => Tools::with_routers,
        Options { kubernetes: Version::Oldest, .. } => Tools::with_oldest,
        Options { .. } => Tools::ready,
    };
    in_turn(turn, tools, |tools| {
        for _ in 1..TOLD_MAX {
            let stalls = Stalls::watch()?;
            let Err(error) = tell(tools, options, &story) else { return Ok(()) };
            let longest = stalls.end();
            say(&format!("meanwhile a processor of this machine stood still for {longest:?} at the longest"));
            if longest < STALL {
                return Err(error);
            }
            say("that is no fault of what is tested: once more");
        }
        tell(tools, options, &story)
    });
}

fn tell(tools: &Tools, options: &Options, story: impl Fn(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::up(tools, &Options { story: true, ..options.clone() })?;
    let last_words = LastWords(state::logs(&options.name.parse()?));
    // Said at once, and where the harness shows it of this test, before the logs of the programs, which are long.
    story(&lab).inspect_err(|error| {
        say(&format!("failed: {error:#}"));
        println!("failed: {error:#}");
    })?;
    // Told, so nothing has failed in it.
    std::mem::forget(last_words);
    rights::run::add(lab.state())?;
    lab.down()
}

/// Gives the tools, and the turn: no other lab of these tests stands meanwhile, of another test run neither.
pub fn alone(work: impl FnOnce(&Tools) -> Result<()>) {
    in_turn(Turn::Alone, Tools::ready, work);
}

fn in_turn(turn: Turn, tools: fn() -> Result<&'static Tools>, work: impl FnOnce(&Tools) -> Result<()>) {
    let done = || {
        let tools = tools()?;
        // Before the lock, which whoever waits for a place would keep from those who are to be alone.
        let _place = (turn == Turn::Shared).then(Place::take);
        // A lock on the folder that all test runs of this user have in common; it ends with the file.
        let house = File::open(&Tools::ready()?.kubernetes)?;
        match turn {
            Turn::Alone => house.lock()?,
            Turn::Shared => house.lock_shared()?,
        }
        work(tools)
    };
    if let Err(error) = done() {
        panic!("{error:#}");
    }
}

/// A lab of one node, for what has nothing to do with which node it is.
pub fn one_node(name: &str) -> Options {
    Options { nodes: 1, ..Options::named(name) }
}

/// One node without a kube-proxy, for what only a controller does: nothing else takes the machine's time.
pub fn without_proxy(name: &str) -> Options {
    Options { proxy_mode: None, ..one_node(name) }
}

/// One step of a story: named before it begins, and in its failure.
pub fn step<T>(says: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("- {says}");
    work().with_context(|| says.to_owned())
}

/// Prints a measured number, also of a test that passes.
pub fn measured(line: &str) {
    say(&format!("measured: {line}"));
}

fn say(line: &str) {
    // Not `eprintln!`, which the test harness would keep to itself; where nobody reads, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Shows how the logs of FerroLB's programs end, unless it is forgotten.
struct LastWords(PathBuf);

impl Drop for LastWords {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        logs.sort();
        for log in logs {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if SHOWN.iter().any(|start| name.starts_with(start)) {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let told: Vec<&str> = text.lines().filter(|line| !line.contains(FRR_SHARES)).collect();
                println!("--- the log of {name} ends:\n{}", run::last_lines(&told.join("\n"), LOG_LINES));
            }
        }
    }
}
