//! Stream of datagrams at the full speed of one processor, and its processor time. In a lab, a
//! frame reaches its receiver before the sender's call returns. So the sender's time includes the
//! whole path: the switch, a node that forwards the frame, and the sender itself.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Payload of a datagram in bytes: with all headers it fits into a frame of either family.
pub const PAYLOAD_BYTES: usize = 1400;

/// Sends `count` datagrams to `server` from the namespace of the calling thread, and returns the
/// processor time.
///
/// # Errors
/// If there is no route.
pub fn send(server: SocketAddr, count: usize) -> Result<Duration> {
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(server)?;
    let start = thread_time()?;
    for _ in 0..count {
        socket.send(&[0; PAYLOAD_BYTES]).with_context(|| format!("cannot send to {server}"))?;
    }
    Ok(thread_time()? - start)
}

/// Returns the processor time of this thread so far, including the kernel's part.
fn thread_time() -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_arrives_and_uses_processor_time() {
        for address in
            [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))]
        {
            let receiver = UdpSocket::bind(address).unwrap();
            let elapsed = send(receiver.local_addr().unwrap(), 20).unwrap();
            assert!(elapsed > Duration::ZERO);
            let mut buffer = [0; 2 * PAYLOAD_BYTES];
            for _ in 0..20 {
                assert_eq!(receiver.recv(&mut buffer).unwrap(), PAYLOAD_BYTES);
            }
            receiver.set_nonblocking(true).unwrap();
            assert!(receiver.recv(&mut buffer).is_err(), "more datagrams arrived than were sent");
        }
    }
}
