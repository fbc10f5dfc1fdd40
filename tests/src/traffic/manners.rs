//! How a pod's server answers: well, or in one of the ways in which a server can be broken, by the path that is asked for.

use super::lasting;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How long a connection may stay that asks for it, or that is answered badly.
pub(super) const STAY_MAX: Duration = Duration::from_secs(120);
/// What has the form of no protocol.
const GARBAGE: [u8; 1024] = [0xFB; 1024];
/// What an answer without end repeats.
const ENDLESS: [u8; 16 << 10] = [b'x'; 16 << 10];

/// A manner of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The page.
    Page,
    /// All that comes, back.
    Echo,
    /// Nothing, ever.
    Silent,
    /// Bytes that are no HTTP.
    Garbage,
    /// A head, and a body without end.
    Endless,
}

impl Manner {
    /// What a request's head asks for.
    pub(super) fn asked(head: &[u8]) -> Self {
        let asks = |start: &[u8]| head.starts_with(start);
        match () {
            () if asks(lasting::REQUEST) => Self::Echo,
            () if asks(b"GET /silent ") => Self::Silent,
            () if asks(b"GET /garbage ") => Self::Garbage,
            () if asks(b"GET /endless ") => Self::Endless,
            () => Self::Page,
        }
    }
}

/// Sends bytes that are no HTTP.
pub(super) async fn garbage(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    to.write_all(&GARBAGE).await?;
    to.shutdown().await
}

/// Sends a page that takes no end, until the client has had enough.
pub(super) async fn endless(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    to.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n").await?;
    loop {
        to.write_all(&ENDLESS).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_the_manner() {
        for (head, expect) in [
            ("GET / HTTP/1.0\r\n\r\n", Manner::Page),
            ("GET /stay HTTP/1.0\r\n\r\n", Manner::Echo),
            ("GET /silent HTTP/1.1\r\n\r\n", Manner::Silent),
            ("GET /garbage HTTP/1.1\r\n\r\n", Manner::Garbage),
            ("GET /endless HTTP/1.1\r\n\r\n", Manner::Endless),
            ("GET /silently HTTP/1.1\r\n\r\n", Manner::Page),
            ("", Manner::Page),
        ] {
            assert_eq!(Manner::asked(head.as_bytes()), expect, "{head:?}");
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
            let (buffer, ended) = tokio::join!(read, endless(&mut server));
            assert!(buffer.starts_with(b"HTTP/1.0 200 OK\r\n") && buffer.ends_with(b"xx"));
            assert!(ended.is_err());
        });
    }
}
