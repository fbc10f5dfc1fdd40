//! The web server in a lab's pod. Every request is answered by one line: the pod's name and the client's address.

use anyhow::{Context, Result};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Most connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may take over its request.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// The largest request head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Serves both address families on `port` until killed.
///
/// # Errors
/// When the port is taken.
pub async fn serve(name: &str, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .await
        .with_context(|| format!("cannot serve on port {port}"))?;
    let mut connections = JoinSet::new();
    loop {
        let (connection, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // One client's connection failed, or files ran out for a moment.
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let page = page(name, client);
        connections.spawn(async move { tokio::time::timeout(REQUEST_MAX, answer(connection, &page)).await });
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
    }
}

async fn answer(mut connection: TcpStream, page: &str) -> std::io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match connection.read(&mut buffer).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    connection.write_all(page.as_bytes()).await?;
    connection.shutdown().await
}

fn page(name: &str, client: SocketAddr) -> String {
    let body = format!("{name} {}\n", client.ip().to_canonical());
    format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_pod_and_the_client_in_its_own_family() {
        for (client, expect) in
            [("[::ffff:172.30.0.100]:5", "web 172.30.0.100\n"), ("[fd30::100]:5", "web fd30::100\n")]
        {
            let page = page("web", client.parse().unwrap());
            assert!(
                page.ends_with(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n{expect}", expect.len())),
                "{page}"
            );
        }
    }
}
