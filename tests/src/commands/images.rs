//! `cargo lab images`: FerroLB's images for both kinds of machine, as archives, and how large they are.

use anyhow::Result;
use ferrolb_tests::setup::images::{self, Arch, Made};
use ferrolb_tests::setup::repository;
use ferrolb_tests::steps::Steps;
use std::fs;
use std::time::Duration;

/// What building all programs for one kind of machine takes on two cores, measured.
const USUAL: Duration = Duration::from_secs(300);
/// What controller and speaker may take together, compressed, in bytes.
const GOAL: u64 = 15_000_000;

/// Makes the images into `target/images`, and prints their sizes.
pub(crate) fn images() -> Result<()> {
    let folder = repository().canonicalize()?.join("target/images");
    fs::create_dir_all(&folder)?;
    let mut steps = Steps::new(2 * Arch::ALL.len());
    for arch in Arch::ALL {
        let title = format!("What builds for {}", arch.name());
        steps.step(&title, Duration::from_secs(10), || images::prepare(arch))?;
        let title = format!("Build the images for {}", arch.name());
        let made = steps.step(&title, USUAL, || images::release(arch, &folder))?;
        made.iter().for_each(|image| println!("{}", line(image)));
        let ours = made.iter().filter(|image| !image.name.contains("gobgpd"));
        let sum = ours.map(|image| image.compressed).sum();
        println!("controller and speaker, {}: {} compressed (goal: {})", arch.name(), megabytes(sum), megabytes(GOAL));
    }
    println!("Load one with `docker load --input FILE`, or on each node with `ctr -n k8s.io images import FILE`.");
    Ok(())
}

fn line(image: &Made) -> String {
    let (program, compressed) = (megabytes(image.program), megabytes(image.compressed));
    let Made { name, arch, archive, .. } = image;
    format!("{name:<26} {:<6} {program:>8}, compressed {compressed:>8}  {}", arch.name(), archive.display())
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_to_a_tenth_of_a_megabyte() {
        for (bytes, said) in [(0, "0.0 MB"), (3_449_999, "3.4 MB"), (15_000_000, "15.0 MB")] {
            assert_eq!(megabytes(bytes), said);
        }
    }
}
