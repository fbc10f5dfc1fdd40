//! Raw access to the network segment from the client or another host: a packet socket that collects
//! the MAC addresses that reply for an address, and sends arbitrary frames.

use crate::pools::STATE_MAX;
use anyhow::{Context, Result, anyhow, bail, ensure};
use ferrolb_lab::topology::{CLIENT, Host, node_index};
use ferrolb_lab::traffic::capture::claimed_by;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::wire::{Mac, arp, ndp};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Number of ARP requests or solicitations that [`SegmentSocket::replying`] sends.
const REQUESTS: usize = 4;
/// Time to wait for the replies to each request. A reply takes microseconds, and some milliseconds
/// from a stalled neighbor.
const REPLY_TIME: Duration = Duration::from_millis(100);
/// Interval of the requests that [`replies_while`] sends.
const RECORD_INTERVAL: Duration = Duration::from_millis(10);
/// Maximum time of one read of the socket.
const READ_MAX: Duration = RECORD_INTERVAL;

/// A raw socket on an interface of a host. Any thread may use it.
pub(crate) struct SegmentSocket {
    pub(crate) mac: Mac,
    /// Host that sends the requests and receives the replies.
    requester: Host,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl SegmentSocket {
    /// Opens a socket on the client's interface.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        Self::open_on(lab, &Host::client(), "eth0")
    }

    /// Opens a socket on an interface of a host.
    pub(crate) fn open_on(lab: &Lab, host: &Host, link: &str) -> Result<Self> {
        lab.within(&host.name, || {
            let mut interfaces = datalink::interfaces().into_iter();
            let interface = interfaces.find(|interface| interface.name == link);
            let interface = interface.with_context(|| format!("{} has no {link}", host.name))?;
            let config =
                Config { read_timeout: Some(READ_MAX), promiscuous: false, ..Config::default() };
            let Channel::Ethernet(sender, receiver) = datalink::channel(&interface, config)? else {
                bail!("{link} is no Ethernet interface")
            };
            let mac = Mac(interface.mac.context("the interface has no MAC")?.octets());
            Ok(Self { mac, requester: host.clone(), sender, receiver })
        })?
    }

    /// Broadcasts or multicasts a request for `address` on the segment.
    pub(crate) fn request(&mut self, address: impl Into<IpAddr>) -> Result<()> {
        match address.into() {
            IpAddr::V4(address) => self.send(&arp::request(self.mac, self.requester.v4(), address)),
            IpAddr::V6(address) => {
                self.send(&ndp::solicitation(self.mac, self.requester.v6(), address))
            }
        }
    }

