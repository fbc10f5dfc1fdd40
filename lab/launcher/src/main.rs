//! `cargo lab`: checks the requirements of a cluster and states how long a first run takes, then
//! lets cargo build the lab's program and replaces itself with it. This crate has no dependencies,
//! so it runs before any long build.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use ferrolb_lab_launcher::requirements::{self, UserAndGo};
use ferrolb_lab_launcher::{cargo, first_run, target_folder};

/// Commands that start one cluster, for which the launcher states the duration of all builds.
const CLUSTER_COMMANDS: [&str; 2] = ["demo", "up"];
/// Other commands that need root and Go, and tiers of `test` that need neither.
const OTHER_COMMANDS: [&str; 2] = ["bench", "test"];
const SIMPLE_TIERS: [&str; 3] = ["unit", "sim", "install"];
/// Flags that only print a help text.
const HELP: [&str; 2] = ["--help", "-h"];

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let words = words(&args);
    // The lab's program exists after its first build.
    let has_lab = target_folder().join("lab/ferrolb-lab").exists();
    let starts_cluster = words.first().is_some_and(|word| CLUSTER_COMMANDS.contains(word));
    if !has_lab && (starts_cluster || needs_cluster(&words)) {
        let user_and_go = UserAndGo::of_process(requirements::go_version().as_deref());
        let remedies = user_and_go.remedies();
        if !remedies.is_empty() {
            eprint!("error: {}", requirements::not_ready(&remedies));
            return ExitCode::FAILURE;
        }
    }
    if starts_cluster {
        let has_kubernetes =
            first_run::cache_folder().is_some_and(|cache| first_run::has_kubernetes(&cache));
        eprint!("{}", first_run::cluster_message(has_lab, has_kubernetes));
    } else if !has_lab {
        eprint!("{}", first_run::build_message());
    }
    let error = cargo()
        .args(["run", "--profile", "lab", "--bin", "ferrolb-lab", "--"].map(OsStr::new))
        .args(&args)
        .exec();
    eprintln!("error: cannot run cargo: {error}");
    ExitCode::FAILURE
}

/// Returns the command and its arguments, without `--name` and other flags before the command.
/// Empty if a flag requests a help text.
fn words(args: &[OsString]) -> Vec<&str> {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    if words.iter().any(|word| HELP.contains(word)) {
        return Vec::new();
    }
    let mut is_value = false;
    let is_flag = |word: &&str| {
        let skipped = is_value || word.starts_with('-');
        is_value = *word == "--name";
        skipped
    };
    words.into_iter().skip_while(is_flag).collect()
}

/// Returns whether a command other than [`CLUSTER_COMMANDS`] starts clusters.
fn needs_cluster(words: &[&str]) -> bool {
    match words {
        [command, rest @ ..] => {
            OTHER_COMMANDS.contains(command) && !rest.iter().any(|word| SIMPLE_TIERS.contains(word))
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_need_a_cluster_are_recognized() {
        for (line, command, needs) in [
            ("demo --keep", Some("demo"), false),
            ("--name a up --bgp", Some("up"), false),
            ("--name=a up", Some("up"), false),
            ("test", Some("test"), true),
            ("test peers", Some("test"), true),
            ("test unit", Some("test"), false),
            ("bench failover", Some("bench"), true),
            ("exec client -- demo", Some("exec"), false),
            ("demo --help", None, false),
            ("", None, false),
        ] {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let words = words(&args);
            assert_eq!((words.first().copied(), needs_cluster(&words)), (command, needs), "{line}");
        }
    }
}
