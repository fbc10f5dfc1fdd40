//! `cargo lab images`: builds FerroLB's images for both architectures as archives, and prints their
//! sizes.

use anyhow::Result;
use ferrolb_lab::setup::images::{self, Arch, BuiltImage};
use ferrolb_lab::setup::repository;
use ferrolb_lab::steps::Steps;
use std::fs;
use std::time::Duration;

/// Measured time to build all programs for one architecture, on two cores.
const BUILD_USUAL_TIME: Duration = Duration::from_secs(300);
/// Target for the compressed size of controller and speaker together, in bytes.
const SIZE_TARGET: u64 = 15_000_000;

/// Writes the images into `target/images`, and prints their sizes.
pub(crate) fn images() -> Result<()> {
    let folder = repository().canonicalize()?.join("target/images");
    fs::create_dir_all(&folder)?;
    let mut steps = Steps::new(2 * Arch::ALL.len());
    for arch in Arch::ALL {
        let title = format!("Toolchain for {}", arch.name());
        steps.step(&title, Duration::from_secs(10), || images::prepare(arch))?;
        let title = format!("Build the images for {}", arch.name());
        let built = steps.step(&title, BUILD_USUAL_TIME, || {
            let programs = images::programs(arch, "release")?;
            programs.iter().map(|program| program.archive(&folder)).collect::<Result<Vec<_>>>()
        })?;
        built.iter().for_each(|image| println!("{}", line(image)));
        let ferrolb = built.iter().filter(|image| !image.name.contains("gobgpd"));
        let sum = ferrolb.map(|image| image.compressed as u64).sum();
        println!(
            "controller and speaker, {}: {} compressed (target: {})",
            arch.name(),
            megabytes(sum),
            megabytes(SIZE_TARGET)
        );
    }
    println!(
        "Load one with `docker load --input FILE`, or on each node with `ctr -n k8s.io images import FILE`."
    );
    Ok(())
}

fn line(image: &BuiltImage) -> String {
    let (program, compressed) = (megabytes(image.program), megabytes(image.compressed as u64));
    let BuiltImage { name, arch, archive, .. } = image;
    format!(
        "{name:<26} {:<6} {program:>8}, compressed {compressed:>8}  {}",
        arch.name(),
        archive.display()
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_formatted_with_one_decimal() {
        for (bytes, expect) in [(0, "0.0 MB"), (3_449_999, "3.4 MB"), (15_000_000, "15.0 MB")] {
            assert_eq!(megabytes(bytes), expect);
        }
    }
}
