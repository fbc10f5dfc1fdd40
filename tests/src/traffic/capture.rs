//! Every frame of ARP, of ICMP (with Neighbor Discovery) and of the hello protocol that goes over a lab's switch, once each and in the order
//! in which it came in. One socket for all ports, so that the kernel says what followed what.

use crate::topology::SWITCH;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::wire::arp::{self, Arp};
use ferrolb_proto::wire::hello::{self, Frame, KeyRing};
use ferrolb_proto::wire::ndp::{self, Kind, Ndp};
use ferrolb_proto::wire::{ETHERNET_HEADER, Mac};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one look at the socket waits, at most.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How long is read on after the end, at most.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How many bytes of frames may wait in the kernel.
const BUFFER_BYTES: usize = 16 << 20;
/// How many frames a capture holds; a longer one fails.
const FRAMES_MAX: usize = 1_000_000;
/// The longest frame, in bytes.
const FRAME_MAX: usize = ETHERNET_HEADER + 1500;
/// EtherType of IPv4.
const IPV4: u16 = libc::ETH_P_IP as u16;

/// One frame.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub bytes: Vec<u8>,
}

impl Seen {
    /// Who sent it.
    pub fn source(&self) -> Option<Mac> {
        Some(Mac(self.bytes.get(6..12)?.try_into().ok()?))
    }

    /// It as ARP, if it is.
    pub fn arp(&self) -> Option<Arp> {
        Arp::decode(&self.bytes)
    }

    /// It as Neighbor Discovery, if it is.
    pub fn ndp(&self) -> Option<Ndp> {
        Ndp::decode(&self.bytes)
    }

    /// It as a frame of speakers that have one of these keys, if it is.
    pub fn hello(&self, keys: &KeyRing) -> Option<Frame> {
        Frame::decode(&self.bytes, keys).ok().map(|(_, frame)| frame)
    }
}

/// Who says in a frame that it has the address: as an answer, unasked, or as the sender of ARP.
pub fn holder(frame: &[u8], address: IpAddr) -> Option<Mac> {
    match address {
        IpAddr::V4(address) => Arp::decode(frame).filter(|arp| arp.sender == address).map(|arp| arp.sender_mac),
        IpAddr::V6(address) => {
            let ndp = Ndp::decode(frame).filter(|ndp| ndp.kind != Kind::Solicitation && ndp.target == address)?;
            Some(ndp.mac.unwrap_or(ndp.source))
        }
    }
}

/// Whether it is of a protocol that is captured.
fn is_kept(frame: &[u8]) -> bool {
    let Some(&[high, low]) = frame.get(12..ETHERNET_HEADER) else { return false };
    let carries = |place: usize, protocols: &[i32]| {
        frame.get(ETHERNET_HEADER + place).is_some_and(|next| protocols.contains(&i32::from(*next)))
    };
    match u16::from_be_bytes([high, low]) {
        arp::ETHER_TYPE | hello::ETHER_TYPE => true,
        IPV4 => carries(9, &[libc::IPPROTO_ICMP]),
        // MLD comes behind a header of hop-by-hop options (RFC 3810 section 5).
        ndp::ETHER_TYPE => carries(6, &[libc::IPPROTO_ICMPV6, libc::IPPROTO_HOPOPTS]),
        _ => false,
    }
}

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Seen>>>,
}

impl Capture {
    /// Captures from now on.
    ///
    /// # Errors
    /// Without root rights.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (socket, bridge) = lab.within(SWITCH, open)??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut all, mut end) = (Vec::new(), None);
            loop {
                // What came before the end was said is in the kernel already, and is still read.
                end = end.or_else(|| stopped.load(Ordering::Relaxed).then(wait::now));
                match next(&socket, bridge)? {
                    Some(seen) => all.extend(seen),
                    None if end.is_some() => return Ok(all),
                    None => {}
                }
                ensure!(all.len() < FRAMES_MAX, "more than {FRAMES_MAX} frames were captured");
                if end.is_some_and(|end| end.elapsed() > DRAIN_MAX) {
                    return Ok(all);
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Ends the capture; all of it.
    ///
    /// # Errors
    /// When it had failed.
    pub fn stop(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A socket for all that any port receives, and the index of the bridge itself.
fn open() -> Result<(Socket, i32)> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all))))
        .context("no packet socket: a capture needs root rights")?;
    let bridge = rustix::net::netdevice::name_to_index(&socket, "br0").context("the switch has no bridge")?;
    socket.set_read_timeout(Some(LOOK_MAX))?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    Ok((socket, bridge.cast_signed()))
}

/// The next frame, if it is one to keep; none at all when for a while there is none.
fn next(socket: &Socket, bridge: i32) -> Result<Option<Option<Seen>>> {
    let mut buffer = [MaybeUninit::uninit(); FRAME_MAX];
    let (length, from) = match socket.recv_from(&mut buffer) {
        Ok(received) => received,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(None),
        Err(error) => return Err(error).context("cannot capture"),
    };
    let at = wait::now();
    let (port, is_outgoing) = origin(&from);
    // A frame that the switch sends on was received before; one to all comes by the bridge once more.
    if is_outgoing || port == bridge {
        return Ok(Some(None));
    }
    #[expect(unsafe_code, reason = "socket2 reads into memory that need not have been written before")]
    // SAFETY: the kernel has written so many bytes of it.
    let bytes: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    Ok(Some(is_kept(&bytes).then_some(Seen { at, bytes })))
}

/// The index of the port that a frame was seen on, and whether it was sent there and not received.
fn origin(from: &SockAddr) -> (i32, bool) {
    #[expect(unsafe_code, reason = "the standard library and socket2 have no type for the address of a link")]
    // SAFETY: a packet socket gives addresses of this kind only, and the storage is large and aligned enough for any.
    let link = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
    (link.sll_ifindex, link.sll_pkttype == libc::PACKET_OUTGOING)
}
