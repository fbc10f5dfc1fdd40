//! Files of an image that consists of a Debian system's programs, each with the libraries that it
//! loads.

use crate::run;
use anyhow::Result;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Program of iptables with nftables, and the names under which it runs.
const XTABLES: &str = "xtables-nft-multi";
const IPTABLES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

/// Copies programs of the system under `root`, and the libraries that they load, to the same paths
/// below `tree`. An image can have none of them.
///
/// # Errors
/// If a program does not exist.
pub fn copy_programs(tree: &Path, root: &Path, programs: &[&str]) -> Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    let mut ldd = Command::new("chroot");
    let mut files = parse_ldd(&run::run(ldd.arg(root).arg("ldd").args(programs))?);
    files.extend(programs.iter().map(|&program| program.to_owned()));
    files.sort();
    files.dedup();
    copy(tree, root, &files)
}

/// Copies iptables of the system under `root` like [`copy_programs`], with all extensions.
///
/// # Errors
/// If iptables is not installed.
pub fn copy_iptables(tree: &Path, root: &Path) -> Result<()> {
    let extensions = format!("/usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
    let mut programs = vec![format!("/usr/sbin/{XTABLES}")];
    for extension in fs::read_dir(root.join(extensions.trim_start_matches('/')))? {
        programs.push(format!("{extensions}/{}", extension?.file_name().display()));
    }
    copy_programs(tree, root, &programs.iter().map(String::as_str).collect::<Vec<_>>())?;
    // Debian's own links lead out of `root`.
    Ok(IPTABLES.iter().try_for_each(|name| symlink(XTABLES, tree.join("usr/sbin").join(name)))?)
}

/// Copies files of the system under `root` to the same paths below `tree`.
///
/// # Errors
/// If a file does not exist.
pub fn copy(tree: &Path, root: &Path, files: &[String]) -> Result<()> {
    let inside = files.iter().map(|file| format!(".{file}"));
    run::run(
        Command::new("cp")
            .current_dir(root)
            .args(["--dereference", "--parents"])
            .args(inside)
            .arg(tree),
    )
    .map(drop)
}

/// Parses the files in the output of `ldd`: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`,
/// or the loader's path alone. The kernel's vDSO has no path. The output about several programs has
/// a line `PROGRAM:` for each.
fn parse_ldd(ldd_output: &str) -> Vec<String> {
    let words = ldd_output.split_whitespace();
    let libraries = words.filter(|word| word.starts_with('/') && !word.ends_with(':'));
    libraries.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_parsed_from_the_output_of_ldd() {
        let ldd_output = "/bin/sh:\n\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1b)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c)\n";
        assert_eq!(
            parse_ldd(ldd_output),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
