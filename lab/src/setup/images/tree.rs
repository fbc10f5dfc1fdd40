//! Files of an image that consists of a Debian system's programs, each with the libraries that it
//! loads.

use crate::run;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Copies programs of the system under `root`, and the libraries that they load, to the same paths
/// below `tree`.
///
/// # Errors
/// If a program does not exist.
pub fn copy_programs(tree: &Path, root: &Path, programs: &[&str]) -> Result<()> {
    programs.iter().try_for_each(|program| {
        copy(
            tree,
            root,
            &parse_ldd(&run::run(Command::new("chroot").arg(root).args(["ldd", program]))?),
        )?;
        copy(tree, root, &[(*program).to_owned()])
    })
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
/// or the loader's path alone. The kernel's vDSO has no path.
fn parse_ldd(ldd_output: &str) -> Vec<String> {
    ldd_output.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_parsed_from_the_output_of_ldd() {
        let ldd_output = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1b)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c)\n";
        assert_eq!(
            parse_ldd(ldd_output),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
