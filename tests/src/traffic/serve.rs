//! The server in a lab's pod. A page has one line: the pod's name and the client's address. A connection that asks to stay is sent back all
//! it sends, one that asks for it is answered badly, and a datagram is answered, too ([`super::lasting`], [`super::manners`], [`super::datagram`]).

use super::datagram;
use super::manners::{self, Manner, STAY_MAX};
use anyhow::{Context, Result};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Most connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may take over its request.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// The largest request head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Serves both address families on `port`, TCP and UDP, until it is told to stop: as the first process of a container it has to listen to that itself.
///
/// # Errors
/// When the port is taken.
pub async fn serve(name: &str, port: u16) -> Result<()> {
    let place = (Ipv6Addr::UNSPECIFIED, port);
    let taken = || format!("cannot serve on port {port}");
    let socket = UdpSocket::bind(place).await.with_context(taken)?;
    let listener = TcpListener::bind(place).await.with_context(taken)?;
    let mut told = signal(SignalKind::terminate())?;
    tokio::select! {
        done = datagram::answer_all(&socket, name) => done,
        done = serve_pages(&listener, name) => done,
        _ = told.recv() => Ok(()),
    }
}

async fn serve_pages(listener: &TcpListener, name: &str) -> Result<()> {
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
        connections.spawn(answer(connection, page));
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
    }
}

/// Serves one connection to its end. An error is the client's, or the network's between, and concerns no other connection.
async fn answer(mut connection: TcpStream, page: String) {
    let Ok(Ok(head)) = tokio::time::timeout(REQUEST_MAX, read_head(&mut connection)).await else { return };
    let manner = Manner::asked(&head);
    let limit = if manner == Manner::Page { REQUEST_MAX } else { STAY_MAX };
    let _ = tokio::time::timeout(limit, async {
        match manner {
            Manner::Page => {
                connection.write_all(page.as_bytes()).await?;
                connection.shutdown().await
            }
            Manner::Echo => echo(&mut connection).await,
            Manner::Silent => std::future::pending().await,
            Manner::Garbage => manners::garbage(&mut connection).await,
            Manner::Endless => manners::endless(&mut connection).await,
        }
    })
    .await;
}

/// The request up to its empty line, or to what is read of a head at most.
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
