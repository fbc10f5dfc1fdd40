//! Times of `kubectl ferrolb` with ten thousand Services, from the start of the process to its end.
//! Part of the benchmark `scale`. Each time is the median of [`RUNS`] runs.

use super::report::Findings;
use super::stats::Spread;
use super::targets::{self, MeasureSpec};
use crate::Lab;
use anyhow::{Context, Result};

/// Number of runs of each command.
const RUNS: usize = 5;
/// Plan: the first 256 addresses of the pool are removed, so 256 Services get other ones.
const PLAN: &str = "echo '{\"apiVersion\": \"ferrolb.io/v1beta1\", \"kind\": \"IPAddressPool\", \
    \"metadata\": {\"name\": \"bench\", \"namespace\": \"ferrolb-system\"}, \
    \"spec\": {\"addresses\": [\"172.31.1.0-172.31.255.255\", \"fd31::/112\"]}}' \
    | kubectl ferrolb plan -f -";

/// Measures the commands.
///
/// # Errors
/// If a command fails.
pub(super) fn measure(lab: &Lab, findings: &mut Findings) -> Result<()> {
    let commands: [(&'static MeasureSpec, &str); 3] = [
        (&targets::CLI_STATUS, "kubectl ferrolb status"),
        (&targets::CLI_WHY, "kubectl ferrolb why scale-77"),
        (&targets::CLI_PLAN, PLAN),
    ];
    for (spec, command) in commands {
        let script = format!(
            "start=$(date +%s%N)\n{command} >/dev/null\necho $(( ($(date +%s%N) - start) / 1000000 ))"
        );
        let run = |_| -> Result<f64> { Ok(lab.shell(&script)?.trim().parse()?) };
        let samples = (0..RUNS).map(run).collect::<Result<Vec<_>>>()?;
        let spread = Spread::of(&samples).context("no samples")?;
        findings.add(spec, spread.median);
        findings.keep_samples(spec.id, samples);
    }
    Ok(())
}
