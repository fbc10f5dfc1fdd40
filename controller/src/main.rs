//! `ferrolb-controller`: reads its flags, creates the inputs of the main loop in
//! [`ferrolb_controller::run`], and runs the main loop on one thread.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ferrolb_controller::flags::Flags;
use ferrolb_controller::metrics::Metrics;
use ferrolb_controller::run::{Inputs, run};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::connect::connect;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_runtime::{admin, logs, signals};
use tracing::error;

fn main() -> ExitCode {
    let flags = Flags::read();
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
    runtime.block_on(async {
        let leave = signals::termination().context("cannot handle signals")?;
        let mut registry = admin::registry();
        let health = ApiHealth::new(&mut registry);
        let metrics = Metrics::new(&mut registry);
        let client = connect(&health).await?;
        let watchdog = Arc::new(Watchdog::new(Clock::now()));
        let (server, state_requests) =
            admin::serve(flags.common.listen(), registry, Arc::clone(&watchdog), None, None);
        let ended =
            run(flags, Inputs { client, health, watchdog, metrics, state_requests }, leave).await;
        drop(server);
        ended
    })
}
