//! The client's ear on the wire: packet sockets that hear and send ARP or Neighbor Discovery, apart from the kernel's own.

use crate::topology::{CLIENT, Host, Subnet};
use crate::{Lab, wait};
use anyhow::{Context, Result, anyhow};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::ndp::{self, Kind, Ndp};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The link of every host of a lab.
const LINK: &str = "eth0";
/// The octet of strangers' addresses: no host has it.
const STRANGER: u8 = 109;
/// How long one look at the socket waits, at most.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How many bytes of frames may wait in the kernel: a thousand addresses are announced in one breath.
const BUFFER_BYTES: usize = 4 << 20;

/// A packet socket of the client for ARP or for Neighbor Discovery.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    family: Family,
    client: Asker,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    mac: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Asker {
    /// The client.
    ///
    /// # Errors
    /// When it has no hardware address.
    fn client() -> Result<Self> {
        let client = Host::client();
        Ok(Self { mac: mac(&client)?, v4: client.v4(), v6: client.v6() })
    }

    /// One of 256 hosts that there are not, behind the client's link: nobody is allowed to ask without end alone.
    pub fn stranger(number: u8) -> Self {
        let host = Host { name: "stranger".to_owned(), octet: STRANGER, subnet: Subnet::Lan };
        Self { mac: Mac([2, 0xf1, 0, 0, 0, number]), v4: host.v4(), v6: host.v6() }
    }

    /// Its question for `address`, to `whom` alone or to all.
    pub fn question(&self, whom: Option<Mac>, address: IpAddr) -> Vec<u8> {
        match (address, whom) {
            (IpAddr::V4(address), whom) => {
                let mut request = arp::request(self.mac, self.v4, address);
                let whom = whom.unwrap_or(Mac::BROADCAST);
                request[..whom.0.len()].copy_from_slice(&whom.0);
                request.into()
            }
            (IpAddr::V6(address), None) => ndp::solicitation(self.mac, self.v6, address).into(),
            (IpAddr::V6(address), Some(whom)) => ndp::unicast_solicitation(self.mac, self.v6, address, whom).into(),
        }
    }
}

/// A host's word that it has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub address: IpAddr,
    pub mac: Mac,
    /// It answers a question; if not, it is an announcement (RFC 5227 section 2.3, RFC 4861 section 7.2.6).
    pub answers: bool,
}

impl Wire {
    /// Opens the socket for questions about addresses of a family; by the thread that calls this in the client's namespace.
    ///
    /// # Errors
    /// Without root rights, or when there is no `eth0`.
    pub fn open(family: Family) -> Result<Self> {
        let ether_type = match family {
            Family::V4 => arp::ETHER_TYPE,
            Family::V6 => ndp::ETHER_TYPE,
        };
        let network_order = ether_type.to_be();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(network_order))))
            .context("no packet socket: the benchmarks need root rights")?;
        let index = rustix::net::netdevice::name_to_index(&socket, LINK).with_context(|| format!("no link {LINK}"))?;
        socket.bind(&link_address(index.cast_signed(), network_order))?;
        socket.set_read_timeout(Some(LOOK_MAX))?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        Ok(Self { socket, family, client: Asker::client()? })
    }

    /// The same, but one look at it waits no longer than this.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn with_patience(self, longest: Duration) -> Result<Self> {
        self.socket.set_read_timeout(Some(longest))?;
        Ok(self)
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// When the link is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("cannot send on the client's wire")?;
        Ok(())
    }

    /// What the next frame tells; none when a tenth of a second goes by without one, or what it was told to wait. What tells of no address is passed over.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn next(&self) -> Result<Option<Heard>> {
        let mut frame = [0; 128];
        match (&self.socket).read(&mut frame) {
            Ok(length) => Ok(heard(self.family, &frame[..length])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error).context("cannot hear the client's wire"),
        }
    }

    /// The client's question for `address`, to `whom` alone or to all.
    pub fn question(&self, whom: Option<Mac>, address: IpAddr) -> Vec<u8> {
        self.client.question(whom, address)
    }

    /// Asks `whom`, or all, for `address`; how long the answer took. None when there is none within `limit`.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn ask(&self, whom: Option<Mac>, address: IpAddr, limit: Duration) -> Result<Option<Duration>> {
        let question = self.question(whom, address);
        let start = wait::now();
        self.send(&question)?;
        while start.elapsed() < limit {
            let heard = self.next()?;
            let elapsed = start.elapsed();
            if heard.is_some_and(|heard| heard.answers && heard.address == address) {
                return Ok(Some(elapsed));
            }
        }
        Ok(None)
    }
}

