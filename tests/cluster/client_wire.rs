//! The client's own eyes and hands on the wire (another host's, where a test says so), below its kernel: who answers for an address, counted by hardware address, and frames of
//! any shape.

use crate::pools::BRINGING_MAX;
use anyhow::{Context, Result, anyhow, bail, ensure};
use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_tests::topology::{CLIENT, Host, node_index};
use ferrolb_tests::traffic::capture::holder;
use ferrolb_tests::{Lab, wait};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

/// How many times an address is asked for before its answers are counted.
const REQUESTS: usize = 4;
/// How long the answers to each request are listened for. An answer takes microseconds, a frozen neighbour's some milliseconds.
const LISTEN: Duration = Duration::from_millis(100);

/// A raw socket on a host's link; it may be used from any thread.
pub(crate) struct Wire {
    pub(crate) mac: Mac,
    /// Whom the answers are for.
    asker: Host,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl Wire {
    /// Opens the client's link.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        Self::open_on(lab, &Host::client(), "eth0")
    }

    /// Opens a link of a host.
    pub(crate) fn open_on(lab: &Lab, host: &Host, link: &str) -> Result<Self> {
        lab.within(&host.name, || {
            let found = datalink::interfaces().into_iter().find(|found| found.name == link);
            let found = found.with_context(|| format!("{} has no {link}", host.name))?;
            let config = Config { read_timeout: Some(LISTEN), promiscuous: false, ..Config::default() };
            let Channel::Ethernet(sender, receiver) = datalink::channel(&found, config)? else { bail!("no Ethernet") };
            let mac = Mac(found.mac.context("the link has a MAC address")?.octets());
            Ok(Self { mac, asker: host.clone(), sender, receiver })
        })?
    }

    /// Asks all on the wire for `address`.
    pub(crate) fn ask(&mut self, address: impl Into<IpAddr>) -> Result<()> {
        match address.into() {
            IpAddr::V4(address) => self.send(&arp::request(self.mac, self.asker.v4(), address)),
            IpAddr::V6(address) => self.send(&ndp::solicitation(self.mac, self.asker.v6(), address)),
        }
    }

    /// Sends a whole frame, Ethernet header first.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender.send_to(frame, None).ok_or_else(|| anyhow!("the link takes no frame"))??;
        Ok(())
    }

    /// Shows every frame of the next `length` to `look`, the client's own included, until it has found something.
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
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The hardware addresses that answer for `address`, each once.
    pub(crate) fn answering(&mut self, address: impl Into<IpAddr>) -> Result<BTreeSet<Mac>> {
        let (address, mut answering) = (address.into(), BTreeSet::new());
        for _ in 0..REQUESTS {
            self.ask(address)?;
            self.listen(LISTEN, |frame| {
                answering.extend(holder(frame, address));
                None::<()>
            })?;
        }
        Ok(answering)
    }
}

/// The one node that answers for `address` right now.
pub(crate) fn owner(lab: &Lab, address: impl Into<IpAddr>) -> Result<String> {
    let address = address.into();
    let answering = Wire::open(lab)?.answering(address)?;
    let answering: Vec<String> = answering.into_iter().map(|mac| named(lab, mac)).collect();
    match answering.as_slice() {
        [one] if node_index(one).is_some() => Ok(one.clone()),
        other => bail!("{address} is answered by {other:?}, not by one node"),
    }
}

/// Waits until exactly one node answers for `address`; its name.
pub(crate) fn wait_owner(lab: &Lab, address: impl Into<IpAddr>) -> Result<String> {
    let address = address.into();
    wait::until(&format!("one owner of {address}"), BRINGING_MAX, || owner(lab, address).map(Some))
}

/// Waits until nobody answers for `address`.
pub(crate) fn wait_silent(lab: &Lab, address: impl Into<IpAddr>) -> Result<()> {
    let address = address.into();
    wait::until(&format!("silence about {address}"), BRINGING_MAX, || {
        let answering = Wire::open(lab)?.answering(address)?;
        ensure!(answering.is_empty(), "{answering:?} answer");
        Ok(Some(()))
    })
}

/// Waits until the client's kernel knows the address at this node's hardware address, without being made to ask.
pub(crate) fn wait_known(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    let mac = mac_of(node)?;
    wait::until(&format!("{address} is at {node}"), BRINGING_MAX, || {
        let known = lab.exec(CLIENT, &["ip", "neighbour", "show", &address.to_string()])?;
        ensure!(known.contains(&mac), "the client knows {known:?}, not {mac}");
        Ok(Some(()))
    })
}

/// The hardware address of a node.
pub(crate) fn mac_of(node: &str) -> Result<String> {
    Ok(Host::node(node_index(node).context("a node")?).mac())
}

/// The name of the host with this hardware address, or the address itself.
pub(crate) fn named(lab: &Lab, mac: Mac) -> String {
    let mac = mac.to_string();
    let mut hosts = vec![Host::control_plane(), Host::client()];
    hosts.extend(lab.nodes().iter().filter_map(|node| node_index(node)).map(Host::node));
    hosts.into_iter().find(|host| host.mac() == mac).map_or(mac, |host| host.name)
}
