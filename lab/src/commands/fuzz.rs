//! `cargo lab fuzz`: runs coverage-guided fuzzing (libFuzzer) of the parsers for received frames,
//! and of the claim machine.
//!
//! A workspace of its own (`tests/fuzz`) builds the targets, because their build is instrumented.
//! New inputs that extend the coverage go to a directory in `target/`; the corpus in the repository
//! only grows by hand.

use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::setup;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Workspace of the targets.
const WORKSPACE: &str = "tests/fuzz";
/// Targets, and the crates that they test. Each has a file in the folder `fuzz` of its crate, and a
/// folder in `fuzz/corpus`.
const TARGETS: [(&str, &str); 7] = [
    ("arp", "proto"),
    ("ndp", "proto"),
    ("hello", "proto"),
    ("claims", "speaker/core"),
    ("claim_sets", "speaker/core"),
    ("membership", "speaker/core"),
    ("ownership", "speaker/core"),
];
/// Maximum input in bytes: a frame and a margin.
const INPUT_MAX: usize = 1_600;
/// Maximum time of an input, in seconds; a slower input is a finding. libFuzzer measures real time,
/// also while other programs have the processor, and an input needs far less than a second.
const INPUT_SECONDS_MAX: u32 = 30;
/// Compiler flags for libFuzzer's coverage: counters at every edge and a table of locations, as its
/// documentation names them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Clink-dead-code";

/// Arguments of `cargo lab fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzArgs {
    /// Targets to run: arp, ndp, hello, claims, claim_sets, membership, ownership; default: all.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.map(|(name, _)| name)))]
    targets: Vec<String>,
    /// Time for each target, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run this one input instead, such as the file that a finding names.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Builds the targets and runs them, at the same time as many as the machine has processors.
pub(crate) fn fuzz(args: &FuzzArgs) -> Result<()> {
    let built = ferrolb_lab_launcher::target_folder().join("fuzz");
    let triple = host_triple()?;
    // With a target triple, the instrumentation does not apply to build scripts and macros.
    let mut cargo = setup::cargo();
    cargo
        .current_dir(setup::repository().join(WORKSPACE))
        .env("CARGO_TARGET_DIR", &built)
        .env("RUSTFLAGS", COVERAGE);
    cargo.args(["build", "--quiet", "--locked", "--release", "--target", &triple]);
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(
        status.success(),
        "the fuzz targets do not build (they need a C++ compiler: apt-get install g++)"
    );
    let programs = built.join(&triple).join("release");
    let chosen = |name: &str| args.targets.is_empty() || args.targets.iter().any(|it| it == name);
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| chosen(name)).collect();
    if let Some(input) = &args.input {
        let [(target, _)] = targets[..] else { bail!("--input needs exactly one target") };
        let status = Command::new(programs.join(target)).arg(input).status();
        return check(target, status.context("cannot start the fuzz target")?);
    }
    let run = |(target, of): &(&str, &str)| run(target, of, &programs, &built, args.seconds);
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    targets.chunks(at_once).try_for_each(|targets| {
        std::thread::scope(|scope| {
            let running: Vec<_> = targets.iter().map(|it| scope.spawn(|| run(it))).collect();
            running.into_iter().try_for_each(|it| it.join().unwrap_or_else(|it| resume_unwind(it)))
        })
    })
}

/// Returns the triple of this machine, as reported by the compiler.
fn host_triple() -> Result<String> {
    let output = ferrolb_lab::run::run(Command::new("rustc").arg("-vV"))?;
    let triple = output
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc reports no host")?;
    Ok(triple.to_owned())
}

fn run(target: &str, of: &str, programs: &Path, built: &Path, seconds: u32) -> Result<()> {
    let corpus = setup::repository().join(of).join("fuzz/corpus").join(target);
    let (found, artifacts) = (built.join("corpus").join(target), built.join("findings"));
    for folder_to_create in [&found, &artifacts] {
        std::fs::create_dir_all(folder_to_create)
            .with_context(|| format!("cannot create {}", folder_to_create.display()))?;
    }
    let mut fuzzer = Command::new(programs.join(target));
    fuzzer.args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_MAX}")]);
    fuzzer.args([
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-artifact_prefix={}/{target}-", artifacts.display()),
    ]);
    fuzzer.args(["-verbosity=0", "-print_final_stats=1"]);
    fuzzer.arg(&found).arg(corpus);
    let output = fuzzer.output().context("cannot start the fuzz target")?;
    // In one piece, because another target runs at the same time.
    let text = String::from_utf8_lossy(&output.stderr);
    println!("== {target}, {seconds} s\n{text}");
    check(target, output.status)
}

fn check(target: &str, status: ExitStatus) -> Result<()> {
    ensure!(
        status.success(),
        "the fuzzer has a finding in {target}; to repeat it: cargo lab fuzz {target} --input FILE"
    );
    Ok(())
}
