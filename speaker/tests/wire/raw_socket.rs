//! A raw socket on one host's interface, below its kernel: sends frames of any shape, and receives
//! all frames that arrive.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::ndp::{self, Ndp, NdpKind};
use ferrolb_proto::wire::{Mac, hello};
use ferrolb_runtime::clock::Clock;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use crate::segment::Segment;
use crate::speaker::{TIMEOUT, VIP, VIP6};

/// The longest Ethernet frame, header included, in bytes.
pub(crate) const FRAME_LENGTH_MAX: usize = hello::FRAME_MAX;
/// Sender of the requests in [`RawSocket::probe_and_collect_replies`].
const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const REQUESTER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);
/// Timeout of one read.
const READ_TIMEOUT: Duration = Duration::from_millis(100);

// Instruction codes of classic BPF (Linux Documentation/networking/filter.rst).
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const PASS: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

pub(crate) struct RawSocket {
    socket: Socket,
    address: SockAddr,
    pub(crate) mac: Mac,
}

/// A reply to the host at [`RawSocket::mac`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CapturedReply {
    /// The requested address.
    pub(crate) address: IpAddr,
    /// The hardware address in the reply.
    pub(crate) mac: Mac,
    /// The address of the requesting host.
    pub(crate) requester: IpAddr,
}

impl RawSocket {
    /// Opens a socket that receives all frames that arrive at a host's interface. The kernel
    /// removes VLAN tags first.
    pub(crate) fn open(lan: &Segment, host: &str, link: &str) -> Self {
        let packet_type = load(libc::SKF_AD_PKTTYPE);
        Self::filtered(
            lan,
            host,
            link,
            &[packet_type, skip_if(libc::PACKET_OUTGOING as u32, 0, 1), DROP, PASS],
        )
    }

    /// Opens a socket that receives only unicast frames to this host.
    pub(crate) fn unicast_only(lan: &Segment, host: &str, link: &str) -> Self {
        Self::filtered(
            lan,
            host,
            link,
            &[load(libc::SKF_AD_PKTTYPE), skip_if(libc::PACKET_HOST as u32, 1, 0), DROP, PASS],
        )
    }

    /// Opens a socket that receives only frames with a VLAN tag.
    pub(crate) fn tagged(lan: &Segment, host: &str, link: &str) -> Self {
        let tag = load(libc::SKF_AD_VLAN_TAG_PRESENT);
        Self::filtered(lan, host, link, &[tag, skip_if(0, 0, 1), DROP, PASS])
    }

    fn filtered(lan: &Segment, host: &str, link: &str, filter: &[SockFilter]) -> Self {
        let index = i32::try_from(lan.index_of(host, link)).expect("a small index");
        let socket = lan.inside(host, || {
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).expect("root is needed")
        });
        socket.attach_filter(filter).expect("a filter");
        socket.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
        let mut storage = SockAddrStorage::zeroed();
        #[expect(unsafe_code, reason = "socket2 has no constructor for link-layer addresses")]
        // SAFETY: sockaddr_ll is a socket address type, and the length is its size.
        let address = unsafe {
            let link_address = storage.view_as::<libc::sockaddr_ll>();
            link_address.sll_family = libc::AF_PACKET as u16;
            link_address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            link_address.sll_ifindex = index;
            SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
        };
        socket.bind(&address).expect("the interface exists");
        Self { socket, address, mac: lan.mac_of(host, link) }
    }

    /// Sends a whole frame, Ethernet header first.
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(
            self.socket.send_to(frame, &self.address).expect("the interface is up"),
            frame.len()
        );
    }

    /// Returns the next frame, if one arrives within [`READ_TIMEOUT`].
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; FRAME_LENGTH_MAX];
        match (&self.socket).read(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            Err(error) => panic!("cannot read, is the interface up? {error}"),
        }
    }

    /// Returns all frames up to the first one for which `condition` returns true.
    pub(crate) fn read_until(&self, what: &str, condition: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (deadline, mut frames) = (Clock::now() + TIMEOUT, Vec::<Vec<u8>>::new());
        while !frames.last().is_some_and(|frame| condition(frame)) {
            assert!(Clock::now() < deadline, "{what} did not arrive in time");
            frames.extend(self.next());
        }
        frames
    }

    /// Requests [`VIP`], then [`VIP6`]. Returns all replies that arrive at this host up to the
    /// reply for [`VIP6`]. They include all replies to earlier requests, because an interface
    /// thread reads frames in order.
    pub(crate) fn probe_and_collect_replies(&self) -> Vec<CapturedReply> {
        let plain_requests: [(IpAddr, &[u8]); 2] = [
            (REQUESTER.into(), &arp::request(self.mac, REQUESTER, VIP)),
            (REQUESTER6.into(), &ndp::solicitation(self.mac, REQUESTER6, VIP6)),
        ];
        let mut replies = Vec::new();
        for (requester, request) in plain_requests {
            self.send(request);
            let is_expected = |frame: &[u8]| {
                self.parse_reply(frame).is_some_and(|reply| reply.requester == requester)
            };
            let frames = self.read_until("the reply to a plain request", is_expected);
            replies.extend(frames.iter().filter_map(|frame| self.parse_reply(frame)));
        }
        replies
    }

    /// Returns the content of a frame if it is a reply to this host.
    pub(crate) fn parse_reply(&self, frame: &[u8]) -> Option<CapturedReply> {
        if !frame.starts_with(&self.mac.0) {
            return None;
        }
        if let Some(arp) = Arp::decode(frame) {
            let (address, requester) = (arp.sender.into(), arp.target.into());
            return (arp.operation == Operation::Reply).then_some(CapturedReply {
                address,
                mac: arp.sender_mac,
                requester,
            });
        }
        let (ndp, requester) =
            (Ndp::decode(frame)?, <[u8; 16]>::try_from(frame.get(38..54)?).ok()?);
        let is_advertisement = matches!(ndp.kind, NdpKind::Advertisement { .. });
        is_advertisement.then(|| CapturedReply {
            address: ndp.target.into(),
            mac: ndp.mac.unwrap_or(ndp.source),
            requester: requester.into(),
        })
    }
}

/// Returns the replies of [`RawSocket::probe_and_collect_replies`] if this host replies to the
/// plain requests and nothing else.
pub(crate) fn plain_replies(mac: Mac) -> [CapturedReply; 2] {
    [
        CapturedReply { address: VIP.into(), mac, requester: REQUESTER.into() },
        CapturedReply { address: VIP6.into(), mac, requester: REQUESTER6.into() },
    ]
}

const fn load(ancillary: i32) -> SockFilter {
    SockFilter::new(LOAD, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Skips `then` instructions if the loaded word equals `value`, otherwise `otherwise` instructions.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value)
}
