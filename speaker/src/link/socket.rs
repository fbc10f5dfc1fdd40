//! A packet socket of one link (packet(7)): frames of one EtherType, Ethernet header first. Owned by the link's thread.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ferrolb_proto::wire::Mac;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// An open socket. Reads and writes never block.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
    index: i32,
}

impl PacketSocket {
    /// Opens a socket for those frames of `ether_type` on the link of this index that the filter passes. It is made with protocol 0,
    /// so that the kernel queues nothing before the filter is there.
    ///
    /// # Errors
    /// What the kernel says: EPERM without CAP_NET_RAW, ENODEV when the link has gone.
    pub(super) fn open(index: u32, ether_type: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec().nonblocking(), Some(Protocol::from(0)))?;
        let socket = Self { socket, index };
        socket.socket.attach_filter(filter)?;
        let yes: libc::c_int = 1;
        socket.set(libc::PACKET_IGNORE_OUTGOING, &yes)?;
        socket.socket.bind(&address(index, ether_type))?;
        Ok(socket)
    }

    /// Passes what this filter passes from now on, in place of what passed before.
    ///
    /// # Errors
    /// What the kernel says: ENOMEM.
    pub(super) fn filter(&self, filter: &[SockFilter]) -> io::Result<()> {
        self.socket.attach_filter(filter)
    }

    /// Receives frames to the group address `mac`, too.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn join(&self, mac: Mac) -> io::Result<()> {
        let [a, b, c, d, e, f] = mac.0;
        let request = libc::packet_mreq {
            mr_ifindex: self.index,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: [a, b, c, d, e, f, 0, 0],
        };
        self.set(libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    /// Reads one frame into `buffer` and gives it; none when there is none.
    ///
    /// # Errors
    /// What the kernel says: ENETDOWN when the link went down.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.socket).read(buffer) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// What the kernel says: ENETDOWN when the link is down, ENOBUFS or EAGAIN when its queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.socket).write(frame).map(drop)
    }

    /// How many frames the kernel dropped since the last call because nobody read them in time.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&stats) as libc::socklen_t;
        #[expect(unsafe_code, reason = "no safe wrapper reads PACKET_STATISTICS")]
        // SAFETY: the option writes a tpacket_stats, which `stats` is, and no more than `length` bytes.
        let result = unsafe {
            let stats = (&raw mut stats).cast();
            libc::getsockopt(self.socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, stats, &raw mut length)
        };
        if result == 0 { Ok(stats.tp_drops.into()) } else { Err(io::Error::last_os_error()) }
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
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

/// Where a packet socket is bound to: one EtherType of one link.
fn address(index: i32, ether_type: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    #[expect(unsafe_code, reason = "socket2 has no constructor for link-layer addresses")]
    // SAFETY: sockaddr_ll is a socket address type, it is filled in as the family says, and `length` is its size.
    unsafe {
        let link = storage.view_as::<libc::sockaddr_ll>();
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_protocol = ether_type.to_be();
        link.sll_ifindex = index;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }
}
