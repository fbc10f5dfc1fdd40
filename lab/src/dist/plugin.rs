//! `kubectl ferrolb` for the systems of users, in archives that krew's manifest names.

use super::{licenses, pack};
use crate::setup::images::Arch;
use crate::setup::repository;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// File with FerroLB's license.
const LICENSE: &str = "LICENSE";

/// A system and an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    system: System,
    arch: Arch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Linux,
    Windows,
    MacOs,
}

impl Platform {
    pub const ALL: [Self; 6] = [
        Self { system: System::Linux, arch: Arch::Amd64 },
        Self { system: System::Linux, arch: Arch::Arm64 },
        Self { system: System::Windows, arch: Arch::Amd64 },
        Self { system: System::Windows, arch: Arch::Arm64 },
        Self { system: System::MacOs, arch: Arch::Amd64 },
        Self { system: System::MacOs, arch: Arch::Arm64 },
    ];

    /// Returns the name of the platform, such as `linux_amd64`.
    pub fn name(self) -> String {
        let system = match self.system {
            System::Linux => "linux",
            System::Windows => "windows",
            System::MacOs => "darwin",
        };
        format!("{system}_{}", self.arch.name())
    }

    /// Returns Rust's target. On Windows, it is the one whose programs need no further library.
    pub const fn target(self) -> &'static str {
        match (self.system, self.arch) {
            (System::Linux, arch) => arch.target(),
            (System::Windows, Arch::Amd64) => "x86_64-pc-windows-gnullvm",
            (System::Windows, Arch::Arm64) => "aarch64-pc-windows-gnullvm",
            (System::MacOs, Arch::Amd64) => "x86_64-apple-darwin",
            (System::MacOs, Arch::Arm64) => "aarch64-apple-darwin",
        }
    }
}

/// Packs `kubectl-ferrolb` for a platform into `folder`, with its license and those of its
/// dependencies, which `folder` has.
///
/// # Errors
/// If a file cannot be written.
pub fn write(program: &Path, platform: Platform, folder: &Path) -> Result<()> {
    let (version, tree) = (env!("CARGO_PKG_VERSION"), folder.join("tree"));
    fs::create_dir_all(&tree)?;
    let program_name = match platform.system {
        System::Linux | System::MacOs => "kubectl-ferrolb",
        System::Windows => "kubectl-ferrolb.exe",
    };
    fs::copy(repository().join(LICENSE), tree.join(LICENSE))?;
    for file in licenses::FILES {
        fs::copy(folder.join(file), tree.join(file))?;
    }
    fs::copy(program, tree.join(program_name))?;
    let names = [&[LICENSE], &licenses::FILES[..], &[program_name]].concat();
    let file = format!("kubectl-ferrolb_v{version}_{}.tar.gz", platform.name());
    pack(&tree, &names, &folder.join(file)).map(drop)
}
