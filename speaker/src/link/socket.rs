//! Packet socket of one interface (packet(7)) for frames of one EtherType. Each frame begins with
//! its Ethernet header. Owned by the interface's thread.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use ferrolb_proto::wire::Mac;
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use super::LinkError;
use super::filter::Instruction;

/// An open socket. Reads and writes never block.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
    index: i32,
}

impl PacketSocket {
    /// Opens a socket for frames of `ether_type` on the interface `index` that pass the filter. The
    /// socket is created with protocol 0, so that the kernel queues nothing before the filter is
    /// attached.
    ///
    /// # Errors
    /// The kernel's error: EPERM without CAP_NET_RAW, ENODEV if the interface is gone.
    pub(super) fn open(index: u32, ether_type: u16, filter: &[Instruction]) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW.cloexec().nonblocking(),
            Some(Protocol::from(0)),
        )?;
        let socket = Self { socket, index };
        socket.set_filter(filter)?;
        let yes: libc::c_int = 1;
        socket.set_option(libc::PACKET_IGNORE_OUTGOING, &yes)?;
        socket.socket.bind(&link_layer_address(index, ether_type))?;
        Ok(socket)
    }

    /// Replaces the socket's filter at once: the kernel filters each frame by the old one or by the
    /// new one.
    ///
    /// # Errors
    /// The kernel's error, such as ENOMEM.
    pub(super) fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        let filter: Vec<SockFilter> = filter.iter().copied().map(SockFilter::from).collect();
        self.socket.attach_filter(&filter)
    }

    /// Joins the multicast group `mac`, so that its frames arrive too.
    ///
    /// # Errors
    /// The kernel's error.
    pub(super) fn join(&self, mac: Mac) -> io::Result<()> {
        let [a, b, c, d, e, f] = mac.0;
        let request = libc::packet_mreq {
            mr_ifindex: self.index,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: [a, b, c, d, e, f, 0, 0],
        };
        self.set_option(libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    /// Reads one frame into `buffer` and returns the frame. None: no frame is queued.
    ///
    /// # Errors
    /// The kernel's error: ENETDOWN if the interface went down.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.socket).read(buffer) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The kernel's error: ENETDOWN if the interface is down, ENOBUFS or EAGAIN if its queue is
    /// full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.socket).write(frame).map(drop)
    }

    /// Returns the number of frames that the kernel has dropped since the previous call because the
    /// socket's queue was full.
    ///
    /// # Errors
    /// The kernel's error.
    pub(super) fn take_drop_count(&self) -> io::Result<u64> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&stats) as libc::socklen_t;
        #[expect(unsafe_code, reason = "no safe wrapper reads PACKET_STATISTICS")]
        // SAFETY: the option writes at most `length` bytes of a tpacket_stats, which `stats` is.
        let result = unsafe {
            let stats = (&raw mut stats).cast();
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats,
                &raw mut length,
            )
        };
        if result == 0 { Ok(stats.tp_drops.into()) } else { Err(io::Error::last_os_error()) }
    }

    fn set_option<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        #[expect(unsafe_code, reason = "no safe wrapper sets options of packet sockets")]
        // SAFETY: the kernel reads `length` bytes at `value`, which is borrowed for as long.
        let result = unsafe {
            let value = (&raw const *value).cast();
            libc::setsockopt(self.socket.as_raw_fd(), libc::SOL_PACKET, option, value, length)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns the address that binds a packet socket to one EtherType of one interface.
fn link_layer_address(index: i32, ether_type: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    #[expect(unsafe_code, reason = "socket2 has no constructor for link-layer addresses")]
    // SAFETY: sockaddr_ll is a socket address type. All fields that its family needs are set,
    // and `length` is its size.
    unsafe {
        let link = storage.view_as::<libc::sockaddr_ll>();
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_protocol = ether_type.to_be();
        link.sll_ifindex = index;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }
}

/// Waits until an enabled descriptor becomes readable, at most for `timeout` if it is set. Returns
/// for each descriptor whether it is readable.
///
/// # Errors
/// [`LinkError::Poll`] if the kernel cannot wait.
pub(super) fn wait_readable<const N: usize>(
    descriptors: [(BorrowedFd<'_>, bool); N],
    timeout: Option<Duration>,
) -> Result<[bool; N], LinkError> {
    let timeout = timeout.map(|wait| Timespec {
        tv_sec: wait.as_secs().cast_signed(),
        tv_nsec: wait.subsec_nanos().into(),
    });
    let mut polled = descriptors.map(|(descriptor, enabled)| {
        let flags = if enabled { PollFlags::IN } else { PollFlags::empty() };
        PollFd::from_borrowed_fd(descriptor, flags)
    });
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(LinkError::Poll(error.into())),
    }
    Ok(polled.map(|descriptor| !descriptor.revents().is_empty()))
}

/// Sends a frame and counts it in `sent`. If the kernel rejects the frame, as with a full queue,
/// the frame is counted in `dropped`. Only an interface that is down or no longer exists is an
/// error.
pub(super) fn send(
    socket: &PacketSocket,
    frame: &[u8],
    sent: &Counter,
    dropped: &Counter,
) -> Result<(), LinkError> {
    match socket.send(frame) {
        Ok(()) => {
            sent.inc();
            Ok(())
        }
        Err(error) if is_gone(&error) => Err(LinkError::InterfaceDown(error)),
        Err(_) => {
            dropped.inc();
            Ok(())
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO))
}
