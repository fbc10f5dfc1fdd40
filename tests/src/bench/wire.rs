//! The client's ear on the wire: a packet socket that hears and sends ARP, apart from the kernel's own.

use crate::topology::{CLIENT, Host};
use crate::{Lab, wait};
use anyhow::{Context, Result, anyhow};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The link of every host of a lab.
const LINK: &str = "eth0";
/// How long one look at the socket waits, at most.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How many bytes of frames may wait in the kernel: a thousand addresses are announced in one breath.
const BUFFER_BYTES: usize = 4 << 20;

/// A packet socket for ARP on the calling thread's namespace.
#[derive(Debug)]
pub struct Wire(Socket);

impl Wire {
    /// Opens the socket in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// Without root rights, or when there is no `eth0`.
    pub fn open() -> Result<Self> {
        let network_order = arp::ETHER_TYPE.to_be();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(network_order))))
            .context("no packet socket: the benchmarks need root rights")?;
        let index = rustix::net::netdevice::name_to_index(&socket, LINK).with_context(|| format!("no link {LINK}"))?;
        socket.bind(&link_address(index.cast_signed(), network_order))?;
        socket.set_read_timeout(Some(LOOK_MAX))?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        Ok(Self(socket))
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// When the link is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.0.send(frame).context("cannot send on the client's wire")?;
        Ok(())
    }

    /// The next ARP frame; none when a tenth of a second goes by without one. What is not ARP for IPv4 is passed over.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn next(&self) -> Result<Option<Arp>> {
        let mut frame = [0; 128];
        match (&self.0).read(&mut frame) {
            Ok(length) => Ok(Arp::decode(&frame[..length])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error).context("cannot hear the client's wire"),
        }
    }

    /// Asks `whom` (a host, or all) for `address` as `asker`; who answered and after how long. None when nobody does within `limit`.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn ask(&self, asker: &Host, whom: Mac, address: Ipv4Addr, limit: Duration) -> Result<Option<(Mac, Duration)>> {
        let mut request = arp::request(mac(asker)?, asker.v4(), address);
        request[..whom.0.len()].copy_from_slice(&whom.0);
        let start = wait::now();
        self.send(&request)?;
        while start.elapsed() < limit {
            let heard = self.next()?;
            let elapsed = start.elapsed();
            if let Some(arp) = heard
                && arp.operation == Operation::Reply
                && (arp.sender, arp.target) == (address, asker.v4())
            {
                return Ok(Some((arp.sender_mac, elapsed)));
            }
        }
        Ok(None)
    }
}

#[expect(unsafe_code, reason = "the standard library and socket2 have no type for the address of a link")]
fn link_address(index: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the kinds of address that the storage is made to hold, and plain numbers throughout.
    let link: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = protocol;
    link.sll_ifindex = index;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: all of that length was zeroed and then filled, and its family says what it is.
    unsafe { SockAddr::new(storage, length) }
}

/// A host's hardware address, to put into a frame.
pub(super) fn mac(host: &Host) -> Result<Mac> {
    let bytes: Option<Vec<u8>> = host.mac().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes.map(Mac).ok_or_else(|| anyhow!("{} has no hardware address", host.name))
}

/// When each address was first announced by each host that did.
type Announced = Arc<Mutex<BTreeMap<Ipv4Addr, BTreeMap<Mac, Instant>>>>;

/// A thread that notes when each address is announced for the first time by each host: by a frame whose sender speaks of itself (RFC 5227).
#[derive(Debug)]
pub struct Listener {
    announced: Announced,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Listener {
    /// Listens on the client's wire of a lab from now on.
    ///
    /// # Errors
    /// When the socket cannot be opened there.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (announced, stop) = (Announced::default(), Arc::new(AtomicBool::new(false)));
        let (theirs, stopped) = (Arc::clone(&announced), Arc::clone(&stop));
        let wire = lab.within(CLIENT, Wire::open)??;
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(arp) = wire.next()?.filter(|arp| arp.sender == arp.target) else { continue };
                let mut announced = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                announced.entry(arp.sender).or_default().entry(arp.sender_mac).or_insert_with(wait::now);
            }
            Ok(())
        });
        Ok(Self { announced, stop, thread })
    }

    /// When `address` was first announced, if it was.
    pub fn first(&self, address: Ipv4Addr) -> Option<Instant> {
        self.first_of(address, |_| true)
    }

    /// When `address` was first announced by another host than `host`, if it was.
    pub fn first_by_another(&self, address: Ipv4Addr, host: Mac) -> Option<Instant> {
        self.first_of(address, |mac| mac != host)
    }

    fn first_of(&self, address: Ipv4Addr, of: impl Fn(Mac) -> bool) -> Option<Instant> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.get(&address)?.iter().filter(|(mac, _)| of(**mac)).map(|(_, at)| *at).min()
    }

    /// Listens no more.
    ///
    /// # Errors
    /// When the listening had failed.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_s_hardware_address_goes_into_a_frame_as_it_is_written() {
        for host in [Host::client(), Host::node(1), Host::node(20)] {
            assert_eq!(mac(&host).unwrap().to_string(), host.mac());
        }
    }
}
