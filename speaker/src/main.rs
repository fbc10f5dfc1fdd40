//! The program `ferrolb-speaker`: reads the flags, starts the log, and runs the main loop on this one thread.

use clap::Parser;
use ferrolb_runtime::logs;
use ferrolb_speaker::flags::Flags;
use ferrolb_speaker::run::run;

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    logs::init(flags.common.log_format, flags.common.log_level)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(flags))
}
