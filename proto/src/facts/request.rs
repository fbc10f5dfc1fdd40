//! What a Service asks of whoever gives it addresses, read from its annotations and from deprecated fields. Pure; the
//! decoder of Services and the CLI use it.
//!
//! Each annotation may be spelled under three prefixes ([`PREFIXES`]): the first that is there and not empty counts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::api::IpMode;
use crate::range::Family;

/// The prefixes of an annotation, the one that counts first. The others are MetalLB's, today's and the deprecated one.
const PREFIXES: [&str; 3] = ["ferrolb.io", "metallb.io", "metallb.universe.tf"];
/// Requested addresses, comma separated.
const LOAD_BALANCER_IPS: &str = "loadBalancerIPs";
/// The name of the pool to take from.
const ADDRESS_POOL: &str = "address-pool";
/// The key under which an address may be shared.
pub const ALLOW_SHARED_IP: &str = "allow-shared-ip";
/// `VIP`, `Proxy` or `Proxy,announce`; known under our own prefix only.
pub const IP_MODE: &str = "ferrolb.io/ip-mode";

/// The longest sharing key that is kept as it is, in bytes: it is kept for every Service and shown
/// in its condition.
const SHARING_KEY_MAX: usize = 253;
/// The longest name of an object, in bytes (RFC 1123 subdomain).
pub(super) const OBJECT_NAME_MAX: usize = 253;
/// The most of a text that an error repeats, in characters.
const SHOWN_MAX: usize = 60;

/// What a Service asks for. Empty: whatever is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// These addresses and no others, in the order written: one of each family that the Service has.
    pub addresses: Vec<IpAddr>,
    /// Out of this pool only.
    pub pool: Option<Box<str>>,
    /// Shared with Services that have the same key.
    pub sharing_key: Option<Box<str>>,
    /// Beats the pool's `spec.ipMode`.
    pub mode: Option<IpMode>,
    /// With `mode: Proxy`: announce the addresses all the same.
    pub announce: bool,
    /// Why it cannot be understood; the rest is what could be.
    pub problem: Option<Box<RequestProblem>>,
}

/// Why a request cannot be understood. The messages are for whoever wrote the Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestProblem {
    /// The deprecated field and the annotation are both set, even if they agree.
    #[error("spec.loadBalancerIP and annotation {0} are both set: remove spec.loadBalancerIP, which is deprecated")]
    Both(String),
    /// A text that is no address.
    #[error("{field}: {text:?} is no address: write one address of each of the Service's families, comma separated")]
    Address {
        /// Where it was written.
        field: String,
        /// The value of the annotation.
        text: String,
    },
    /// Addresses that are not one of each family of the Service.
    #[error("{field} asks for {asked}, and the Service has cluster IPs of {has}: ask for one address of each of them")]
    Families {
        /// Where it was written.
        field: String,
        /// The families of the addresses, or none.
        asked: String,
        /// The families of the Service.
        has: String,
    },
    /// A text that no pool can have as its name.
    #[error(
        "annotation {field}: {text:?} is no name of an IPAddressPool: write the name of one, or remove the annotation"
    )]
    Pool {
        /// Where it was written.
        field: String,
        /// The value of the annotation.
        text: String,
    },
    /// No such mode.
    #[error("annotation {IP_MODE}: {0:?} is no mode: write VIP, Proxy or Proxy,announce")]
    Mode(String),
}

impl Request {
    /// Reads the request of a Service that has cluster IPs of `families`. `deprecated` is `spec.loadBalancerIP`.
    #[must_use]
    pub fn read(annotations: Option<&BTreeMap<String, String>>, deprecated: Option<&str>, families: &[Family]) -> Self {
        let nothing = BTreeMap::new();
        let annotations = annotations.unwrap_or(&nothing);
        let key = spelled(annotations, ALLOW_SHARED_IP).map(|(_, key)| sharing_key(key));
        let mut request = Self { sharing_key: key, ..Self::default() };
        let deprecated = deprecated.filter(|ip| !ip.is_empty());
        // Each by itself: a slip in one is no reason to forget the others.
        let addresses = request.read_addresses(spelled(annotations, LOAD_BALANCER_IPS), deprecated, families);
        let pool = request.read_pool(spelled(annotations, ADDRESS_POOL));
        let mode = request.read_mode(annotations.get(IP_MODE).map(String::as_str));
        request.problem = addresses.and(pool).and(mode).err().map(Box::new);
        request
    }

