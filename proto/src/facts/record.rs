//! The record of a Service's addresses: the annotation [`crate::api::ASSIGNED_ANNOTATION`], which
//! the controller writes with the status. Pure.
//!
//! A user who may edit a Service can write its annotations. A record therefore counts only on the
//! Service that it names, and as much as a request of the Service's user.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Key;

/// Maximum length of a record in bytes: two IPv6 addresses, and the longest namespace and name.
const LENGTH_MAX: usize = 512;
/// Maximum number of addresses in a record: one of each family.
const ADDRESSES_MAX: usize = 2;

/// The addresses that FerroLB assigned to a Service, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AddressRecord {
    /// The addresses, at most one of each family.
    pub addresses: Box<[IpAddr]>,
    /// Digest of the sharing parameters at the time of the assignment; `None` if the Service shares
    /// no address.
    pub sharing: Option<u64>,
}

/// The JSON in the annotation.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordText {
    /// Namespace and name: `NAMESPACE/NAME`.
    service: String,
    addresses: Vec<IpAddr>,
    /// 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sharing_parameters: Option<String>,
}

impl AddressRecord {
    /// Reads the annotation of a Service. `None` if it is no record of this Service.
    #[must_use]
    pub fn read(text: &str, service: &Key) -> Option<Self> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let RecordText { service: named, addresses, sharing_parameters } =
            serde_json::from_str(text).ok()?;
        let is_own = named == service.to_string() && addresses.len() <= ADDRESSES_MAX;
        let digest = |text: String| u64::from_str_radix(&text, 16).ok();
        is_own.then(|| Self {
            addresses: addresses.into(),
            sharing: sharing_parameters.and_then(digest),
        })
    }

    /// Returns the text of the annotation.
    #[must_use]
    pub fn text(&self, service: &Key) -> String {
        let text = RecordText {
            service: service.to_string(),
            addresses: self.addresses.to_vec(),
            sharing_parameters: self.sharing.map(|digest| format!("{digest:016x}")),
        };
        json!(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_only_on_the_service_that_it_names() {
        let key = Key::new("default", "web");
        let addresses = ["172.30.0.200".parse().unwrap(), "fd00::1".parse().unwrap()];
        for sharing in [None, Some(0xab), Some(u64::MAX)] {
            let record = AddressRecord { addresses: addresses.into(), sharing };
            let text = record.text(&key);
            assert_eq!(AddressRecord::read(&text, &key), Some(record), "{text}");
            for other in [Key::new("default", "shop"), Key::new("other", "web")] {
                assert_eq!(AddressRecord::read(&text, &other), None, "{text}");
            }
        }
    }

    #[test]
    fn the_longest_record_is_read_and_other_texts_are_not() {
        let key = Key::new(&"n".repeat(63), &"s".repeat(63));
        let address: IpAddr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        let record = AddressRecord { addresses: [address; 2].into(), sharing: Some(u64::MAX) };
        assert_eq!(AddressRecord::read(&record.text(&key), &key), Some(record));
        let key = Key::new("default", "web");
        let three = r#"{"service":"default/web","addresses":["10.0.0.1","10.0.0.2","10.0.0.3"]}"#;
        let long =
            format!(r#"{{"service":"default/web","addresses":[]{}}}"#, " ".repeat(LENGTH_MAX));
        for other in
            ["", "10.0.0.1", "[]", r#"{"service":"default/web","addresses":["x"]}"#, three, &long]
        {
            assert_eq!(AddressRecord::read(other, &key), None, "{other}");
        }
    }

    #[test]
    fn a_digest_that_is_no_number_is_missing() {
        let text = r#"{"service":"default/web","addresses":["10.0.0.1"],"sharingParameters":"x"}"#;
        let record = AddressRecord::read(text, &Key::new("default", "web")).unwrap();
        assert_eq!((record.addresses.len(), record.sharing), (1, None));
    }
}
