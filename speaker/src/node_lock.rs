//! Lock that admits one speaker process per node. Two speakers with the same node name would
//! repeatedly invalidate each other's claims.
//!
//! The lock is a Unix socket with an abstract name (unix(7)). Only one process of a network
//! namespace can own such a name, and all pods with `hostNetwork` share one namespace. The kernel
//! frees the name as soon as its owner ends for any reason.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use ferrolb_runtime::clock::Clock;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tracing::warn;

/// Time after which the owner of a socket that refuses connections is no speaker.
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// Time between two attempts to connect to the owner of the socket.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The lock, which is released when this value is dropped. None: the speaker runs without the lock.
#[derive(Debug)]
pub struct NodeLock(
    #[expect(dead_code, reason = "held as a lock; no connection is accepted")] Option<UnixListener>,
);

impl NodeLock {
    /// Acquires the lock, and waits as long as another speaker owns it. `namespace` is the
    /// namespace of the Secret with the hello keys. Speakers of other namespaces use other keys and
    /// do not disturb this one, so they have locks of their own.
    ///
    /// If the kernel refuses the socket, or a process of another user owns its name, another
    /// speaker cannot be detected. The speaker then starts without the lock.
    pub async fn acquire(namespace: &str, node: &str) -> Self {
        let outcome = bind(&socket_name(namespace, node)).await;
        Self(
            outcome
                .inspect_err(
                    |error| warn!(%error, node, "cannot detect another speaker on this node"),
                )
                .ok(),
        )
    }
}

/// Returns the name of the socket. The name contains a hash, because a node's name can be longer
/// than the name of a socket may be.
fn socket_name(namespace: &str, node: &str) -> String {
    let digest =
        Sha256::new().chain_update(namespace).chain_update("/").chain_update(node).finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    format!("ferrolb-speaker-{:016x}", u64::from_be_bytes(head))
}

async fn bind(name: &str) -> io::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(name)?;
    let mut refused_since = None;
    loop {
        match UnixListener::bind_addr(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
        let other = match UnixStream::connect(format!("\0{name}")).await {
            Ok(other) => other,
            Err(error) => {
                let now = Clock::now();
                // The other process has just ended, or it does not listen, as every speaker does.
                // Any other error may be a full connection queue of a speaker.
                let refused = error.kind() == ErrorKind::ConnectionRefused;
                refused_since = refused.then_some(refused_since.unwrap_or(now));
                if refused_since.is_some_and(|since| now.since(since) > REFUSED_MAX) {
                    return Err(io::Error::other(format!(
                        "the process with the socket @{name} does not listen"
                    )));
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
                continue;
            }
        };
        refused_since = None;
        let (own, peer) = (UnixStream::pair()?.0.peer_cred()?.uid(), other.peer_cred()?.uid());
        if own != peer {
            return Err(io::Error::other(format!(
                "a process of the user {peer} has the socket @{name}"
            )));
        }
        warn!(socket = %format!("@{name}"), "another speaker runs on this node, waiting until it \
                                             ends: find it with `ss -xlp`");
        // The other process never sends anything, so the socket becomes readable only when that
        // process ends.
        other.readable().await?;
    }
}
