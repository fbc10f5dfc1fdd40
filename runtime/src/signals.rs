//! SIGTERM and SIGINT as a future: the request to leave. `main` makes it once and waits on it in its loop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Takes over SIGTERM and SIGINT from here on; the future completes with the signal's name when one arrives.
///
/// Called inside a tokio runtime. A signal between this call and the first poll is not lost.
///
/// # Errors
/// When the kernel refuses a handler.
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
    async fn a_signal_that_came_before_the_wait_is_not_lost() {
        for name in ["SIGTERM", "SIGINT"] {
            let leave = termination().unwrap();
            let kill = format!("kill -{} {}", name.trim_start_matches("SIG"), id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            assert_eq!(leave.await, name);
        }
    }
}
