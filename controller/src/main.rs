//! `ferrolb-controller`: reads its flags, makes what [`ferrolb_controller::run`] needs, and runs it on one thread.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ferrolb_controller::flags::Flags;
use ferrolb_controller::metrics::Metrics;
use ferrolb_controller::run::{Shell, run};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::connect::connect;
use ferrolb_runtime::vitals::Vitals;
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let leave = signals::termination().context("cannot take signals")?;
        let mut registry = admin::registry();
        let health = ApiHealth::new(&mut registry);
        let metrics = Metrics::new(&mut registry);
        let client = connect(&health).await?;
        let vitals = Arc::new(Vitals::new(Clock::now()));
        let (server, state_requests) = admin::serve(flags.common.listen(), registry, Arc::clone(&vitals), None, None);
        let ended = run(flags, Shell { client, health, vitals, metrics, state_requests }, leave).await;
        drop(server);
        ended
    })
}
