//! The program `ferrolb-speaker`: reads the flags, starts the log, and runs the main loop on the
//! main thread.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ferrolb_runtime::logs;
use ferrolb_speaker::flags::Flags;
use ferrolb_speaker::run::run;
use tracing::error;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match start(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: Flags) -> anyhow::Result<()> {
    logs::init(flags.common.log_format, flags.common.log_level).context("cannot start logging")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(run(flags))
}
