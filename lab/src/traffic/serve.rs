//! Server in a lab's pod.
//!
//! A page has one line: the pod's name and the client's address. Some requests select an echo or a
//! faulty reply instead. The server also replies to datagrams ([`super::long_lived`],
//! [`super::server_behavior`], [`super::datagram`]).

use super::datagram;
use super::server_behavior::{self, STAY_MAX, ServerBehavior};
use anyhow::{Context, Result};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Maximum number of concurrent connections; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// Maximum time for a client to send its request.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Maximum size of a request head, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Serves both address families on `port`, TCP and UDP, until SIGTERM. The server handles the
/// signal itself, because the first process of a container gets no default handler.
///
/// # Errors
/// If the port is in use.
pub async fn serve(name: &str, port: u16) -> Result<()> {
    let address = (Ipv6Addr::UNSPECIFIED, port);
    let context = || format!("cannot serve on port {port}");
    let socket = UdpSocket::bind(address).await.with_context(context)?;
    let listener = TcpListener::bind(address).await.with_context(context)?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = datagram::serve(&socket, name) => done,
        done = serve_pages(&listener, name) => done,
        _ = terminate.recv() => Ok(()),
    }
}

async fn serve_pages(listener: &TcpListener, name: &str) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (connection, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // One client's connection failed, or file descriptors were temporarily exhausted.
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let page = page(name, client);
        connections.spawn(serve_connection(connection, page));
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
    }
}

/// Serves one connection to its end. An error is ignored, because it only concerns this connection.
async fn serve_connection(mut connection: TcpStream, page: String) {
    let Ok(Ok(head)) = tokio::time::timeout(REQUEST_MAX, read_head(&mut connection)).await else {
        return;
    };
    let behavior = ServerBehavior::from_request(&head);
    let limit = if behavior == ServerBehavior::Page { REQUEST_MAX } else { STAY_MAX };
    let _ = tokio::time::timeout(limit, async {
        match behavior {
            ServerBehavior::Page => {
                connection.write_all(page.as_bytes()).await?;
                connection.shutdown().await
            }
            ServerBehavior::Echo => echo(&mut connection).await,
            ServerBehavior::Silent => std::future::pending().await,
            ServerBehavior::Garbage => server_behavior::send_garbage(&mut connection).await,
            ServerBehavior::Endless => server_behavior::send_endless_page(&mut connection).await,
        }
    })
    .await;
}

/// Reads the request up to its empty line, or to the maximum size of a head.
async fn read_head(connection: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match connection.read(&mut buffer).await? {
            0 => break,
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(head)
}

async fn echo(connection: &mut TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = connection.split();
    tokio::io::copy(&mut from, &mut to).await.map(drop)
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
    fn a_page_contains_the_pod_and_the_client_address() {
        for (client, expect) in [
            ("[::ffff:172.30.0.100]:5", "web 172.30.0.100\n"),
            ("[fd30::100]:5", "web fd30::100\n"),
        ] {
            let page = page("web", client.parse().unwrap());
            assert!(
                page.ends_with(&format!(
                    "Content-Length: {}\r\nConnection: close\r\n\r\n{expect}",
                    expect.len()
                )),
                "{page}"
            );
        }
    }
}
