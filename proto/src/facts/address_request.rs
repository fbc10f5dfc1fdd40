//! The addresses that a Service requests, from its annotations and from the deprecated field
//! `spec.loadBalancerIP`. Pure; used by the decoder of Services.
//!
//! Each annotation may have one of three prefixes ([`ANNOTATION_PREFIXES`]). If a Service has the
//! annotation with several prefixes, FerroLB uses the annotation with the first prefix in this list
//! whose value is not empty.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::api::IpMode;
use crate::range::Family;

/// The prefixes of an annotation, in order of precedence. The second and third are MetalLB's
/// current and deprecated prefixes.
const ANNOTATION_PREFIXES: [&str; 3] = ["ferrolb.io", "metallb.io", "metallb.universe.tf"];
/// Annotation with the requested addresses, separated by commas.
const LOAD_BALANCER_IPS: &str = "loadBalancerIPs";
/// Annotation with the name of the requested pool.
const ADDRESS_POOL: &str = "address-pool";
/// Annotation with the key under which Services may share an address.
pub const ALLOW_SHARED_IP_ANNOTATION: &str = "allow-shared-ip";
/// Annotation with the `ipMode` of the Service's addresses: `VIP`, `Proxy` or `Proxy,announce`.
/// FerroLB reads this annotation only with the prefix `ferrolb.io`.
pub const IP_MODE_ANNOTATION: &str = "ferrolb.io/ip-mode";

/// The longest sharing key that is stored as written, in bytes. The limit exists because every fact
/// of a Service stores the key, and conditions repeat it.
const SHARING_KEY_MAX: usize = 253;
/// The longest name of an object, in bytes (RFC 1123 subdomain).
pub(super) const OBJECT_NAME_MAX: usize = 253;
/// The largest number of characters of an invalid text that an error message repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// The addresses, the pool and the mode that a Service requests. If all fields are empty, the
/// Service may get any free address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRequest {
    /// The requested addresses, in the order written: one of each family of the Service. Empty if
    /// the Service requests no specific address.
    pub addresses: Vec<IpAddr>,
    /// The requested pool, of which the Service may get any address.
    pub pool: Option<Box<str>>,
    /// The key under which Services may share an address.
    pub sharing_key: Option<Box<str>>,
    /// The requested `ipMode`, which overrides the pool's `spec.ipMode`.
    pub ip_mode: Option<IpMode>,
    /// True if the addresses are announced although the mode is `Proxy`.
    pub announce_in_proxy_mode: bool,
    /// The reason why the request is invalid (the first reason), or `None`. The other fields
    /// contain the valid parts of the request.
    pub problem: Option<Box<AddressRequestProblem>>,
}

/// The reason why a request is invalid. The messages are for the author of the Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRequestProblem {
    /// `spec.loadBalancerIP` and the annotation `loadBalancerIPs` are both set, which is invalid
    /// even for equal values.
    #[error(
        "spec.loadBalancerIP and annotation {0} are both set: remove spec.loadBalancerIP, which is deprecated"
    )]
    DuplicateAddresses(String),
    /// The text of a requested address is not an address.
    #[error(
        "{field}: {text:?} is not an address: write one address of each of the Service's families, comma separated"
    )]
    Address {
        /// The name of the field or annotation.
        field: String,
        /// The invalid text.
        text: String,
    },
    /// The requested addresses are not exactly one of each family of the Service.
    #[error(
        "{field} requests {requested}, and the Service has cluster IPs of {service_families}: request one address of each of these families{}",
        if *both { ", or set spec.ipFamilyPolicy to PreferDualStack" } else { "" }
    )]
    Families {
        /// The name of the field or annotation.
        field: String,
        /// The families of the requested addresses.
        requested: String,
        /// The families of the Service.
        service_families: String,
        /// True if the Service has one family, and requests both.
        both: bool,
    },
    /// The text of the requested pool cannot be the name of a pool.
    #[error(
        "annotation {field}: {text:?} is not the name of an IPAddressPool: write the name of one, or remove the annotation"
    )]
    Pool {
        /// The name of the annotation.
        field: String,
        /// The invalid text.
        text: String,
    },
    /// The requested mode is unknown.
    #[error(
        "annotation {IP_MODE_ANNOTATION}: {0:?} is not an ipMode: write VIP, Proxy or Proxy,announce"
    )]
    Mode(String),
}

