//! Rules for sharing an address between Services (annotation `allow-shared-ip`). Pure values, used
//! by the allocator.
//!
//! Two Services can share an address if three conditions hold:
//! - Both have the same sharing key.
//! - No port with the same protocol and number is in both.
//! - Both have `externalTrafficPolicy: Cluster`, or both have `Local` with equal selectors. With
//!   equal selectors, each node has endpoints of both Services or of none.

use std::fmt;

use ferrolb_proto::facts::{Service, ServicePort, TrafficPolicy};
use sha2::{Digest, Sha256};

/// Maximum number of ports that a message lists.
const PORTS_NAMED_MAX: usize = 16;

/// Sharing parameters of a Service; `None` if the Service does not share its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SharingParameters(Option<Box<Sharing>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sharing {
    key: Box<str>,
    /// Selector of a Service with `externalTrafficPolicy: Local`; `None` with `Cluster`.
    local: Option<Box<str>>,
    /// Ports of the Service, sorted.
    ports: Box<[ServicePort]>,
}

/// Reason why two Services cannot share an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SharingConflict {
    /// Another Service has the address, and one of them has no sharing key.
    ///
    /// Action: Request another address, or set the same `ferrolb.io/allow-shared-ip`.
    NoKey,
    /// The sharing keys of the Services differ.
    ///
    /// Action: Set the same `ferrolb.io/allow-shared-ip`.
    Key,
    /// Both Services have the same port.
    ///
    /// Action: Change one of the ports.
    Port(ServicePort),
    /// With `externalTrafficPolicy: Local`, the policies or the selectors differ.
    ///
    /// Action: Change the policy or the selector of one.
    Local,
}

impl SharingParameters {
    pub(super) fn of(service: &Service) -> Self {
        let demand = &service.demand;
        Self(demand.request.sharing_key.as_ref().map(|key| {
            Box::new(Sharing {
                key: key.clone(),
                // An empty selector gives no information about endpoints, so the Service is treated
                // like one with policy Cluster. MetalLB does the same.
                local: Some(demand.selector.clone())
                    .filter(|s| service.policy == TrafficPolicy::Local && !s.is_empty()),
                ports: demand.ports.clone(),
            })
        }))
    }

    /// Returns the sharing key, or `None` if the Service does not share its addresses.
    pub(super) fn key(&self) -> Option<&str> {
        self.0.as_ref().map(|sharing| &*sharing.key)
    }

