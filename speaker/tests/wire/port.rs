//! A raw socket on one host's link, below its kernel: frames of any shape go out, and all that arrive are seen. A test owns it.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::ndp::{self, Kind, Ndp};
use ferrolb_proto::wire::{Mac, hello};
use ferrolb_runtime::clock::Clock;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use crate::lan::Lan;
use crate::speaker::{PATIENCE, VIP, VIP6};

/// The longest frame of an Ethernet link, header included, in bytes.
pub(crate) const LONGEST: usize = hello::FRAME_MAX;
/// Who asks in plain words.
const ASKER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);
/// How long one read waits for a frame.
const READ: Duration = Duration::from_millis(100);

// Instruction codes of classic BPF (Linux Documentation/networking/filter.rst).
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const PASS: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

pub(crate) struct Port {
    socket: Socket,
    address: SockAddr,
    pub(crate) mac: Mac,
}

/// Who told the host at [`Port::mac`] where an address is, as an answer to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    /// The address that was asked for.
    pub(crate) address: IpAddr,
    /// Where it is.
    pub(crate) mac: Mac,
    /// Who asked.
    pub(crate) asker: IpAddr,
}

impl Port {
    /// Sees all frames that arrive at a host's link; a VLAN tag has been taken off by the kernel.
    pub(crate) fn open(lan: &Lan, host: &str, link: &str) -> Self {
        let own = load(libc::SKF_AD_PKTTYPE);
        Self::filtered(lan, host, link, &[own, skip_if(libc::PACKET_OUTGOING as u32, 0, 1), DROP, PASS])
    }

    /// Sees those that are sent to this host alone.
    pub(crate) fn direct(lan: &Lan, host: &str, link: &str) -> Self {
        Self::filtered(
            lan,
            host,
            link,
            &[load(libc::SKF_AD_PKTTYPE), skip_if(libc::PACKET_HOST as u32, 1, 0), DROP, PASS],
        )
    }

    /// Sees those that arrive with a VLAN tag.
    pub(crate) fn tagged(lan: &Lan, host: &str, link: &str) -> Self {
        let tag = load(libc::SKF_AD_VLAN_TAG_PRESENT);
        Self::filtered(lan, host, link, &[tag, skip_if(0, 0, 1), DROP, PASS])
    }

    fn filtered(lan: &Lan, host: &str, link: &str, filter: &[SockFilter]) -> Self {
        let index = i32::try_from(lan.index_of(host, link)).expect("a small index");
        let socket = lan
            .inside(host, || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).expect("root is needed"));
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

    /// The next frame, if one is there within a moment.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; LONGEST];
        match (&self.socket).read(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(error) => panic!("the link is up: {error}"),
        }
    }

    /// All frames up to the first one that `is` is about.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (patience, mut frames) = (Clock::now() + PATIENCE, Vec::<Vec<u8>>::new());
        while !frames.last().is_some_and(|frame| is(frame)) {
            assert!(Clock::now() < patience, "never seen: {what}");
            frames.extend(self.next());
        }
        frames
    }

    /// Asks for the address of each family in plain words; all answers that came to this host until then, those included. Since a
    /// thread reads in order, whatever was sent before has had its answer by then, if it gets one.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        let questions: [(IpAddr, &[u8]); 2] = [
            (ASKER.into(), &arp::request(self.mac, ASKER, VIP)),
            (ASKER6.into(), &ndp::solicitation(self.mac, ASKER6, VIP6)),
        ];
        let mut answers = Vec::new();
        for (asker, question) in questions {
            self.send(question);
            let last = |frame: &[u8]| self.answer(frame).is_some_and(|answer| answer.asker == asker);
            let frames = self.until("the answer to a plain question", last);
            answers.extend(frames.iter().filter_map(|frame| self.answer(frame)));
        }
        answers
    }

    /// What a frame says, if it answers this host.
    pub(crate) fn answer(&self, frame: &[u8]) -> Option<Answer> {
        if !frame.starts_with(&self.mac.0) {
            return None;
        }
        if let Some(arp) = Arp::decode(frame) {
            let (address, asker) = (arp.sender.into(), arp.target.into());
            return (arp.operation == Operation::Reply).then_some(Answer { address, mac: arp.sender_mac, asker });
        }
        let (ndp, asker) = (Ndp::decode(frame)?, <[u8; 16]>::try_from(frame.get(38..54)?).ok()?);
        let is = matches!(ndp.kind, Kind::Advertisement { .. });
        is.then(|| Answer { address: ndp.target.into(), mac: ndp.mac.unwrap_or(ndp.source), asker: asker.into() })
    }
}

/// The answers of [`Port::answers`] where nothing but the plain questions is answered, by this host.
pub(crate) fn plain(mac: Mac) -> [Answer; 2] {
    [
        Answer { address: VIP.into(), mac, asker: ASKER.into() },
        Answer { address: VIP6.into(), mac, asker: ASKER6.into() },
    ]
}

const fn load(ancillary: i32) -> SockFilter {
    SockFilter::new(LOAD, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Skips `then` instructions where the loaded word equals `value`, `otherwise` instructions where not.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value)
}