impl AddressRequest {
    /// Decodes the request of a Service that has cluster IPs of `families`. `deprecated` is
    /// `spec.loadBalancerIP`.
    #[must_use]
    pub fn read(
        annotations: Option<&BTreeMap<String, String>>,
        deprecated: Option<&str>,
        families: &[Family],
    ) -> Self {
        let nothing = BTreeMap::new();
        let annotations = annotations.unwrap_or(&nothing);
        let key = annotation_value(annotations, ALLOW_SHARED_IP_ANNOTATION)
            .map(|(_, key)| stored_sharing_key(key));
        let mut request = Self { sharing_key: key, ..Self::default() };
        let deprecated = deprecated.filter(|ip| !ip.is_empty());
        // Decode the three parts separately, so that a mistake in one part does not discard the
        // others.
        let addresses = request.read_addresses(
            annotation_value(annotations, LOAD_BALANCER_IPS),
            deprecated,
            families,
        );
        let pool = request.read_pool(annotation_value(annotations, ADDRESS_POOL));
        let mode = request.read_mode(annotations.get(IP_MODE_ANNOTATION).map(String::as_str));
        request.problem = addresses.and(pool).and(mode).err().map(Box::new);
        request
    }

    fn read_addresses(
        &mut self,
        annotation: Option<(String, &str)>,
        deprecated: Option<&str>,
        families: &[Family],
    ) -> Result<(), AddressRequestProblem> {
        let (field, text) = match (annotation, deprecated) {
            (None, None) => return Ok(()),
            (Some((field, _)), Some(_)) => {
                return Err(AddressRequestProblem::DuplicateAddresses(field));
            }
            (Some((field, text)), None) => (format!("annotation {field}"), text),
            (None, Some(text)) => ("spec.loadBalancerIP".to_owned(), text),
        };
        let address = |part: &str| {
            let text = truncated(part.trim());
            part.trim()
                .parse::<IpAddr>()
                .map_err(|_| AddressRequestProblem::Address { field: field.clone(), text })
        };
        // A Service has at most two addresses, so the third one is enough to detect too many.
        let addresses = text.split(',').take(3).map(address).collect::<Result<Vec<_>, _>>()?;
        let mut requested: Vec<_> = addresses.iter().copied().map(Family::of).collect();
        let mut expected = families.to_vec();
        requested.sort();
        expected.sort();
        if requested != expected && !families.is_empty() {
            return Err(AddressRequestProblem::Families {
                field,
                requested: names(&requested),
                service_families: names(&expected),
                both: requested.len() == 2 && requested[0] != requested[1] && expected.len() == 1,
            });
        }
        self.addresses = addresses;
        Ok(())
    }

    fn read_pool(
        &mut self,
        annotation: Option<(String, &str)>,
    ) -> Result<(), AddressRequestProblem> {
        let Some((field, name)) = annotation else { return Ok(()) };
        if !is_object_name(name) {
            return Err(AddressRequestProblem::Pool { field, text: truncated(name) });
        }
        self.pool = Some(name.into());
        Ok(())
    }

    fn read_mode(&mut self, annotation: Option<&str>) -> Result<(), AddressRequestProblem> {
        let parts: Option<Vec<_>> = annotation.map(|text| text.split(',').map(str::trim).collect());
        (self.ip_mode, self.announce_in_proxy_mode) = match parts.as_deref() {
            None | Some([""]) => (None, false),
            Some(["VIP"]) => (Some(IpMode::Vip), false),
            Some(["Proxy"]) => (Some(IpMode::Proxy), false),
            Some(["Proxy", "announce"]) => (Some(IpMode::Proxy), true),
            Some(_) => {
                return Err(AddressRequestProblem::Mode(truncated(annotation.unwrap_or_default())));
            }
        };
        Ok(())
    }
}

