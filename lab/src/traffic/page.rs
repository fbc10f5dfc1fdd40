//! Client for one page by HTTP/1.0 over a new TCP connection; the lab needs no other HTTP features.

use anyhow::{Context, Result, anyhow, bail};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Maximum size of a page, in bytes.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// A received page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub body: String,
}

impl Page {
    /// Returns the pod that served the page, if it is a pod's page.
    pub fn pod(self) -> Option<String> {
        (self.status == 200)
            .then(|| self.body.split_whitespace().next().unwrap_or_default().to_owned())
    }
}

/// Fetches `path` from `server` within `limit`.
///
/// # Errors
/// If there is no connection, no reply in time, or a reply that is not HTTP.
pub async fn fetch(server: SocketAddr, path: &str, limit: Duration) -> Result<Page> {
    tokio::time::timeout(limit, fetch_unbounded(server, path))
        .await
        .map_err(|_| anyhow!("no page from {server} within {limit:?}"))?
        .with_context(|| format!("no page from {server}"))
}

async fn fetch_unbounded(server: SocketAddr, path: &str) -> Result<Page> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut response = Vec::new();
    connection.take(PAGE_BYTES_MAX).read_to_end(&mut response).await?;
    parse(&String::from_utf8_lossy(&response))
}

/// Parses status and body of a reply (RFC 9112 section 4).
fn parse(response: &str) -> Result<Page> {
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        bail!("the reply ends before its head is complete")
    };
    let mut words = head.split_whitespace();
    match (words.next(), words.next().map(str::parse)) {
        (Some(protocol), Some(Ok(status))) if protocol.starts_with("HTTP/1.") => {
            Ok(Page { status, body: body.to_owned() })
        }
        (_, _) => bail!("the reply is not HTTP: {}", head.lines().next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_parsed_and_invalid_ones_rejected() {
        let page = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb").unwrap();
        assert_eq!(page, Page { status: 200, body: "web".to_owned() });
        for invalid in ["", "HTTP/1.0 200 OK\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.0 ok\r\n\r\n"] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }
}
