//! Images of a lab's containers, built from programs of this machine and the libraries that they
//! need. No registry is used.

use super::command;
use crate::run;
use crate::setup::images::tree;
use crate::state::LabState;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A container image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerImage {
    /// Image of a container that only provides its network namespace.
    Host,
    Frr,
    Bird,
    Gobgp,
}

/// Users that the programs may switch to, and their groups.
const USERS: [&str; 2] = ["root", "frr"];
const GROUPS: [&str; 3] = ["root", "frr", "frrvty"];
/// Directories that programs write to.
const WRITABLE_FOLDERS: [&str; 6] = ["etc", "run/frr", "run/bird", "tmp", "usr/bin", "var/tmp"];
/// Programs of GoBGP; they have no dependencies.
const GOBGP: [&str; 2] = ["gobgpd", "gobgp"];
/// Files that vtysh reads first: one configuration for all daemons, and access for every user in
/// the container.
const VTYSH_FILES: [(&str, &str); 2] = [
    ("etc/frr/vtysh.conf", "service integrated-vtysh-config\n"),
    ("etc/pam.d/frr", "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n"),
];
/// PAM module that `etc/pam.d/frr` refers to, and its package.
const PAM_MODULE: (&str, &str) = ("/pam_permit.so", "libpam-modules");

impl ContainerImage {
    pub const ALL: [Self; 4] = [Self::Host, Self::Frr, Self::Bird, Self::Gobgp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::Gobgp => "gobgp",
        }
    }

    /// Returns the Debian programs of the image.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Host => &["/bin/sleep"],
            Self::Frr => &[
                "/usr/lib/frr/zebra",
                "/usr/lib/frr/bfdd",
                "/usr/lib/frr/bgpd",
                "/usr/bin/vtysh",
                "/bin/sh",
                "/bin/sleep",
                "/bin/chown",
            ],
            Self::Bird => &["/usr/sbin/bird", "/usr/sbin/birdc"],
            Self::Gobgp => &[],
        }
    }

    /// Creates the image in the lab's engine. The GoBGP image contains the programs of the
    /// directory `gobgp`.
    ///
    /// # Errors
    /// If a program does not exist, or the engine rejects the image.
    pub(super) fn build(self, state: &LabState, gobgp: &Path) -> Result<()> {
        let tree = state.file("docker").join(self.name());
        WRITABLE_FOLDERS.iter().try_for_each(|folder| fs::create_dir_all(tree.join(folder)))?;
        symlink("../run", tree.join("var/run"))?;
        fs::write(tree.join("etc/passwd"), database_lines("passwd", &USERS)?)?;
        fs::write(tree.join("etc/group"), database_lines("group", &GROUPS)?)?;
        match self {
            Self::Frr => add_vtysh_files(&tree)?,
            Self::Gobgp => GOBGP.iter().try_for_each(|name| {
                let copied = fs::copy(gobgp.join(name), tree.join("usr/bin").join(name));
                copied.map(drop).with_context(|| format!("no {name} in {}", gobgp.display()))
            })?,
            Self::Host | Self::Bird => {}
        }
        tree::copy_programs(&tree, Path::new("/"), self.programs())?;
        let archive = tree.with_extension("tar");
        run::run(
            Command::new("tar")
                .arg("--create")
                .arg("--file")
                .arg(&archive)
                .arg("--directory")
                .arg(&tree)
                .arg("."),
        )?;
        run::run(command(state).arg("import").arg(&archive).arg(self.name()))?;
        fs::remove_dir_all(&tree)?;
        Ok(fs::remove_file(archive)?)
    }
}

fn add_vtysh_files(tree: &Path) -> Result<()> {
    for (file, text) in VTYSH_FILES {
        fs::create_dir_all(tree.join(file).parent().context("the file has no parent directory")?)?;
        fs::write(tree.join(file), text)?;
    }
    let listed = run::run(Command::new("dpkg").args(["--listfiles", PAM_MODULE.1]))?;
    tree::copy(
        tree,
        Path::new("/"),
        &listed
            .lines()
            .filter(|file| file.ends_with(PAM_MODULE.0))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    )
}

/// Returns lines of one of the machine's own user databases.
fn database_lines(database: &str, names: &[&str]) -> Result<String> {
    run::run(Command::new("getent").arg(database).args(names))
}
