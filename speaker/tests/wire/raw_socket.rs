//! A raw socket on one host's interface, below its kernel: sends frames of any shape, and receives
//! all that arrive. Owned by a test.

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
pub(crate) const LONGEST: usize = hello::FRAME_MAX;
/// Sender of plain requests.
const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);
/// Timeout of one read.
const READ: Duration = Duration::from_millis(100);

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
    /// Opens a socket that receives all frames that arrive at a host's interface; the kernel has
    /// removed a VLAN tag.
    pub(crate) fn open(lan: &Segment, host: &str, link: &str) -> Self {
        let own = load(libc::SKF_AD_PKTTYPE);
        Self::filtered(
            lan,
            host,
            link,
            &[own, skip_if(libc::PACKET_OUTGOING as u32, 0, 1), DROP, PASS],
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
        socket.set_read_timeout(Some(READ)).expect("a timeout");
        let mut storage = SockAddrStorage::zeroed();
        #[expect(unsafe_code, reason = "socket2 has no constructor for link-layer addresses")]
        // SAFETY: sockaddr_ll is a socket address type, and the length is its size.
        let address = unsafe {
            let place = storage.view_as::<libc::sockaddr_ll>();
            place.sll_family = libc::AF_PACKET as u16;
            place.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            place.sll_ifindex = index;
            SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
        };
        socket.bind(&address).expect("the link is there");
        Self { socket, address, mac: lan.mac_of(host, link) }
    }

    /// Sends a whole frame, Ethernet header first.
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(self.socket.send_to(frame, &self.address).expect("the link is up"), frame.len());
    }

    /// Returns the next frame, if one arrives within [`READ`].
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; LONGEST];
        match (&self.socket).read(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            Err(error) => panic!("the link is up: {error}"),
        }
    }

    /// Returns all frames up to the first one that satisfies `is`.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (patience, mut frames) = (Clock::now() + TIMEOUT, Vec::<Vec<u8>>::new());
        while !frames.last().is_some_and(|frame| is(frame)) {
            assert!(Clock::now() < patience, "never seen: {what}");
            frames.extend(self.next());
        }
        frames
    }

    /// Requests the address of each family. Returns all replies that arrived at this host until
    /// then, including those two. Since a thread reads in order, earlier requests have their
    /// replies by then, if they get any.
    pub(crate) fn probe_and_collect_replies(&self) -> Vec<CapturedReply> {
        let questions: [(IpAddr, &[u8]); 2] = [
            (REQUESTER.into(), &arp::request(self.mac, REQUESTER, VIP)),
            (ASKER6.into(), &ndp::solicitation(self.mac, ASKER6, VIP6)),
        ];
        let mut answers = Vec::new();
        for (asker, question) in questions {
            self.send(question);
            let last = |frame: &[u8]| {
                self.parse_reply(frame).is_some_and(|answer| answer.requester == asker)
            };
            let frames = self.until("the answer to a plain question", last);
            answers.extend(frames.iter().filter_map(|frame| self.parse_reply(frame)));
        }
        answers
    }

    /// Returns the content of a frame if it is a reply to this host.
    pub(crate) fn parse_reply(&self, frame: &[u8]) -> Option<CapturedReply> {
        if !frame.starts_with(&self.mac.0) {
            return None;
        }
        if let Some(arp) = Arp::decode(frame) {
            let (address, asker) = (arp.sender.into(), arp.target.into());
            return (arp.operation == Operation::Reply).then_some(CapturedReply {
                address,
                mac: arp.sender_mac,
                requester: asker,
            });
        }
        let (ndp, asker) = (Ndp::decode(frame)?, <[u8; 16]>::try_from(frame.get(38..54)?).ok()?);
        let is = matches!(ndp.kind, NdpKind::Advertisement { .. });
        is.then(|| CapturedReply {
            address: ndp.target.into(),
            mac: ndp.mac.unwrap_or(ndp.source),
            requester: asker.into(),
        })
    }
}

/// Returns the replies of [`RawSocket::probe_and_collect_replies`] if this host replies to the
/// plain requests and nothing else.
pub(crate) fn plain_replies(mac: Mac) -> [CapturedReply; 2] {
    [
        CapturedReply { address: VIP.into(), mac, requester: REQUESTER.into() },
        CapturedReply { address: VIP6.into(), mac, requester: ASKER6.into() },
    ]
}

const fn load(ancillary: i32) -> SockFilter {
    SockFilter::new(LOAD, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Skips `then` instructions if the loaded word equals `value`, otherwise `otherwise` instructions.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value)
}