    fn read_addresses(
        &mut self,
        annotation: Option<(String, &str)>,
        deprecated: Option<&str>,
        families: &[Family],
    ) -> Result<(), RequestProblem> {
        let (field, text) = match (annotation, deprecated) {
            (None, None) => return Ok(()),
            (Some((field, _)), Some(_)) => return Err(RequestProblem::Both(field)),
            (Some((field, text)), None) => (format!("annotation {field}"), text),
            (None, Some(text)) => ("spec.loadBalancerIP".to_owned(), text),
        };
        let address = |part: &str| {
            let text = shown(part.trim());
            part.trim().parse::<IpAddr>().map_err(|_| RequestProblem::Address { field: field.clone(), text })
        };
        // One more than there can be is enough to see that there are too many.
        let addresses = text.split(',').take(3).map(address).collect::<Result<Vec<_>, _>>()?;
        let mut asked: Vec<_> = addresses.iter().copied().map(Family::of).collect();
        let mut has = families.to_vec();
        asked.sort();
        has.sort();
        if asked != has && !families.is_empty() {
            return Err(RequestProblem::Families { field, asked: names(&asked), has: names(&has) });
        }
        self.addresses = addresses;
        Ok(())
    }

    fn read_pool(&mut self, annotation: Option<(String, &str)>) -> Result<(), RequestProblem> {
        let Some((field, name)) = annotation else { return Ok(()) };
        if !is_object_name(name) {
            return Err(RequestProblem::Pool { field, text: shown(name) });
        }
        self.pool = Some(name.into());
        Ok(())
    }

    fn read_mode(&mut self, annotation: Option<&str>) -> Result<(), RequestProblem> {
        let parts: Option<Vec<_>> = annotation.map(|text| text.split(',').map(str::trim).collect());
        (self.mode, self.announce) = match parts.as_deref() {
            None | Some([""]) => (None, false),
            Some(["VIP"]) => (Some(IpMode::Vip), false),
            Some(["Proxy"]) => (Some(IpMode::Proxy), false),
            Some(["Proxy", "announce"]) => (Some(IpMode::Proxy), true),
            Some(_) => return Err(RequestProblem::Mode(shown(annotation.unwrap_or_default()))),
        };
        Ok(())
    }
}

/// The annotation under the first prefix that has it, with its whole name.
fn spelled<'a>(annotations: &'a BTreeMap<String, String>, name: &str) -> Option<(String, &'a str)> {
    PREFIXES.into_iter().find_map(|prefix| {
        let spelling = format!("{prefix}/{name}");
        let value = annotations.get(&spelling).map(|value| value.trim()).filter(|value| !value.is_empty())?;
        Some((spelling, value))
    })
}

/// A sharing key as it is kept and shown: a longer one by its digest, which stands for the same
/// Services.
fn sharing_key(text: &str) -> Box<str> {
    if text.len() <= SHARING_KEY_MAX {
        return text.into();
    }
    let digest = Sha256::digest(text);
    digest.iter().fold("sha256:".to_owned(), |shown, byte| format!("{shown}{byte:02x}")).into()
}

/// True if an object of ours can have this name (RFC 1123 subdomain).
fn is_object_name(text: &str) -> bool {
    let label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (first, last) = (label.bytes().next(), label.bytes().next_back());
        first.is_some_and(legal) && last.is_some_and(legal) && label.bytes().all(|byte| legal(byte) || byte == b'-')
    };
    text.len() <= OBJECT_NAME_MAX && text.split('.').all(label)
}

/// As much of a text as an error repeats.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

