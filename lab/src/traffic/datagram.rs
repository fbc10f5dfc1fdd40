//! One request and one reply over UDP, like with a name server: the reply contains the request's
//! number and the pod's name.

use anyhow::{Context, Result, anyhow};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// Maximum length of a received datagram in bytes: the limit of DNS without extensions (RFC 1035
/// section 2.3.4).
const DATAGRAM_MAX: usize = 512;
/// Number of every request. The source ports distinguish the requests.
const REQUEST_NUMBER: [u8; 2] = [0x46, 0x4c];

/// Sends one request to `server` from a new port and returns the name of the pod that replies
/// within `limit`. There is no retry.
///
/// # Errors
/// If no reply arrives, or if the reply belongs to another request.
pub async fn request(server: SocketAddr, limit: Duration) -> Result<String> {
    let socket = if server.is_ipv4() {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?
    } else {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?
    };
    // The socket is connected, so that it ignores datagrams from other senders.
    socket.connect(server).await?;
    socket.send(&REQUEST_NUMBER).await?;
    let mut buffer = [0; DATAGRAM_MAX];
    let length = tokio::time::timeout(limit, socket.recv(&mut buffer))
        .await
        .map_err(|_| anyhow!("no reply from {server} within {limit:?}"))??;
    let name = buffer[..length]
        .strip_prefix(&REQUEST_NUMBER)
        .context("the reply belongs to another request")?;
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Replies to every datagram until killed.
///
/// # Errors
/// If the socket fails.
pub async fn serve(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        // A closed client causes an error of the socket, which remains usable.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let number = &buffer[..length.min(REQUEST_NUMBER.len())];
        let _ = socket.send_to(&[number, name.as_bytes()].concat(), client).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_contains_the_pod_name() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let server = socket.local_addr().unwrap();
            tokio::select! {
                replied = request(server, Duration::from_secs(5)) => assert_eq!(replied.unwrap(), "web"),
                done = serve(&socket, "web") => panic!("the server ended: {done:?}"),
            }
        });
    }
}
