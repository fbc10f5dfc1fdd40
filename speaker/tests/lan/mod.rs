//! A wire out of network namespaces: a bridge, some hosts and a client, each with `eth0` on it. Dropping it removes all of it.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ferrolb_proto::wire::Mac;
use ferrolb_runtime::clock::Clock;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// How long the client may take to learn who has an address.
const LEARN_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Lan {
    prefix: String,
    hosts: Vec<&'static str>,
}

impl Lan {
    /// A wire with these hosts and `client`, which has the addresses 172.30.0.100 and fd30::100.
    pub(crate) fn new(hosts: &[&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("flbs{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hosts: Vec<_> = hosts.iter().copied().chain(["client"]).collect();
        let lan = Self { prefix, hosts };
        batch(&lan.all().map(|host| format!("netns add {host}\n")).collect::<String>());
        let switch = lan.namespace("switch");
        lan.ip("-n", "switch", "link add br0 up type bridge mcast_snooping 0");
        for host in &lan.hosts {
            let (namespace, mac) = (lan.namespace(host), lan.mac(host));
            batch(&format!(
                "link add eth0 netns {namespace} address {mac} type veth peer name {host} netns {switch}\n"
            ));
            lan.ip("-n", "switch", &format!("link set {host} master br0 up"));
            lan.ip("-n", host, "link set lo up");
            lan.ip("-n", host, "link set eth0 up");
        }
        lan.ip("-n", "client", "address add 172.30.0.100/24 dev eth0");
        lan.ip("-n", "client", "address add fd30::100/64 dev eth0 nodad");
        lan
    }

    /// The hardware address of a host's `eth0`.
    pub(crate) fn mac(&self, host: &str) -> Mac {
        let place = self.hosts.iter().position(|other| *other == host).expect("a host of this wire");
        Mac([2, 0xfb, 0, 0, 0, u8::try_from(place + 1).expect("a small wire")])
    }

    /// Gives a host a second link, `eth1`, on the same wire.
    pub(crate) fn second_link(&self, host: &str) {
        let (namespace, switch, mac) = (self.namespace(host), self.namespace("switch"), self.mac_of(host, "eth1"));
        batch(&format!("link add eth1 netns {namespace} address {mac} type veth peer name {host}b netns {switch}\n"));
        self.ip("-n", "switch", &format!("link set {host}b master br0 up"));
        self.ip("-n", host, "link set eth1 up");
    }

    /// The hardware address of a host's link.
    pub(crate) fn mac_of(&self, host: &str, link: &str) -> Mac {
        let mut mac = self.mac(host);
        mac.0[4] = u8::from(link == "eth1");
        mac
    }

    /// The index of a host's `eth0`.
    fn index(&self, host: &str) -> u32 {
        self.index_of(host, "eth0")
    }

    /// The index of a host's link.
    pub(crate) fn index_of(&self, host: &str, link: &str) -> u32 {
        let shown = self.ip("-n", host, &format!("-o link show {link}"));
        shown.split_once(':').and_then(|(index, _)| index.parse().ok()).expect("an index")
    }

    /// Runs `ip` for a host.
    pub(crate) fn ip(&self, flag: &str, host: &str, words: &str) -> String {
        run(Command::new("ip").args([flag, &self.namespace(host)]).args(words.split(' ')))
    }

    /// Runs `act` on a thread of its own inside a host; threads that it starts are inside, too.
    pub(crate) fn inside<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(host))).expect("the namespace");
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root is needed");
            act()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("the act does not panic"))
    }

    /// Waits until the client's kernel, when it sends to `address`, sends to `mac`.
    pub(crate) async fn client_learns(&self, address: impl Into<IpAddr>, mac: Mac) {
        let address = address.into();
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let patience = Clock::now() + LEARN_MAX;
        loop {
            self.inside("client", || {
                let socket = UdpSocket::bind((any, 0)).expect("a socket");
                socket.send_to(b"?", (address, 9)).expect("a route");
            });
            let known = self.ip("-n", "client", &format!("neighbour show {address}"));
            if known.contains(&mac.to_string()) {
                return;
            }
            assert!(Clock::now() < patience, "the client does not send {address} to {mac}, but: {known}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the client's `ip` shows what is wanted.
    pub(crate) async fn client_sees(&self, is: impl Fn(&str) -> bool, words: &str) {
        let patience = Clock::now() + LEARN_MAX;
        loop {
            let shown = self.ip("-n", "client", words);
            if is(&shown) {
                return;
            }
            assert!(Clock::now() < patience, "the client never sees it: {shown}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends whole frames out of the client's `eth0`.
    pub(crate) fn client_sends(&self, frames: &[&[u8]]) {
        let index = i32::try_from(self.index("client")).expect("a small index");
        self.inside("client", || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).expect("root is needed");
            let mut storage = SockAddrStorage::zeroed();
            #[expect(unsafe_code, reason = "socket2 has no constructor for link-layer addresses")]
            // SAFETY: sockaddr_ll is a socket address type, and the length is its size.
            let address = unsafe {
                let link = storage.view_as::<libc::sockaddr_ll>();
                link.sll_family = libc::AF_PACKET as u16;
                link.sll_ifindex = index;
                SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
            };
            for frame in frames {
                assert_eq!(socket.send_to(frame, &address).expect("the link is up"), frame.len());
            }
        });
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn all(&self) -> impl Iterator<Item = String> + '_ {
        self.hosts.iter().copied().chain(["switch"]).map(|host| self.namespace(host))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in self.all() {
            // What a failed start did not make cannot be removed, and is no matter.
            let _ = Command::new("ip").args(["netns", "delete", &host]).stderr(Stdio::null()).status();
        }
    }
}

fn batch(commands: &str) {
    let mut ip =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("the program ip (iproute2)");
    ip.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("ip reads");
    assert!(ip.wait().expect("ip ends").success(), "ip could not do this; root is needed: {commands}");
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program ip (iproute2)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
