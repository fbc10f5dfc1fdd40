//! Capture of every ARP, ICMP (with Neighbor Discovery) and hello frame on a lab's switch, once
//! each and in the order of arrival. One socket covers all ports, so that the kernel determines the
//! order.

use crate::topology::SWITCH;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::wire::arp::{self, Arp};
use ferrolb_proto::wire::hello::{self, Frame, HelloKeyRing};
use ferrolb_proto::wire::ndp::{self, Ndp, NdpKind};
use ferrolb_proto::wire::{ETHERNET_HEADER_LENGTH, Mac};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Maximum time of one read of the socket.
const READ_MAX: Duration = Duration::from_millis(100);
/// Maximum time for which a stopped capture still reads received frames.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Receive buffer in bytes.
const BUFFER_BYTES: usize = 16 << 20;
/// Maximum number of frames; a longer capture fails.
const FRAMES_MAX: usize = 1_000_000;
/// Maximum length of a frame, in bytes.
const FRAME_MAX: usize = ETHERNET_HEADER_LENGTH + 1500;
/// EtherType of IPv4.
const IPV4: u16 = libc::ETH_P_IP as u16;

/// A captured frame.
#[derive(Clone, Debug)]
pub struct CapturedFrame {
    pub at: Instant,
    pub bytes: Vec<u8>,
}

impl CapturedFrame {
    /// Returns the sender's hardware address.
    pub fn source(&self) -> Option<Mac> {
        Some(Mac(self.bytes.get(6..12)?.try_into().ok()?))
    }

    /// Decodes the frame as ARP.
    pub fn arp(&self) -> Option<Arp> {
        Arp::decode(&self.bytes)
    }

    /// Decodes the frame as Neighbor Discovery.
    pub fn ndp(&self) -> Option<Ndp> {
        Ndp::decode(&self.bytes)
    }

    /// Decodes the frame as a hello frame of speakers with one of these keys.
    pub fn hello(&self, keys: &HelloKeyRing) -> Option<Frame> {
        Frame::decode(&self.bytes, keys).ok().map(|(_, frame)| frame)
    }
}

/// Returns the hardware address of the host that claims the address in a frame: with a reply, with
/// an announcement, or as the sender of any ARP frame.
pub fn claimed_by(frame: &[u8], address: IpAddr) -> Option<Mac> {
    match address {
        IpAddr::V4(address) => {
            Arp::decode(frame).filter(|arp| arp.sender == address).map(|arp| arp.sender_mac)
        }
        IpAddr::V6(address) => {
            let ndp = Ndp::decode(frame)
                .filter(|ndp| ndp.kind != NdpKind::Solicitation && ndp.target == address)?;
            Some(ndp.mac.unwrap_or(ndp.source))
        }
    }
}

/// Returns the times at which the host that claims the address changed.
pub fn moves(frames: &[CapturedFrame], address: IpAddr) -> Vec<Instant> {
    let claims: Vec<(Instant, Mac)> = frames
        .iter()
        .filter_map(|frame| Some((frame.at, claimed_by(&frame.bytes, address)?)))
        .collect();
    claims.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0).collect()
}

/// Returns whether the frame belongs to a captured protocol.
fn is_captured(frame: &[u8]) -> bool {
    let Some(&[high, low]) = frame.get(12..ETHERNET_HEADER_LENGTH) else { return false };
    let carries = |offset: usize, protocols: &[i32]| {
        frame
            .get(ETHERNET_HEADER_LENGTH + offset)
            .is_some_and(|protocol| protocols.contains(&i32::from(*protocol)))
    };
    match u16::from_be_bytes([high, low]) {
        arp::ETHER_TYPE | hello::ETHER_TYPE => true,
        IPV4 => carries(9, &[libc::IPPROTO_ICMP]),
        // MLD follows a header of hop-by-hop options (RFC 3810 section 5).
        ndp::ETHER_TYPE => carries(6, &[libc::IPPROTO_ICMPV6, libc::IPPROTO_HOPOPTS]),
        _ => false,
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<CapturedFrame>>>,
}

impl Capture {
    /// Starts a capture.
    ///
    /// # Errors
    /// Without root permissions.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (socket, bridge) = lab.within(SWITCH, open_socket)??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut frames, mut end) = (Vec::new(), None);
            loop {
                // Frames from before the stop are already in the kernel, and are still read.
                end = end.or_else(|| stopped.load(Ordering::Relaxed).then(wait::now));
                match read_frame(&socket, bridge)? {
                    Some(frame) => frames.extend(frame),
                    None if end.is_some() => return Ok(frames),
                    None => {}
                }
                ensure!(frames.len() < FRAMES_MAX, "more than {FRAMES_MAX} frames were captured");
                if end.is_some_and(|end| end.elapsed() > DRAIN_MAX) {
                    return Ok(frames);
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Ends the capture and returns all of its frames.
    ///
    /// # Errors
    /// If the capture failed.
    pub fn stop(self) -> Result<Vec<CapturedFrame>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Opens a socket for all frames that any port receives, and returns the index of the bridge
/// itself.
fn open_socket() -> Result<(Socket, i32)> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all))))
        .context("no packet socket: a capture needs root permissions")?;
    let bridge = rustix::net::netdevice::name_to_index(&socket, "br0")
        .context("the switch has no bridge")?;
    socket.set_read_timeout(Some(READ_MAX))?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    Ok((socket, bridge.cast_signed()))
}

/// Reads the next frame. `None` if no frame arrives within [`READ_MAX`], `Some(None)` if the frame
/// is not captured.
fn read_frame(socket: &Socket, bridge: i32) -> Result<Option<Option<CapturedFrame>>> {
    let mut buffer = [MaybeUninit::uninit(); FRAME_MAX];
    let (length, from) = match socket.recv_from(&mut buffer) {
        Ok(received) => received,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            return Ok(None);
        }
        Err(error) => return Err(error).context("cannot capture"),
    };
    let at = wait::now();
    let (port, is_outgoing) = origin(&from);
    // A frame that the switch forwards was received before; a broadcast frame also appears on the
    // bridge.
    if is_outgoing || port == bridge {
        return Ok(Some(None));
    }
    #[expect(
        unsafe_code,
        reason = "socket2 reads into memory that need not have been written before"
    )]
    // SAFETY: the kernel has written this many bytes of the buffer.
    let bytes: Vec<u8> =
        buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    Ok(Some(is_captured(&bytes).then_some(CapturedFrame { at, bytes })))
}

/// Returns the index of a frame's port, and whether the frame was sent there rather than received.
fn origin(from: &SockAddr) -> (i32, bool) {
    #[expect(
        unsafe_code,
        reason = "the standard library and socket2 have no type for the address of a link"
    )]
    // SAFETY: a packet socket returns addresses of this type only, and the storage is large and
    // aligned enough for any address.
    let link = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
    (link.sll_ifindex, link.sll_pkttype == libc::PACKET_OUTGOING)
}
