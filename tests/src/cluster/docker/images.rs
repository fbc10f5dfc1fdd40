//! The images of a lab's containers, made of the programs on this machine with the libraries that they need, and of nothing else: no registry is asked.

use super::command;
use crate::run;
use crate::setup::images::tree;
use crate::state::State;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// An image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// What is there for its network namespace alone.
    Host,
    Frr,
    Bird,
    Gobgp,
}

/// Whom the programs may become, and the groups of these.
const USERS: [&str; 2] = ["root", "frr"];
const GROUPS: [&str; 3] = ["root", "frr", "frrvty"];
/// The folders that some program writes to.
const FOLDERS: [&str; 6] = ["etc", "run/frr", "run/bird", "tmp", "usr/bin", "var/tmp"];
/// GoBGP's programs, which need nothing else.
const GOBGP: [&str; 2] = ["gobgpd", "gobgp"];
/// What vtysh reads before it does anything: that there is one configuration for all daemons, and that whoever is in here may use it.
const VTYSH: [(&str, &str); 2] = [
    ("etc/frr/vtysh.conf", "service integrated-vtysh-config\n"),
    ("etc/pam.d/frr", "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n"),
];
/// The module that the second of these names, and the package that has it.
const PAM: (&str, &str) = ("/pam_permit.so", "libpam-modules");

impl Image {
    pub const ALL: [Self; 4] = [Self::Host, Self::Frr, Self::Bird, Self::Gobgp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::Gobgp => "gobgp",
        }
    }

    /// Programs of Debian.
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

    /// Makes it in the lab's engine; GoBGP of the programs in the folder `gobgp`.
    ///
    /// # Errors
    /// When a program is not there, or the engine does not take it.
    pub(super) fn make(self, state: &State, gobgp: &Path) -> Result<()> {
        let tree = state.file("docker").join(self.name());
        FOLDERS.iter().try_for_each(|folder| fs::create_dir_all(tree.join(folder)))?;
        symlink("../run", tree.join("var/run"))?;
        fs::write(tree.join("etc/passwd"), entries("passwd", &USERS)?)?;
        fs::write(tree.join("etc/group"), entries("group", &GROUPS)?)?;
        match self {
            Self::Frr => furnish_vtysh(&tree)?,
            Self::Gobgp => GOBGP.iter().try_for_each(|name| {
                let copied = fs::copy(gobgp.join(name), tree.join("usr/bin").join(name));
                copied.map(drop).with_context(|| format!("no {name} in {}", gobgp.display()))
            })?,
            Self::Host | Self::Bird => {}
        }
        tree::furnish(&tree, Path::new("/"), self.programs())?;
        let archive = tree.with_extension("tar");
        run::run(
            Command::new("tar").arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&tree).arg("."),
        )?;
        run::run(command(state).arg("import").arg(&archive).arg(self.name()))?;
        fs::remove_dir_all(&tree)?;
        Ok(fs::remove_file(archive)?)
    }
}

fn furnish_vtysh(tree: &Path) -> Result<()> {
    for (file, text) in VTYSH {
        fs::create_dir_all(tree.join(file).parent().context("a file in a folder")?)?;
        fs::write(tree.join(file), text)?;
    }
    let listed = run::run(Command::new("dpkg").args(["--listfiles", PAM.1]))?;
    tree::copy(
        tree,
        Path::new("/"),
        &listed.lines().filter(|file| file.ends_with(PAM.0)).map(str::to_owned).collect::<Vec<_>>(),
    )
}

/// Lines of one of the machine's own user databases.
fn entries(database: &str, names: &[&str]) -> Result<String> {
    run::run(Command::new("getent").arg(database).args(names))
}
