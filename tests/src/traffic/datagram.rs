//! One question and one answer by UDP, as a name server has them: the answer is the question's number and the pod's name.

use anyhow::{Context, Result, anyhow};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// The longest datagram that is read, in bytes: what DNS has without extensions (RFC 1035 section 2.3.4).
const DATAGRAM_MAX: usize = 512;
/// The number of every question. Each comes from a port of its own, which tells them apart.
const NUMBER: [u8; 2] = [0x46, 0x4c];

/// Asks `server` from a fresh port; the name of the pod that answered within `limit`. There is no second question.
///
/// # Errors
/// When no answer comes, or one to another question.
pub async fn ask(server: SocketAddr, limit: Duration) -> Result<String> {
    let socket = if server.is_ipv4() {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?
    } else {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?
    };
    // Connected: what comes from elsewhere is no answer.
    socket.connect(server).await?;
    socket.send(&NUMBER).await?;
    let mut buffer = [0; DATAGRAM_MAX];
    let length = tokio::time::timeout(limit, socket.recv(&mut buffer))
        .await
        .map_err(|_| anyhow!("{server} gave no answer within {limit:?}"))??;
    let name = buffer[..length].strip_prefix(&NUMBER).context("the answer is to another question")?;
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Answers every datagram until killed.
///
/// # Errors
/// When the socket is broken.
pub async fn answer_all(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        // A client that is gone again comes back as an error of the socket, which goes on.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let number = &buffer[..length.min(NUMBER.len())];
        let _ = socket.send_to(&[number, name.as_bytes()].concat(), client).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_the_pod_s_name() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let server = socket.local_addr().unwrap();
            tokio::select! {
                answered = ask(server, Duration::from_secs(5)) => assert_eq!(answered.unwrap(), "web"),
                done = answer_all(&socket, "web") => panic!("the server ended: {done:?}"),
            }
        });
    }
}