    /// Sends a whole frame, Ethernet header first.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender
            .send_to(frame, None)
            .ok_or_else(|| anyhow!("the interface did not accept the frame"))??;
        Ok(())
    }

    /// Passes every frame that the interface receives or sends during `length` to `look`, until
    /// `look` returns `Some`, and returns that result.
    pub(crate) fn listen<T>(
        &mut self,
        length: Duration,
        mut look: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let end = wait::now() + length;
        while wait::now() < end {
            match self.receiver.next() {
                Ok(frame) => {
                    if let Some(found) = look(frame) {
                        return Ok(Some(found));
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Sends requests for all addresses until `is_over` is set, and records the replies.
    fn record(&mut self, addresses: &[IpAddr], is_over: &AtomicBool) -> Result<Replies> {
        let start = wait::now();
        let mut last: BTreeMap<IpAddr, Instant> = addresses.iter().map(|it| (*it, start)).collect();
        let mut replies = Replies { longest: Duration::ZERO, macs: BTreeMap::new() };
        while !is_over.load(Ordering::Relaxed) {
            addresses.iter().try_for_each(|address| self.request(*address))?;
            self.listen(RECORD_INTERVAL, |frame| {
                for address in addresses {
                    let Some(mac) = claimed_by(frame, *address) else { continue };
                    replies.macs.entry(*address).or_default().insert(mac);
                    let now = wait::now();
                    let before = last.insert(*address, now).unwrap_or(start);
                    replies.longest = replies.longest.max(now - before);
                }
                None::<()>
            })?;
        }
        let rest = last.values().map(Instant::elapsed).max().unwrap_or_default();
        replies.longest = replies.longest.max(rest);
        Ok(replies)
    }

    /// Returns the MAC addresses that reply for `address`, each once.
    pub(crate) fn replying(&mut self, address: impl Into<IpAddr>) -> Result<BTreeSet<Mac>> {
        let (address, mut replying_macs) = (address.into(), BTreeSet::new());
        for _ in 0..REQUESTS {
            self.request(address)?;
            self.listen(REPLY_TIME, |frame| {
                replying_macs.extend(claimed_by(frame, address));
                None::<()>
            })?;
        }
        Ok(replying_macs)
    }
}

/// Replies for some addresses while an event happened.
pub(crate) struct Replies {
    /// Longest time without a reply, over all addresses.
    pub(crate) longest: Duration,
    /// The hosts that have replied for each address.
    pub(crate) macs: BTreeMap<IpAddr, BTreeSet<Mac>>,
}

/// Sends requests for all addresses while `event` runs, and records the replies.
pub(crate) fn replies_while<T>(
    lab: &Lab,
    addresses: &[IpAddr],
    event: impl FnOnce() -> Result<T>,
) -> Result<(Replies, T)> {
    let mut socket = SegmentSocket::open(lab)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| socket.record(addresses, &is_over));
        let result = event();
        is_over.store(true, Ordering::Relaxed);
        let replies = recording.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((replies, result?))
    })
}

/// Returns the only node that replies for `address`. Fails if no host or several hosts reply.
pub(crate) fn owner(lab: &Lab, address: impl Into<IpAddr>) -> Result<String> {
    let address = address.into();
    let macs = SegmentSocket::open(lab)?.replying(address)?;
    let hosts: Vec<String> = macs.into_iter().map(|mac| host_name(lab, mac)).collect();
    match hosts.as_slice() {
        [one] if node_index(one).is_some() => Ok(one.clone()),
        other => bail!("these hosts reply for {address}, not exactly one node: {other:?}"),
    }
}

/// Waits until exactly one node replies for `address`, and returns its name.
pub(crate) fn wait_owner(lab: &Lab, address: impl Into<IpAddr>) -> Result<String> {
    let address = address.into();
    wait::until_heard(&format!("exactly one node replies for {address}"), STATE_MAX, || {
        owner(lab, address).map(Some)
    })
}

/// Waits until no host replies for `address`.
pub(crate) fn wait_unannounced(lab: &Lab, address: impl Into<IpAddr>) -> Result<()> {
    let address = address.into();
    wait::until_heard(&format!("no host replies for {address}"), STATE_MAX, || {
        let replying_macs = SegmentSocket::open(lab)?.replying(address)?;
        ensure!(replying_macs.is_empty(), "these hosts reply: {replying_macs:?}");
        Ok(Some(()))
    })
}

/// Waits until the client's neighbor entry for the address has this node's MAC address. The client
/// sends no request.
pub(crate) fn wait_neighbor_entry(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    let mac = mac_of(node)?;
    wait::until(&format!("the client's neighbor entry of {address} is {node}"), STATE_MAX, || {
        let known = lab.exec(CLIENT, &["ip", "neighbor", "show", &address.to_string()])?;
        ensure!(known.contains(&mac), "the client's neighbor entry is {known:?}, not {mac}");
        Ok(Some(()))
    })
}

/// Returns the MAC address of a node.
pub(crate) fn mac_of(node: &str) -> Result<String> {
    Ok(Host::node(node_index(node).context("the host is not a node of the lab")?).mac())
}

/// Returns the name of the host with this MAC address, or the MAC address itself.
pub(crate) fn host_name(lab: &Lab, mac: Mac) -> String {
    let mac = mac.to_string();
    let mut hosts = vec![Host::control_plane(), Host::client()];
    hosts.extend(lab.nodes().iter().filter_map(|node| node_index(node)).map(Host::node));
    hosts.into_iter().find(|host| host.mac() == mac).map_or(mac, |host| host.name)
}
