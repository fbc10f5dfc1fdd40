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
