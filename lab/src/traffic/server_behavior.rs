//! Behaviors of a pod's server: a correct page, or one of several faults, selected by the requested
//! path.

use super::long_lived;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Maximum duration of a connection that requests the echo, or that gets a faulty reply.
pub(super) const STAY_MAX: Duration = Duration::from_secs(120);
/// Bytes that match no protocol.
const GARBAGE: [u8; 1024] = [0xFB; 1024];
/// Repeated part of an endless reply.
const ENDLESS: [u8; 16 << 10] = [b'x'; 16 << 10];

/// Behavior of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerBehavior {
    /// Sends the page.
    Page,
    /// Sends back all received bytes.
    Echo,
    /// Never sends anything.
    Silent,
    /// Sends bytes that are not HTTP.
    Garbage,
    /// Sends a head, and an endless body.
    Endless,
}

impl ServerBehavior {
    /// Returns the behavior that a request's head selects.
    pub(super) fn from_request(head: &[u8]) -> Self {
        let begins_with = |start: &[u8]| head.starts_with(start);
        match () {
            () if begins_with(long_lived::ECHO_REQUEST) => Self::Echo,
            () if begins_with(b"GET /silent ") => Self::Silent,
            () if begins_with(b"GET /garbage ") => Self::Garbage,
            () if begins_with(b"GET /endless ") => Self::Endless,
            () => Self::Page,
        }
    }
}

/// Sends bytes that are not HTTP.
pub(super) async fn send_garbage(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    to.write_all(&GARBAGE).await?;
    to.shutdown().await
}

/// Sends an endless page until the client closes the connection.
pub(super) async fn send_endless_page(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    to.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n").await?;
    loop {
        to.write_all(&ENDLESS).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_selects_the_behavior() {
        for (head, expect) in [
            ("GET / HTTP/1.0\r\n\r\n", ServerBehavior::Page),
            ("GET /stay HTTP/1.0\r\n\r\n", ServerBehavior::Echo),
            ("GET /silent HTTP/1.1\r\n\r\n", ServerBehavior::Silent),
            ("GET /garbage HTTP/1.1\r\n\r\n", ServerBehavior::Garbage),
            ("GET /endless HTTP/1.1\r\n\r\n", ServerBehavior::Endless),
            ("GET /silently HTTP/1.1\r\n\r\n", ServerBehavior::Page),
            ("", ServerBehavior::Page),
        ] {
            assert_eq!(ServerBehavior::from_request(head.as_bytes()), expect, "{head:?}");
        }
    }

    #[test]
    fn an_endless_page_ends_with_its_client() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut server) = tokio::io::duplex(1024);
            let read = async {
                let mut buffer = [0; 64 << 10];
                tokio::io::AsyncReadExt::read_exact(&mut client, &mut buffer).await.unwrap();
                drop(client);
                buffer
            };
            let (buffer, ended) = tokio::join!(read, send_endless_page(&mut server));
            assert!(buffer.starts_with(b"HTTP/1.0 200 OK\r\n") && buffer.ends_with(b"xx"));
            assert!(ended.is_err());
        });
    }
}
