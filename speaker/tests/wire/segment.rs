//! A network segment made of network namespaces: a bridge, some hosts and a client, each with
//! `eth0` on it. Dropping the segment removes all of them.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ferrolb_proto::wire::Mac;
use ferrolb_runtime::clock::Clock;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Maximum time until a command shows a change of a kernel's state.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// Lock of all tests: a test that needs all processors takes the lock exclusively, and the others
/// share the lock.
static EXCLUSIVE: RwLock<()> = RwLock::new(());

pub(crate) struct Segment {
    prefix: String,
    hosts: Vec<&'static str>,
    _exclusivity: Exclusivity,
}

#[expect(dead_code, reason = "the lock guards are never read")]
enum Exclusivity {
    Shared(RwLockReadGuard<'static, ()>),
    Exclusive(RwLockWriteGuard<'static, ()>),
}

impl Segment {
    /// Creates a segment with these hosts and `client`, which has the addresses 172.30.0.100 and
    /// fd30::100.
    pub(crate) fn new(hosts: &[&'static str]) -> Self {
        Self::build(
            hosts,
            Exclusivity::Shared(EXCLUSIVE.read().unwrap_or_else(PoisonError::into_inner)),
        )
    }

    /// Creates a segment while no other exists: for tests that use all processors, or rely on a
    /// free one.
    pub(crate) fn exclusive(hosts: &[&'static str]) -> Self {
        Self::build(
            hosts,
            Exclusivity::Exclusive(EXCLUSIVE.write().unwrap_or_else(PoisonError::into_inner)),
        )
    }

    fn build(hosts: &[&'static str], exclusivity: Exclusivity) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix =
            format!("flbs{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hosts: Vec<_> = hosts.iter().copied().chain(["client"]).collect();
        let lan = Self { prefix, hosts, _exclusivity: exclusivity };
        run_ip_batch(
            &lan.namespaces().map(|host| format!("netns add {host}\n")).collect::<String>(),
        );
        let switch = lan.namespace("switch");
        lan.ip("-n", "switch", "link add br0 up type bridge mcast_snooping 0");
        // A switch also forwards invalid IPv6; Linux drops such frames on a bridge where
        // br_netfilter is loaded.
        let bridge_filters = Path::new("/proc/sys/net/bridge/bridge-nf-call-ip6tables");
        lan.inside("switch", || {
            bridge_filters
                .exists()
                .then(|| fs::write(bridge_filters, "0").expect("a switch without netfilter"))
        });
        for host in &lan.hosts {
            let (namespace, mac) = (lan.namespace(host), lan.mac(host));
            run_ip_batch(&format!(
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

    /// Returns the hardware address of a host's `eth0`.
    pub(crate) fn mac(&self, host: &str) -> Mac {
        let position =
            self.hosts.iter().position(|other| *other == host).expect("a host of this segment");
        Mac([2, 0xfb, 0, 0, 0, u8::try_from(position + 1).expect("at most 254 hosts")])
    }

    /// Adds a second interface, `eth1`, to a host on the same segment.
    pub(crate) fn add_eth1(&self, host: &str) {
        let (namespace, switch, mac) =
            (self.namespace(host), self.namespace("switch"), self.mac_of(host, "eth1"));
        run_ip_batch(&format!(
            "link add eth1 netns {namespace} address {mac} type veth peer name {host}b netns {switch}\n"
        ));
        self.ip("-n", "switch", &format!("link set {host}b master br0 up"));
        self.ip("-n", host, "link set eth1 up");
    }

    /// Returns the hardware address of a host's interface. Interfaces other than `eth1` and `br0`
    /// have the address of `eth0`.
    pub(crate) fn mac_of(&self, host: &str, link: &str) -> Mac {
        let mut mac = self.mac(host);
        mac.0[4] = ["eth1", "br0"]
            .into_iter()
            .zip(1..)
            .find(|(name, _)| *name == link)
            .map_or(0, |(_, byte)| byte);
        mac
    }

    /// Returns the index of a host's interface.
    pub(crate) fn index_of(&self, host: &str, link: &str) -> u32 {
        let shown = self.ip("-n", host, &format!("-o link show {link}"));
        shown.split_once(':').and_then(|(index, _)| index.parse().ok()).expect("an index")
    }

    /// Runs `ip` for a host.
    pub(crate) fn ip(&self, flag: &str, host: &str, arguments: &str) -> String {
        run_command(
            Command::new("ip").args([flag, &self.namespace(host)]).args(arguments.split(' ')),
        )
    }

    /// Adds an nftables table to a host, in the syntax of `nft`.
    pub(crate) fn add_filter(&self, host: &str, table: &str) {
        self.inside(host, || {
            let mut nft = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .expect("the program nft (nftables)");
            nft.stdin.take().expect("a pipe").write_all(table.as_bytes()).expect("nft reads");
            assert!(nft.wait().expect("nft ends").success(), "nft failed: {table}");
        });
    }

    /// Runs `action` on a new thread in a host's namespace; threads that `action` starts are also
    /// in that namespace.
    pub(crate) fn inside<T: Send>(&self, host: &str, action: impl FnOnce() -> T + Send) -> T {
        let namespace =
            File::open(format!("/run/netns/{}", self.namespace(host))).expect("the namespace");
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root is needed");
            action()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("the action does not panic"))
    }

    /// Sends packets from the client until its kernel's neighbor entry of `address` has `mac`.
    pub(crate) async fn client_learns(&self, address: impl Into<IpAddr>, mac: Mac) {
        let address = address.into();
        let unspecified: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let neighbor_entry = || {
            self.inside("client", || {
                let socket = UdpSocket::bind((unspecified, 0)).expect("a socket");
                socket.send_to(b"?", (address, 9)).expect("a route");
            });
            self.ip("-n", "client", &format!("neighbor show {address}"))
        };
        wait_for_output(&format!("{address} at {mac}"), neighbor_entry, |neighbor_entry| {
            neighbor_entry.contains(&mac.to_string())
        })
        .await;
    }

    /// Makes a host's `eth0` a port of a bridge `br0`, as on a node with virtual machines.
    pub(crate) fn add_bridge(&self, host: &str) {
        self.ip(
            "-n",
            host,
            &format!("link add br0 address {} up type bridge", self.mac_of(host, "br0")),
        );
        self.ip("-n", host, "link set eth0 master br0");
    }

    /// Makes the switch forward multicast only to ports whose hosts joined the group by MLD, and
    /// send MLD queries.
    pub(crate) fn enable_mld_snooping(&self) {
        self.ip("-n", "switch", "address add fe80::5 dev br0 nodad");
        // The values are in hundredths of a second.
        let times = "mcast_query_response_interval 100 mcast_startup_query_interval 100 mcast_last_member_interval 20";
        // The kernel reads the times when it begins to send queries.
        for arguments in [times, "mcast_snooping 1 mcast_querier 1"] {
            self.ip("-n", "switch", &format!("link set br0 type bridge {arguments}"));
        }
    }

    /// Returns the groups that each port of the switch has joined.
    pub(crate) fn port_groups(&self) -> String {
        run_command(Command::new("bridge").args([
            "-n",
            &self.namespace("switch"),
            "mdb",
            "show",
            "dev",
            "br0",
        ]))
    }

    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn namespaces(&self) -> impl Iterator<Item = String> + '_ {
        self.hosts.iter().copied().chain(["switch"]).map(|host| self.namespace(host))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        for host in self.namespaces() {
            // Ignores failures: a failed setup may not have created the namespace.
            let _ =
                Command::new("ip").args(["netns", "delete", &host]).stderr(Stdio::null()).status();
        }
    }
}

/// Waits until `condition` returns true for the output of `show`.
pub(crate) async fn wait_for_output(
    what: &str,
    show: impl Fn() -> String,
    condition: impl Fn(&str) -> bool,
) {
    let deadline = Clock::now() + OUTPUT_TIMEOUT;
    loop {
        let shown = show();
        if condition(&shown) {
            return;
        }
        assert!(Clock::now() < deadline, "never seen: {what}; last output: {shown}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn run_ip_batch(commands: &str) {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program ip (iproute2)");
    ip.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("ip reads its input");
    assert!(ip.wait().expect("ip ends").success(), "ip failed (root is needed): {commands}");
}

fn run_command(command: &mut Command) -> String {
    let output = command.output().expect("the program ip (iproute2)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