    /// Returns a digest of the sharing parameters for an annotation of the Service, or `None` if
    /// the Service does not share its addresses.
    pub(super) fn digest(&self) -> Option<u64> {
        let Sharing { key, local, ports } = self.0.as_deref()?;
        // Hashes the length before the text. A text may contain any byte, so no separator could
        // mark its end.
        let text = |hash: Sha256, text: &str| {
            hash.chain_update(text.len().to_be_bytes()).chain_update(text)
        };
        let hash = text(Sha256::new(), key).chain_update([u8::from(local.is_some())]);
        let hash = text(hash, local.as_deref().unwrap_or_default());
        let hash = ports.iter().fold(hash, |hash, port| text(hash, &port.to_string()));
        let [a, b, c, d, e, f, g, h, ..] = hash.finalize().0;
        Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Returns the reason why two Services cannot share an address, if any.
    pub(super) fn conflict_with(&self, other: &Self) -> Option<SharingConflict> {
        let (Some(own), Some(other)) = (&self.0, &other.0) else {
            return Some(SharingConflict::NoKey);
        };
        if own.key != other.key {
            return Some(SharingConflict::Key);
        }
        if own.local != other.local {
            return Some(SharingConflict::Local);
        }
        own.ports
            .iter()
            .find(|port| other.ports.binary_search(port).is_ok())
            .cloned()
            .map(SharingConflict::Port)
    }
}

/// Renders the sharing parameters for a condition's message.
impl fmt::Display for SharingParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Sharing { key, local, ports }) = self.0.as_deref() else { return Ok(()) };
        write!(f, "shared under key {key:?} by ")?;
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
    use std::collections::BTreeSet;

    use ferrolb_proto::facts::{AddressRequest, AllocationDemand};

    use super::*;

    fn parameters(key: &str, ports: &[(&str, u16)], local: Option<&str>) -> SharingParameters {
        let key = (!key.is_empty()).then(|| key.into());
        let mut ports: Vec<_> = ports
            .iter()
            .map(|(protocol, port)| ServicePort { protocol: (*protocol).into(), port: *port })
            .collect();
        ports.sort();
        let request = AddressRequest { sharing_key: key, ..AddressRequest::default() };
        let selector = local.unwrap_or("app=cluster").into();
        let policy = if local.is_some() { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        SharingParameters::of(&Service {
            policy,
            demand: AllocationDemand {
                request,
                ports: ports.into(),
                selector,
                ..AllocationDemand::default()
            },
            ..Service::default()
        })
    }

    #[test]
    fn sharing_requires_equal_keys_selectors_and_distinct_ports() {
        let tcp = ("TCP", 53);
        let udp = ("UDP", 53);
        let cases = [
            (parameters("dns", &[tcp], None), parameters("dns", &[udp], None), None),
            (parameters("dns", &[tcp, ("SCTP", 53)], None), parameters("dns", &[udp], None), None),
            (parameters("dns", &[], None), parameters("dns", &[], None), None),
            (parameters("dns", &[tcp], Some("a=b")), parameters("dns", &[udp], Some("a=b")), None),
            (parameters("dns", &[tcp], Some("")), parameters("dns", &[udp], None), None),
            (
                parameters("", &[tcp], None),
                parameters("dns", &[udp], None),
                Some(SharingConflict::NoKey),
            ),
            (
                parameters("", &[tcp], None),
                parameters("", &[udp], None),
                Some(SharingConflict::NoKey),
            ),
            (
                parameters("web", &[tcp], None),
                parameters("dns", &[udp], None),
                Some(SharingConflict::Key),
            ),
            (
                parameters("dns", &[tcp], None),
                parameters("dns", &[udp], Some("a=b")),
                Some(SharingConflict::Local),
            ),
            (
                parameters("dns", &[tcp], Some("a=c")),
                parameters("dns", &[udp], Some("a=b")),
                Some(SharingConflict::Local),
            ),
            (
                parameters("dns", &[tcp, udp], None),
                parameters("dns", &[("TCP", 80), udp], None),
                Some(SharingConflict::Port(ServicePort { protocol: "UDP".into(), port: 53 })),
            ),
        ];
        for (a, b, conflict) in cases {
            assert_eq!(
                (a.conflict_with(&b), b.conflict_with(&a)),
                (conflict.clone(), conflict),
                "{a} and {b}"
            );
        }
    }

    #[test]
    fn the_digest_covers_every_parameter() {
        let (tcp, udp) = (("TCP", 53), ("UDP", 53));
        let all = [
            parameters("dns", &[], None),
            parameters("dns", &[tcp], None),
            parameters("dns", &[tcp, udp], None),
            parameters("web", &[tcp], None),
            parameters("dns", &[tcp], Some("a=b")),
            parameters("dns", &[tcp], Some("a=c")),
        ];
        let digests: BTreeSet<_> = all.iter().map(SharingParameters::digest).collect();
        assert_eq!((digests.len(), digests.contains(&None)), (all.len(), false));
        assert_eq!(
            parameters("dns", &[udp, tcp], None).digest(),
            all[2].digest(),
            "the order of the ports does not matter"
        );
        assert_eq!(parameters("", &[tcp], None).digest(), None);
        // Annotations store the digest. With a different digest, every sharing Service would count
        // as changed.
        assert_eq!(all[1].digest(), Some(0x175a_e73f_6c4e_4128));
    }

    #[test]
    fn the_text_contains_every_parameter() {
        assert_eq!(parameters("", &[("TCP", 1)], None).to_string(), "");
        let dns = parameters("dns", &[("UDP", 53), ("TCP", 53)], Some("a=b"));
        assert_eq!(dns.to_string(), "shared under key \"dns\" by TCP/53, UDP/53 for a=b (Local)");
        let many: Vec<_> = (1..=18).map(|port| ("TCP", port)).collect();
        assert!(parameters("k", &many, None).to_string().ends_with("TCP/16 and 2 more"));
        assert_eq!(parameters("k", &[], None).to_string(), "shared under key \"k\" by no port");
    }
}
