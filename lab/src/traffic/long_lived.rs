//! One long-lived connection: effect of an outage on a client that was already connected.

use crate::wait;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Request that makes a pod's server echo all further bytes.
pub const ECHO_REQUEST: &[u8] = b"GET /stay ";
/// Interval in which the client sends a byte.
const SEND_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum time to establish the connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection without a reply for this long at the end counts as stalled.
const STALL_MIN: Duration = Duration::from_secs(1);

/// Outcome of a long-lived connection. Times are milliseconds since the last reply, or between two
/// replies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum ConnectionOutcome {
    /// The connection worked until the end of the probe; with the longest time without a reply.
    Survived { silence_ms: f64 },
    /// The client received a reset, or another error of the connection.
    Reset { after_ms: f64 },
    /// The server closed the connection in order, which no pod does by itself.
    Closed { after_ms: f64 },
    /// The connection existed until the end of the probe, but without replies in the last second or
    /// longer.
    Stalled { silence_ms: f64 },
}

/// Connects to `server` and exchanges bytes, for `length` or until `stop` is set.
///
/// # Errors
/// If the connection is not established in time: no fault can have happened yet.
pub async fn run(
    server: SocketAddr,
    length: Duration,
    stop: &AtomicBool,
) -> Result<ConnectionOutcome> {
    let connected = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(server)).await;
    let mut connection = connected
        .context("the connection was not established in time")?
        .context("cannot connect")?;
    connection.set_nodelay(true)?;
    connection.write_all(&[ECHO_REQUEST, b"HTTP/1.0\r\n\r\n"].concat()).await?;
    let (mut from, to) = connection.split();
    let (start, mut ticks, mut buffer) =
        (wait::now(), tokio::time::interval(SEND_INTERVAL), [0; 1024]);
    let (mut last_reply, mut silence) = (start, Duration::ZERO);
    while start.elapsed() < length && !stop.load(Ordering::Relaxed) {
        let broken = tokio::select! {
            // This order makes bytes that arrive together with the tick count as a reply in time.
            biased;
            read = from.read(&mut buffer) => match read {
                Ok(0) => return Ok(ConnectionOutcome::Closed { after_ms: ms(last_reply.elapsed()) }),
                Ok(_) => {
                    silence = silence.max(last_reply.elapsed());
                    last_reply = wait::now();
                    None
                }
                Err(error) => Some(error),
            },
            _ = ticks.tick() => to.try_write(b".").err().filter(|error| error.kind() != std::io::ErrorKind::WouldBlock),
        };
        if broken.is_some() {
            return Ok(ConnectionOutcome::Reset { after_ms: ms(last_reply.elapsed()) });
        }
    }
    Ok(outcome_at_end(last_reply, silence))
}

/// Returns the outcome of a connection that exists at the end of the probe.
fn outcome_at_end(last_reply: Instant, silence: Duration) -> ConnectionOutcome {
    let now = last_reply.elapsed();
    if now >= STALL_MIN {
        return ConnectionOutcome::Stalled { silence_ms: ms(now) };
    }
    ConnectionOutcome::Survived { silence_ms: ms(silence.max(now)) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl ConnectionOutcome {
    /// Returns the description of the outcome and its time, in milliseconds.
    const fn description(self) -> (&'static str, f64) {
        match self {
            Self::Survived { silence_ms } => ("survived, longest silence", silence_ms),
            Self::Reset { after_ms } => ("reset after", after_ms),
            Self::Closed { after_ms } => ("closed after", after_ms),
            Self::Stalled { silence_ms } => ("stalled to the end for", silence_ms),
        }
    }
}

/// Formats the outcomes of several connections for people.
pub fn describe(outcomes: &[ConnectionOutcome]) -> String {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (description, ms) in outcomes.iter().map(|outcome| outcome.description()) {
        kinds.entry(description).or_default().push(ms / 1000.0);
    }
    let parts = kinds.into_iter().filter_map(|(description, mut times)| {
        times.sort_by(f64::total_cmp);
        let (first, last) = (times.first()?, times.last()?);
        let range = if times.len() == 1 {
            format!("{first:.2} s")
        } else {
            format!("{first:.2} to {last:.2} s")
        };
        Some(format!("{} of {} {description} {range}", times.len(), outcomes.len()))
    });
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Returns the outcome of a connection whose server runs `server_end`.
    fn outcome_with<F: Future<Output = ()>>(
        length: Duration,
        server_end: impl FnOnce(TcpStream) -> F,
    ) -> ConnectionOutcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let server = listener.local_addr().unwrap();
            let accepted = async { server_end(listener.accept().await.unwrap().0).await };
            let stop = AtomicBool::new(false);
            tokio::join!(run(server, length, &stop), accepted).0.unwrap()
        })
    }

    async fn echo_once(connection: &mut TcpStream) {
        let mut buffer = [0; 1024];
        for _ in 0..2 {
            let read = connection.read(&mut buffer).await.unwrap();
            connection.write_all(&buffer[..read]).await.unwrap();
        }
    }

    #[test]
    fn every_connection_outcome_is_detected() {
        let (short, long) = (Duration::from_millis(200), STALL_MIN + Duration::from_millis(300));
        let survived = outcome_with(short, async |mut connection| {
            let (mut from, mut to) = connection.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        assert!(matches!(survived, ConnectionOutcome::Survived { .. }), "{survived:?}");
        let reset = outcome_with(short, async |mut connection| {
            echo_once(&mut connection).await;
            connection.set_zero_linger().unwrap();
        });
        assert!(matches!(reset, ConnectionOutcome::Reset { .. }), "{reset:?}");
        let closed = outcome_with(short, async |mut connection| {
            echo_once(&mut connection).await;
            connection.shutdown().await.unwrap();
            let _ = connection.read(&mut [0; 1024]).await;
        });
        assert!(matches!(closed, ConnectionOutcome::Closed { .. }), "{closed:?}");
        let stalled = outcome_with(long, async |mut connection| {
            echo_once(&mut connection).await;
            tokio::time::sleep(long * 2).await;
        });
        assert!(
            matches!(stalled, ConnectionOutcome::Stalled { silence_ms } if silence_ms >= 1000.0),
            "{stalled:?}"
        );
    }

    #[test]
    fn outcomes_are_counted_by_kind() {
        let reset = |after_ms| ConnectionOutcome::Reset { after_ms };
        let survived = ConnectionOutcome::Survived { silence_ms: 21.0 };
        for (outcomes, expect) in [
            (&[reset(400.0)][..], "1 of 1 reset after 0.40 s"),
            (
                &[reset(400.0), survived, reset(210.0)],
                "2 of 3 reset after 0.21 to 0.40 s; 1 of 3 survived, longest silence 0.02 s",
            ),
        ] {
            assert_eq!(describe(outcomes), expect);
        }
    }
}
