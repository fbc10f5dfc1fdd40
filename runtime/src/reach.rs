//! Tests by TCP whether a host replies at all. Both components use it for the port of a kubelet.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Time after which a host that has not replied is silent.
pub const SILENCE_TIMEOUT: Duration = Duration::from_millis(500);
/// Delay of the second attempt. The kernel repeats the first packet of an attempt only after a
/// second.
const SECOND_ATTEMPT_DELAY: Duration = Duration::from_millis(200);

/// Returns whether a host is silent: two connection attempts end without any reply within
/// [`SILENCE_TIMEOUT`]. A refused or reset connection is a reply. An error of this node, such as a
/// lack of file descriptors, is no evidence of silence.
pub async fn is_silent(address: SocketAddr) -> bool {
    let second = async {
        sleep(SECOND_ATTEMPT_DELAY).await;
        reply(address).await;
    };
    let any_reply = async {
        tokio::select! {
            () = reply(address) => {}
            () = second => {}
        }
    };
    timeout(SILENCE_TIMEOUT, any_reply).await.is_err()
}

/// Completes when an attempt has ended with a reply, or with an error of this node.
async fn reply(address: SocketAddr) {
    match TcpStream::connect(address).await {
        Err(error) if is_unreachable(&error) => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_listener_and_a_refusal_are_replies() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!is_silent(address).await);
        drop(listener);
        assert!(!is_silent(address).await, "the connection is refused");
    }

    #[tokio::test]
    async fn a_host_that_drops_all_packets_is_silent() {
        // The kernel drops the first packet of a connection while the queue of a listener is full.
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(SILENCE_TIMEOUT, TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        assert!(is_silent(address).await, "{} connections are queued", queued.len());
    }
}
