//! Packet sockets of the client on its network segment. They send and receive ARP or Neighbor
//! Discovery frames independently of the client's kernel.

use crate::topology::{CLIENT, Host, Subnet};
use crate::{Lab, wait};
use anyhow::{Context, Result, anyhow};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::ndp::{self, Ndp, NdpKind};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Interface of every lab host.
const INTERFACE: &str = "eth0";
/// Last octet of the addresses of foreign hosts; no lab host has this octet.
const FOREIGN_OCTET: u8 = 109;
/// Maximum time of one read of the socket.
const READ_MAX: Duration = Duration::from_millis(100);
/// Size of the receive buffer in bytes: it must hold a burst of announcements of a thousand
/// addresses.
const BUFFER_BYTES: usize = 4 << 20;

/// A packet socket of the client for ARP or for Neighbor Discovery.
#[derive(Debug)]
pub struct ClientSocket {
    socket: Socket,
    family: Family,
    client: RequestSender,
}

/// Addresses of the sender of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestSender {
    mac: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl RequestSender {
    /// Returns the client as the sender.
    ///
    /// # Errors
    /// If the client has no hardware address.
    fn client() -> Result<Self> {
        let client = Host::client();
        Ok(Self { mac: mac(&client)?, v4: client.v4(), v6: client.v6() })
    }

    /// Returns one of 256 simulated hosts behind the client's interface as the sender. The hosts
    /// share the load, because speakers limit the request rate of a single host.
    pub fn foreign_host(number: u8) -> Self {
        let host = Host { name: "foreign".to_owned(), octet: FOREIGN_OCTET, subnet: Subnet::Lan };
        Self { mac: Mac([2, 0xf1, 0, 0, 0, number]), v4: host.v4(), v6: host.v6() }
    }

    /// Builds a request for `address`, to one destination or to all hosts.
    pub fn request(&self, destination: Option<Mac>, address: IpAddr) -> Vec<u8> {
        match (address, destination) {
            (IpAddr::V4(address), destination) => {
                let mut request = arp::request(self.mac, self.v4, address);
                let destination = destination.unwrap_or(Mac::BROADCAST);
                request[..destination.0.len()].copy_from_slice(&destination.0);
                request.into()
            }
            (IpAddr::V6(address), None) => ndp::solicitation(self.mac, self.v6, address).into(),
            (IpAddr::V6(address), Some(destination)) => {
                ndp::unicast_solicitation(self.mac, self.v6, address, destination).into()
            }
        }
    }
}

/// Content of a received ARP or Neighbor Discovery frame by which a host declares that it uses an
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressClaim {
    pub address: IpAddr,
    pub mac: Mac,
    /// True if the frame is a reply to a request. Otherwise the frame is an announcement (RFC 5227
    /// section 2.3, RFC 4861 section 7.2.6).
    pub is_reply: bool,
}

impl ClientSocket {
    /// Opens the socket for requests of a family. The calling thread must be in the client's
    /// namespace.
    ///
    /// # Errors
    /// Without root permissions, or if there is no `eth0`.
    pub fn open(family: Family) -> Result<Self> {
        let ether_type = match family {
            Family::V4 => arp::ETHER_TYPE,
            Family::V6 => ndp::ETHER_TYPE,
        };
        let network_order = ether_type.to_be();
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(network_order))))
                .context("no packet socket: the benchmarks need root permissions")?;
        let index = rustix::net::netdevice::name_to_index(&socket, INTERFACE)
            .with_context(|| format!("there is no interface {INTERFACE}"))?;
        socket.bind(&packet_address(index.cast_signed(), network_order))?;
        socket.set_read_timeout(Some(READ_MAX))?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        Ok(Self { socket, family, client: RequestSender::client()? })
    }

    /// Limits the time of one read of the socket.
    ///
    /// # Errors
    /// If the kernel rejects the timeout.
    pub fn with_read_timeout(self, limit: Duration) -> Result<Self> {
        self.socket.set_read_timeout(Some(limit))?;
        Ok(self)
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// If the interface is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("cannot send on the client's interface")?;
        Ok(())
    }

    /// Reads the next frame and returns the address use that it declares. `None` if no frame
    /// arrives within the read limit (by default a tenth of a second), or if the frame declares
    /// none.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn next(&self) -> Result<Option<AddressClaim>> {
        let mut frame = [0; 128];
        match (&self.socket).read(&mut frame) {
            Ok(length) => Ok(decode_claim(self.family, &frame[..length])),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("cannot receive on the client's interface"),
        }
    }

    /// Builds the client's request for `address`, to one destination or to all hosts.
    pub fn request(&self, destination: Option<Mac>, address: IpAddr) -> Vec<u8> {
        self.client.request(destination, address)
    }

    /// Requests `address` from one destination or from all hosts, and returns the time until the
    /// reply. `None` without a reply within `limit`.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn round_trip(
        &self,
        destination: Option<Mac>,
        address: IpAddr,
        limit: Duration,
    ) -> Result<Option<Duration>> {
        let request = self.request(destination, address);
        let start = wait::now();
        self.send(&request)?;
        while start.elapsed() < limit {
            let claim = self.next()?;
            let elapsed = start.elapsed();
            if claim.is_some_and(|claim| claim.is_reply && claim.address == address) {
                return Ok(Some(elapsed));
            }
        }
        Ok(None)
    }
}