/// Returns the full name and the value of an annotation. Its prefix is the first of
/// [`ANNOTATION_PREFIXES`] for which the value is not empty.
fn annotation_value<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
) -> Option<(String, &'a str)> {
    ANNOTATION_PREFIXES.into_iter().find_map(|prefix| {
        let full_name = format!("{prefix}/{name}");
        let value = annotations
            .get(&full_name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())?;
        Some((full_name, value))
    })
}

/// Returns a sharing key in the form that is stored. A key longer than [`SHARING_KEY_MAX`] is
/// replaced by its digest, which is the same for all Services with this key.
fn stored_sharing_key(text: &str) -> Box<str> {
    if text.len() <= SHARING_KEY_MAX {
        return text.into();
    }
    let digest = Sha256::digest(text);
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")).into()
}

/// Returns whether a custom resource can have this name (RFC 1123 subdomain).
fn is_object_name(text: &str) -> bool {
    let label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (first, last) = (label.bytes().next(), label.bytes().next_back());
        first.is_some_and(legal)
            && last.is_some_and(legal)
            && label.bytes().all(|byte| legal(byte) || byte == b'-')
    };
    text.len() <= OBJECT_NAME_MAX && text.split('.').all(label)
}

/// Returns the beginning of an invalid text, for use in an error message.
pub(super) fn truncated(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
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

    fn request(
        annotations: Annotations<'_>,
        deprecated: Option<&str>,
        families: &[Family],
    ) -> AddressRequest {
        let annotations = annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        AddressRequest::read(Some(&annotations), deprecated, families)
    }

    fn requested_addresses(request: &AddressRequest) -> Vec<String> {
        request.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ferrolb_annotations_precede_metallb_annotations() {
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
        assert_eq!(
            request(&empty, None, &V4).pool.as_deref(),
            Some("b"),
            "an empty annotation counts as absent"
        );
        for prefix in ANNOTATION_PREFIXES {
            let key =
                request(&[(&format!("{prefix}/allow-shared-ip"), "k")], None, &V4).sharing_key;
            assert_eq!(key.as_deref(), Some("k"));
            let addresses =
                request(&[(&format!("{prefix}/loadBalancerIPs"), "10.0.0.1")], None, &V4);
            assert_eq!(requested_addresses(&addresses), ["10.0.0.1"]);
        }
        assert_eq!(AddressRequest::read(None, None, &V4), AddressRequest::default());
    }

    #[test]
    fn addresses_must_be_one_per_family_and_keep_their_order() {
        let name = "metallb.io/loadBalancerIPs";
        assert_eq!(
            requested_addresses(&request(&[(name, " fd00::1 , 10.0.0.1")], None, &BOTH)),
            ["fd00::1", "10.0.0.1"]
        );
        assert_eq!(requested_addresses(&request(&[], Some("10.0.0.9"), &V4)), ["10.0.0.9"]);
        let cases: [(Annotations<'_>, Option<&str>, &[Family], &str); 9] = [
            (
                &[(name, "10.0.0.1")],
                Some("10.0.0.1"),
                &V4,
                "spec.loadBalancerIP and annotation metallb.io/loadBalancerIPs",
            ),
            (&[(name, "10.0.0.300")], None, &V4, "\"10.0.0.300\" is not an address"),
            (&[(name, "10.0.0.1,")], None, &V4, "\"\" is not an address"),
            (
                &[(name, "10.0.0.1")],
                None,
                &BOTH,
                "requests IPv4, and the Service has cluster IPs of IPv4 and IPv6",
            ),
            (
                &[(name, "fd00::1")],
                None,
                &V4,
                "requests IPv6, and the Service has cluster IPs of IPv4",
            ),
            (&[(name, "10.0.0.1,10.0.0.2")], None, &BOTH, "requests IPv4 and IPv4"),
            (
                &[(name, "10.0.0.1,fd00::1,10.0.0.2,oops")],
                None,
                &BOTH,
                "requests IPv4 and IPv4 and IPv6",
            ),
            (
                &[],
                Some("web.example"),
                &V4,
                "spec.loadBalancerIP: \"web.example\" is not an address",
            ),
            (&[], Some("fd00::1"), &V4, "spec.loadBalancerIP requests IPv6"),
        ];
        for (annotations, deprecated, families, reason) in cases {
            let request = request(annotations, deprecated, families);
            let problem = request.problem.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(
                problem.contains(reason),
                "the problem of {annotations:?} contains {reason:?}: {problem}"
            );
            assert_eq!(requested_addresses(&request), <[&str; 0]>::default());
        }
    }

    #[test]
    fn ip_modes_are_decoded_and_problems_are_short() {
        for (text, mode, announce) in [
            ("VIP", Some(IpMode::Vip), false),
            ("Proxy", Some(IpMode::Proxy), false),
            ("Proxy, announce", Some(IpMode::Proxy), true),
            ("", None, false),
        ] {
            let request = request(&[(IP_MODE_ANNOTATION, text)], None, &V4);
            assert_eq!(
                (request.ip_mode, request.announce_in_proxy_mode, request.problem),
                (mode, announce, None),
                "the annotation is {text:?}"
            );
        }
        let long = "x".repeat(100_000);
        for bad in ["proxy", "VIP,announce", "Proxy,", &long] {
            let problem =
                request(&[(IP_MODE_ANNOTATION, bad)], None, &V4).problem.unwrap().to_string();
            assert!(
                problem.contains("write VIP, Proxy or Proxy,announce") && problem.len() < 200,
                "the message is short and lists the valid values: {problem}"
            );
        }
        let addresses = request(&[("ferrolb.io/loadBalancerIPs", &long)], None, &V4)
            .problem
            .unwrap()
            .to_string();
        assert!(addresses.len() < 250, "the message is short: {addresses}");
    }

    #[test]
    fn a_long_sharing_key_is_stored_as_its_digest() {
        let key = |text: &str| request(&[("metallb.io/allow-shared-ip", text)], None, &V4);
        let (longest, long) = ("x".repeat(253), "x".repeat(260));
        assert_eq!(key(&longest).sharing_key.as_deref(), Some(&*longest));
        // SHA-256 of 260 times "x", by coreutils' sha256sum.
        let digest = "sha256:ca19811c67a40acd0fe35832864ca30917aba6c67bb17f440753cecbcb83e9d8";
        assert_eq!((key(&long).sharing_key.as_deref(), key(&long).problem), (Some(digest), None));
        assert_ne!(key(&"x".repeat(261)).sharing_key, key(&long).sharing_key);
    }

    #[test]
    fn an_invalid_pool_name_is_a_problem_and_truncated() {
        let pool = |text: &str| request(&[("ferrolb.io/address-pool", text)], None, &V4);
        for name in ["lan", "0", "a-b.c1", &"x".repeat(253)] {
            assert_eq!((pool(name).pool.as_deref(), pool(name).problem), (Some(name), None));
        }
        let log_line = format!("lan\nlevel=ERROR {}", "x".repeat(200_000));
        for text in [
            "Lan",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".",
            "a/b",
            "a b",
            "straße",
            &"x".repeat(254),
            &log_line,
        ] {
            let problem = pool(text).problem.unwrap().to_string();
            assert!(
                problem.contains("annotation ferrolb.io/address-pool: \"") && problem.len() < 250,
                "the message is short and names the annotation: {problem}"
            );
            assert!(
                !problem.contains('\n') && pool(text).pool.is_none(),
                "the message is one line: {problem}"
            );
        }
    }
}
