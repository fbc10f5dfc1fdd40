//! Datagrams as fast as one processor sends them, and what they take of it. In a lab a frame is on its way until its receiver has it before
//! the sender's call returns, so the sender's time is the whole way's: the switch's, a node's that forwards it, and its own.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// What one datagram carries, in bytes: with all headers it fits into a frame of either family.
pub const PAYLOAD: usize = 1400;

/// Sends so many datagrams to `server` from the namespace of the calling thread; the processor time that they took.
///
/// # Errors
/// When there is no way to it.
pub fn send(server: SocketAddr, count: usize) -> Result<Duration> {
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(server)?;
    let start = used()?;
    for _ in 0..count {
        socket.send(&[0; PAYLOAD]).with_context(|| format!("cannot send to {server}"))?;
    }
    Ok(used()? - start)
}

/// The processor time of this thread so far, with what the kernel did in it.
fn used() -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_is_sent_and_takes_time() {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            let receiver = UdpSocket::bind(address).unwrap();
            let took = send(receiver.local_addr().unwrap(), 20).unwrap();
            assert!(took > Duration::ZERO);
            let mut buffer = [0; 2 * PAYLOAD];
            for _ in 0..20 {
                assert_eq!(receiver.recv(&mut buffer).unwrap(), PAYLOAD);
            }
            receiver.set_nonblocking(true).unwrap();
            assert!(receiver.recv(&mut buffer).is_err(), "there was one more");
        }
    }
}
