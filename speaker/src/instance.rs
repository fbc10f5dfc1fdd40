//! One speaker of a node at a time: two that speak in one name void each other's claims again and
//! again.
//!
//! A Unix socket with an abstract name (unix(7)) belongs to one process of a network namespace,
//! which all pods of the host network share, and is free as soon as that process ends, however it
//! ends.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tracing::warn;

/// The right to speak for a node, for as long as it lives.
#[derive(Debug)]
pub struct Instance(#[expect(dead_code, reason = "held, and never accepted from")] Option<UnixListener>);

impl Instance {
    /// Takes the right, after the speaker that has it has ended. `namespace` is the one of the
    /// Secret with the hello keys: speakers with other keys do not disturb this one.
    ///
    /// Where the kernel refuses the socket, or a process of another user has its name, nobody can
    /// tell whether another speaker runs: this one speaks all the same.
    pub async fn take(namespace: &str, node: &str) -> Self {
        let outcome = take(&name(namespace, node)).await;
        Self(
            outcome
                .inspect_err(|error| warn!(%error, node, "cannot tell whether another speaker of this node runs"))
                .ok(),
        )
    }
}

/// A node's name can be longer than a socket's may be.
fn name(namespace: &str, node: &str) -> String {
    let digest = Sha256::new().chain_update(namespace).chain_update("/").chain_update(node).finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    format!("ferrolb-speaker-{:016x}", u64::from_be_bytes(head))
}

async fn take(name: &str) -> io::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(name)?;
    let mut backoff = Backoff::default();
    loop {
        match UnixListener::bind_addr(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
        // It may have ended just now, or too many wait for its end.
        let Ok(other) = UnixStream::connect(format!("\0{name}")).await else {
            tokio::time::sleep(backoff.next_delay(Clock::now())).await;
            continue;
        };
        let (own, peer) = (UnixStream::pair()?.0.peer_cred()?.uid(), other.peer_cred()?.uid());
        if own != peer {
            return Err(io::Error::other(format!("a process of the user {peer} has the socket @{name}")));
        }
        warn!(socket = %format!("@{name}"), "another speaker of this node runs; waiting until it ends: ss -xlp names it");
        // Nothing is ever sent: readable is what the end of the other process makes it.
        other.readable().await?;
    }
}