fn names(families: &[Family]) -> String {
    families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Family; 2] = [Family::V6, Family::V4];
    const V4: [Family; 1] = [Family::V4];

    type Annotations<'a> = &'a [(&'a str, &'a str)];

    fn request(annotations: Annotations<'_>, deprecated: Option<&str>, families: &[Family]) -> Request {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request::read(Some(&annotations), deprecated, families)
    }

    fn asked(request: &Request) -> Vec<String> {
        request.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn our_spelling_counts_before_metallbs_and_that_before_the_deprecated_one() {
        let all = [
            ("metallb.universe.tf/address-pool", "c"),
            ("metallb.io/address-pool", "b"),
            ("ferrolb.io/address-pool", "a"),
        ];
        for (from, expect) in [(0, Some("a")), (1, Some("a")), (2, Some("a"))] {
            assert_eq!(request(&all[from..], None, &V4).pool.as_deref(), expect);
        }
        assert_eq!(request(&all[..2], None, &V4).pool.as_deref(), Some("b"));
        assert_eq!(request(&all[..1], None, &V4).pool.as_deref(), Some("c"));
        let empty = [("ferrolb.io/address-pool", ""), ("metallb.io/address-pool", "b")];
        assert_eq!(request(&empty, None, &V4).pool.as_deref(), Some("b"), "an empty one is not there");
        for prefix in PREFIXES {
            let key = request(&[(&format!("{prefix}/allow-shared-ip"), "k")], None, &V4).sharing_key;
            assert_eq!(key.as_deref(), Some("k"));
            let addresses = request(&[(&format!("{prefix}/loadBalancerIPs"), "10.0.0.1")], None, &V4);
            assert_eq!(asked(&addresses), ["10.0.0.1"]);
        }
        assert_eq!(Request::read(None, None, &V4), Request::default());
    }

    #[test]
    fn addresses_are_one_of_each_family_in_the_order_written() {
        let name = "metallb.io/loadBalancerIPs";
        assert_eq!(asked(&request(&[(name, " fd00::1 , 10.0.0.1")], None, &BOTH)), ["fd00::1", "10.0.0.1"]);
        assert_eq!(asked(&request(&[], Some("10.0.0.9"), &V4)), ["10.0.0.9"]);
        let cases: [(Annotations<'_>, Option<&str>, &[Family], &str); 9] = [
            (
                &[(name, "10.0.0.1")],
                Some("10.0.0.1"),
                &V4,
                "spec.loadBalancerIP and annotation metallb.io/loadBalancerIPs",
            ),
            (&[(name, "10.0.0.300")], None, &V4, "\"10.0.0.300\" is no address"),
            (&[(name, "10.0.0.1,")], None, &V4, "\"\" is no address"),
            (&[(name, "10.0.0.1")], None, &BOTH, "asks for IPv4, and the Service has cluster IPs of IPv4 and IPv6"),
            (&[(name, "fd00::1")], None, &V4, "asks for IPv6, and the Service has cluster IPs of IPv4"),
            (&[(name, "10.0.0.1,10.0.0.2")], None, &BOTH, "asks for IPv4 and IPv4"),
            (&[(name, "10.0.0.1,fd00::1,10.0.0.2,oops")], None, &BOTH, "asks for IPv4 and IPv4 and IPv6"),
            (&[], Some("web.example"), &V4, "spec.loadBalancerIP: \"web.example\" is no address"),
            (&[], Some("fd00::1"), &V4, "spec.loadBalancerIP asks for IPv6"),
        ];
        for (annotations, deprecated, families, why) in cases {
            let request = request(annotations, deprecated, families);
            let problem = request.problem.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(problem.contains(why), "{annotations:?}: {problem}");
            assert_eq!(asked(&request), <[&str; 0]>::default());
        }
    }

    #[test]
    fn modes_are_read_or_refused_and_an_error_repeats_no_novel() {
        for (text, mode, announce) in [
            ("VIP", Some(IpMode::Vip), false),
            ("Proxy", Some(IpMode::Proxy), false),
            ("Proxy, announce", Some(IpMode::Proxy), true),
            ("", None, false),
        ] {
            let request = request(&[(IP_MODE, text)], None, &V4);
            assert_eq!((request.mode, request.announce, request.problem), (mode, announce, None), "{text}");
        }
        let long = "x".repeat(100_000);
        for bad in ["proxy", "VIP,announce", "Proxy,", &long] {
            let problem = request(&[(IP_MODE, bad)], None, &V4).problem.unwrap().to_string();
            assert!(problem.contains("write VIP, Proxy or Proxy,announce") && problem.len() < 200, "{problem}");
        }
        let addresses = request(&[("ferrolb.io/loadBalancerIPs", &long)], None, &V4).problem.unwrap().to_string();
        assert!(addresses.len() < 250, "{addresses}");
    }

    #[test]
    fn a_long_sharing_key_is_kept_as_its_digest_and_no_other_key_has_it() {
        let key = |text: &str| request(&[("metallb.io/allow-shared-ip", text)], None, &V4);
        let (longest, long) = ("x".repeat(253), "x".repeat(260));
        assert_eq!(key(&longest).sharing_key.as_deref(), Some(&*longest));
        // sha256 of 260 times "x", by coreutils' sha256sum.
        let digest = "sha256:ca19811c67a40acd0fe35832864ca30917aba6c67bb17f440753cecbcb83e9d8";
        assert_eq!((key(&long).sharing_key.as_deref(), key(&long).problem), (Some(digest), None));
        assert_ne!(key(&"x".repeat(261)).sharing_key, key(&long).sharing_key);
    }

    #[test]
    fn what_no_pool_can_be_called_is_refused_and_not_repeated_in_full() {
        let pool = |text: &str| request(&[("ferrolb.io/address-pool", text)], None, &V4);
        for name in ["lan", "0", "a-b.c1", &"x".repeat(253)] {
            assert_eq!((pool(name).pool.as_deref(), pool(name).problem), (Some(name), None));
        }
        let log_line = format!("lan\nlevel=ERROR {}", "x".repeat(200_000));
        for text in ["Lan", "a_b", "-a", "a-", "a..b", ".", "a/b", "a b", "straße", &"x".repeat(254), &log_line] {
            let problem = pool(text).problem.unwrap().to_string();
            assert!(problem.contains("annotation ferrolb.io/address-pool: \"") && problem.len() < 250, "{problem}");
            assert!(!problem.contains('\n') && pool(text).pool.is_none(), "{problem}");
        }
    }
}
