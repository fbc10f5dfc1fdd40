//! Who may have an address together with whom (annotation `allow-shared-ip`). Pure values; the allocator asks them.
//!
//! Two Services share an address when both name the same key, no port of theirs is the same for the same protocol, and what
//! `externalTrafficPolicy: Local` makes of an address is the same for both: a node has an endpoint of one if and only if it
//! has one of the other, because their selectors are equal.

use std::fmt;

use ferrolb_proto::facts::{Policy, Port, Service};

/// Ports that a text lists.
const PORTS_NAMED_MAX: usize = 16;

/// On which terms a Service has its addresses: alone, or shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms(Option<Box<Sharing>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sharing {
    key: Box<str>,
    /// The selector of a Service whose policy is Local; none: Cluster.
    local: Option<Box<str>>,
    /// Sorted.
    ports: Box<[Port]>,
}

/// Why two Services cannot share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clash {
    /// One of them names no key.
    NoKey,
    /// They name different keys.
    Key,
    /// Both have this port.
    Port(Port),
    /// At least one is Local, and their selectors differ.
    Local,
}

impl Terms {
    /// How the text of any terms begins.
    pub(super) const PREFIX: &str = "shared under key ";

    pub(super) fn of(service: &Service) -> Self {
        let demand = &service.demand;
        Self(demand.request.sharing_key.as_ref().map(|key| {
            Box::new(Sharing {
                key: key.clone(),
                // An empty selector says as much about endpoints as none: MetalLB takes the two for the same.
                local: Some(demand.selector.clone()).filter(|s| service.policy == Policy::Local && !s.is_empty()),
                ports: demand.ports.clone(),
            })
        }))
    }

    /// The key, if the address may be shared.
    pub(super) fn key(&self) -> Option<&str> {
        self.0.as_ref().map(|sharing| &*sharing.key)
    }

    /// What keeps the two from having one address, if anything.
    pub(super) fn clash(&self, other: &Self) -> Option<Clash> {
        let (Some(own), Some(other)) = (&self.0, &other.0) else { return Some(Clash::NoKey) };
        if own.key != other.key {
            return Some(Clash::Key);
        }
        if own.local != other.local {
            return Some(Clash::Local);
        }
        own.ports.iter().find(|port| other.ports.binary_search(port).is_ok()).cloned().map(Clash::Port)
    }
}

/// For a condition. It is also the record of the terms on which an address was given: see [`super::service`].
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Sharing { key, local, ports }) = self.0.as_deref() else { return Ok(()) };
        write!(f, "{}{key:?} by ", Self::PREFIX)?;
        for (i, port) in ports.iter().take(PORTS_NAMED_MAX).enumerate() {
            write!(f, "{}{port}", if i > 0 { ", " } else { "" })?;
        }
        match ports.len() {
            0 => f.write_str("no port")?,
            n if n > PORTS_NAMED_MAX => write!(f, " and {} more", n - PORTS_NAMED_MAX)?,
            _ => {}
        }
        local.iter().try_for_each(|selector| write!(f, " for {selector} (Local)"))
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::{Demand, Request};

    use super::*;

    fn terms(key: &str, ports: &[(&str, u16)], local: Option<&str>) -> Terms {
        let key = (!key.is_empty()).then(|| key.into());
        let mut ports: Vec<_> =
            ports.iter().map(|(protocol, port)| Port { protocol: (*protocol).into(), port: *port }).collect();
        ports.sort();
        let request = Request { sharing_key: key, ..Request::default() };
        let selector = local.unwrap_or("app=cluster").into();
        let policy = if local.is_some() { Policy::Local } else { Policy::Cluster };
        Terms::of(&Service {
            policy,
            demand: Demand { request, ports: ports.into(), selector, ..Demand::default() },
            ..Service::default()
        })
    }

    #[test]
    fn services_share_by_key_without_a_common_port_and_with_equal_selectors_where_local() {
        let tcp = ("TCP", 53);
        let udp = ("UDP", 53);
        let cases = [
            (terms("dns", &[tcp], None), terms("dns", &[udp], None), None),
            (terms("dns", &[tcp, ("SCTP", 53)], None), terms("dns", &[udp], None), None),
            (terms("dns", &[], None), terms("dns", &[], None), None),
            (terms("dns", &[tcp], Some("a=b")), terms("dns", &[udp], Some("a=b")), None),
            (terms("dns", &[tcp], Some("")), terms("dns", &[udp], None), None),
            (terms("", &[tcp], None), terms("dns", &[udp], None), Some(Clash::NoKey)),
            (terms("", &[tcp], None), terms("", &[udp], None), Some(Clash::NoKey)),
            (terms("web", &[tcp], None), terms("dns", &[udp], None), Some(Clash::Key)),
            (terms("dns", &[tcp], None), terms("dns", &[udp], Some("a=b")), Some(Clash::Local)),
            (terms("dns", &[tcp], Some("a=c")), terms("dns", &[udp], Some("a=b")), Some(Clash::Local)),
            (
                terms("dns", &[tcp, udp], None),
                terms("dns", &[("TCP", 80), udp], None),
                Some(Clash::Port(Port { protocol: "UDP".into(), port: 53 })),
            ),
        ];
        for (a, b, clash) in cases {
            assert_eq!((a.clash(&b), b.clash(&a)), (clash.clone(), clash), "{a} and {b}");
        }
    }

    #[test]
    fn the_text_says_every_term() {
        assert_eq!(terms("", &[("TCP", 1)], None).to_string(), "");
        let dns = terms("dns", &[("UDP", 53), ("TCP", 53)], Some("a=b"));
        assert_eq!(dns.to_string(), "shared under key \"dns\" by TCP/53, UDP/53 for a=b (Local)");
        let many: Vec<_> = (1..=18).map(|port| ("TCP", port)).collect();
        assert!(terms("k", &many, None).to_string().ends_with("TCP/16 and 2 more"));
        assert_eq!(terms("k", &[], None).to_string(), "shared under key \"k\" by no port");
    }
}
