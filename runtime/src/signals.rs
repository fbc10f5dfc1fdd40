//! SIGTERM and SIGINT, the requests to terminate, as a future. `main` creates the future once, and
//! the main loop waits for it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Handles SIGTERM and SIGINT from this call on. The future completes with the signal's name when
/// one arrives.
///
/// Must be called inside a tokio runtime. A signal between this call and the first poll is not
/// lost.
///
/// # Errors
/// The kernel rejects a signal handler.
pub fn termination() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[tokio::test]
    async fn a_signal_before_the_wait_is_not_lost() {
        for name in ["SIGTERM", "SIGINT"] {
            let signal = termination().unwrap();
            let kill = format!("kill -{} {}", name.trim_start_matches("SIG"), id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            assert_eq!(signal.await, name);
        }
    }
}