/// What a frame tells.
fn heard(family: Family, frame: &[u8]) -> Option<Heard> {
    match family {
        Family::V4 => {
            let arp = Arp::decode(frame)?;
            let announces = arp.sender == arp.target;
            let answers = arp.operation == Operation::Reply && !announces;
            (answers || announces).then(|| Heard { address: arp.sender.into(), mac: arp.sender_mac, answers })
        }
        Family::V6 => {
            let ndp = Ndp::decode(frame)?;
            let Kind::Advertisement { solicited, .. } = ndp.kind else { return None };
            Some(Heard { address: ndp.target.into(), mac: ndp.mac.unwrap_or(ndp.source), answers: solicited })
        }
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
type Announced = Arc<Mutex<BTreeMap<IpAddr, BTreeMap<Mac, Instant>>>>;

/// Threads that note when each address is announced for the first time by each host: by a frame whose sender speaks of itself unasked.
#[derive(Debug)]
pub struct Listener {
    announced: Announced,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Listener {
    /// Listens on the client's wire of a lab from now on.
    ///
    /// # Errors
    /// When a socket cannot be opened there.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut listener = Self { announced: Announced::default(), stop: Arc::default(), threads: Vec::new() };
        for family in [Family::V4, Family::V6] {
            let (announced, stop) = (Arc::clone(&listener.announced), Arc::clone(&listener.stop));
            let wire = lab.within(CLIENT, || Wire::open(family))??;
            listener.threads.push(std::thread::spawn(move || note(&wire, &announced, &stop)));
        }
        Ok(listener)
    }

    /// When `address` was first announced, if it was.
    pub fn first(&self, address: IpAddr) -> Option<Instant> {
        self.first_of(address, |_| true)
    }

    /// When `address` was first announced by another host than `host`, if it was.
    pub fn first_by_another(&self, address: IpAddr, host: Mac) -> Option<Instant> {
        self.first_of(address, |mac| mac != host)
    }

    fn first_of(&self, address: IpAddr, of: impl Fn(Mac) -> bool) -> Option<Instant> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.get(&address)?.iter().filter(|(mac, _)| of(**mac)).map(|(_, at)| *at).min()
    }

    /// Listens no more.
    ///
    /// # Errors
    /// When the listening had failed.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(JoinHandle::join);
        ended.into_iter().try_for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Notes announcements until it is told to stop.
fn note(wire: &Wire, announced: &Announced, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Some(heard) = wire.next()?.filter(|heard| !heard.answers) else { continue };
        let mut announced = announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.entry(heard.address).or_default().entry(heard.mac).or_insert_with(wait::now);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_host_s_hardware_address_goes_into_a_frame_as_it_is_written() {
        for host in [Host::client(), Host::node(1), Host::node(20)] {
            assert_eq!(mac(&host).unwrap().to_string(), host.mac());
        }
    }

    #[test]
    fn answers_are_told_from_announcements_and_questions_tell_of_no_address() {
        let (node, client) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let (v4, asker4) = (Ipv4Addr::new(172, 31, 0, 1), Host::client().v4());
        let (v6, asker6) = ("fd31::1".parse::<Ipv6Addr>().unwrap(), Host::client().v6());
        let told = |address: IpAddr, answers| Some(Heard { address, mac: node, answers });
        let cases: [(_, &[u8], _); 8] = [
            (Family::V4, &arp::reply(node, v4, client, asker4), told(v4.into(), true)),
            (Family::V4, &arp::gratuitous_request(node, v4), told(v4.into(), false)),
            (Family::V4, &arp::gratuitous_reply(node, v4), told(v4.into(), false)),
            (Family::V4, &arp::request(client, asker4, v4), None),
            (Family::V6, &ndp::answer(node, v6, client, asker6), told(v6.into(), true)),
            (Family::V6, &ndp::unsolicited(node, v6), told(v6.into(), false)),
            (Family::V6, &ndp::solicitation(client, asker6, v6), None),
            (Family::V6, &arp::reply(node, v4, client, asker4), None),
        ];
        for (family, frame, expect) in cases {
            assert_eq!(heard(family, frame), expect, "{frame:02x?}");
        }
    }
}
