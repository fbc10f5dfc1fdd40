//! Invalid command lines: the program exits at once with code 2, and the error names the flag.

use crate::scenario::without_other_labs;
use anyhow::{Context, ensure};
use std::process::Command;

#[test]
fn an_invalid_flag_is_named_and_ends_the_program_with_code_2() {
    without_other_labs(|tools| {
        let (controller, speaker) = (&tools.programs.controller, &tools.programs.speaker);
        let cases = [
            (controller, "--namespaces=x", "--namespaces"),
            (controller, "--lease-duration=soon", "--lease-duration"),
            (controller, "--admin-listen=7472x", "--admin-listen"),
            (controller, "--hello-interval=50ms", "--hello-interval"),
            (controller, "--node-failure-endpoints=on", "--node-failure-endpoints"),
            (speaker, "--hello-intervall=50ms", "--hello-intervall"),
            (speaker, "--hello-interval=50", "--hello-interval"),
            (speaker, "--failback-delay=sometimes", "--failback-delay"),
            (speaker, "--exclude-interfaces=(", "--exclude-interfaces"),
            // The flag is valid, but the required node name is missing.
            (speaker, "--log-level=info", "--node-name"),
        ];
        for (program, flag, named) in cases {
            let output = Command::new(program).arg(flag).env_clear().output()?;
            let error = String::from_utf8_lossy(&output.stderr);
            let code = output
                .status
                .code()
                .with_context(|| format!("the program with {flag} was ended by a signal"))?;
            ensure!(
                code == 2 && error.contains(named),
                "{flag}: exit code {code}, and the error is:\n{error}"
            );
        }
        Ok(())
    });
}