/// Returns the address use that a frame declares; `None` if it declares none.
fn decode_claim(family: Family, frame: &[u8]) -> Option<AddressClaim> {
    match family {
        Family::V4 => {
            let arp = Arp::decode(frame)?;
            let announces = arp.sender == arp.target;
            let is_reply = arp.operation == Operation::Reply && !announces;
            (is_reply || announces).then(|| AddressClaim {
                address: arp.sender.into(),
                mac: arp.sender_mac,
                is_reply,
            })
        }
        Family::V6 => {
            let ndp = Ndp::decode(frame)?;
            let NdpKind::Advertisement { solicited, .. } = ndp.kind else { return None };
            Some(AddressClaim {
                address: ndp.target.into(),
                mac: ndp.mac.unwrap_or(ndp.source),
                is_reply: solicited,
            })
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the standard library and socket2 have no type for the address of a link"
)]
fn packet_address(index: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the address types that the storage can contain, and consists
    // of plain integers.
    let link: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = protocol;
    link.sll_ifindex = index;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the whole length was zeroed and then filled, and the family field identifies its
    // type.
    unsafe { SockAddr::new(storage, length) }
}

/// Returns a host's hardware address in the form for a frame.
pub(super) fn mac(host: &Host) -> Result<Mac> {
    let bytes: Option<Vec<u8>> =
        host.mac().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes.map(Mac).ok_or_else(|| anyhow!("{} has no hardware address", host.name))
}

/// Time of each address's first announcement by each host.
type AnnouncementTimes = Arc<Mutex<BTreeMap<IpAddr, BTreeMap<Mac, Instant>>>>;

/// Threads that record the first announcement of each address by each host. An announcement is an
/// unsolicited frame with the sender's own address.
#[derive(Debug)]
pub struct AnnouncementRecorder {
    announced: AnnouncementTimes,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl AnnouncementRecorder {
    /// Starts recording the announcements on the client's network segment.
    ///
    /// # Errors
    /// If a socket cannot be opened there.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut recorder = Self {
            announced: AnnouncementTimes::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for family in [Family::V4, Family::V6] {
            let (announced, stop) = (Arc::clone(&recorder.announced), Arc::clone(&recorder.stop));
            let socket = lab.within(CLIENT, || ClientSocket::open(family))??;
            recorder
                .threads
                .push(std::thread::spawn(move || record_announcements(&socket, &announced, &stop)));
        }
        Ok(recorder)
    }

    /// Returns the time of the first announcement of `address`.
    pub fn first_announcement(&self, address: IpAddr) -> Option<Instant> {
        self.first_announcement_where(address, |_| true)
    }

    /// Returns the time of the first announcement of `address` by a host other than `host`.
    pub fn first_announcement_by_another(&self, address: IpAddr, host: Mac) -> Option<Instant> {
        self.first_announcement_where(address, |mac| mac != host)
    }

    fn first_announcement_where(
        &self,
        address: IpAddr,
        matches: impl Fn(Mac) -> bool,
    ) -> Option<Instant> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.get(&address)?.iter().filter(|(mac, _)| matches(**mac)).map(|(_, at)| *at).min()
    }

    /// Stops recording.
    ///
    /// # Errors
    /// If a recording thread has failed.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(JoinHandle::join);
        ended
            .into_iter()
            .try_for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Records announcements until `stop` is set.
fn record_announcements(
    socket: &ClientSocket,
    announced: &AnnouncementTimes,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Some(claim) = socket.next()?.filter(|claim| !claim.is_reply) else { continue };
        let mut announced = announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.entry(claim.address).or_default().entry(claim.mac).or_insert_with(wait::now);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_host_mac_is_parsed_from_its_text() {
        for host in [Host::client(), Host::node(1), Host::node(20)] {
            assert_eq!(mac(&host).unwrap().to_string(), host.mac());
        }
    }

    #[test]
    fn replies_and_announcements_claim_an_address() {
        let (node, client) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let (v4, client_v4) = (Ipv4Addr::new(172, 31, 0, 1), Host::client().v4());
        let (v6, client_v6) = ("fd31::1".parse::<Ipv6Addr>().unwrap(), Host::client().v6());
        let claim = |address: IpAddr, is_reply| Some(AddressClaim { address, mac: node, is_reply });
        let cases: [(_, &[u8], _); 8] = [
            (Family::V4, &arp::reply(node, v4, client, client_v4), claim(v4.into(), true)),
            (Family::V4, &arp::gratuitous_request(node, v4), claim(v4.into(), false)),
            (Family::V4, &arp::gratuitous_reply(node, v4), claim(v4.into(), false)),
            (Family::V4, &arp::request(client, client_v4, v4), None),
            (
                Family::V6,
                &ndp::solicited_advertisement(node, v6, client, client_v6),
                claim(v6.into(), true),
            ),
            (Family::V6, &ndp::unsolicited_advertisement(node, v6), claim(v6.into(), false)),
            (Family::V6, &ndp::solicitation(client, client_v6, v6), None),
            (Family::V6, &arp::reply(node, v4, client, client_v4), None),
        ];
        for (family, frame, expect) in cases {
            assert_eq!(decode_claim(family, frame), expect, "{frame:02x?}");
        }
    }
}
