//! `cargo lab`: states how long a first run takes, then lets cargo build the lab's program and
//! replaces itself with it. This crate has no dependencies, so it runs before any long build.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ferrolb_lab_launcher::cargo;

/// Commands that start a cluster.
const CLUSTER_COMMANDS: [&str; 2] = ["demo", "up"];
/// Message before the first run of these commands. The times are measured on two cores.
const FIRST_CLUSTER: &str = "\
First run: about 11 minutes on two cores. The next runs take less than a minute.
  3 min 30 s  build the lab's program (cargo shows its progress now)
  5 min 30 s  build Kubernetes
  2 min       build FerroLB, and start the cluster
Requirements: root, Go 1.26 or newer, 8 GB of disk space.
";
/// Message before the first run of any other command.
const FIRST_BUILD: &str = "\
First run: cargo builds the lab's program now, which takes 3 to 4 minutes on two cores.
";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if !program().exists() {
        let has_cluster =
            args.iter().any(|arg| CLUSTER_COMMANDS.iter().any(|command| arg == command));
        eprint!("{}", if has_cluster { FIRST_CLUSTER } else { FIRST_BUILD });
    }
    let error = cargo()
        .args(["run", "--profile", "lab", "--bin", "ferrolb-lab", "--"].map(OsStr::new))
        .args(&args)
        .exec();
    eprintln!("error: cannot run cargo: {error}");
    ExitCode::FAILURE
}

/// Returns the path of the lab's program, which exists after its first build.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("lab/ferrolb-lab")
}
