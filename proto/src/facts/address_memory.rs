//! The addresses of deleted Services, and the ConfigMap [`crate::api::ADDRESS_MEMORY`] with them.
//! The controller alone writes it, and a new leader reads it.

use super::kind::built_in;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Key, metadata};
use crate::api::REMEMBERED_SERVICES_MAX;

/// Field selector of the ConfigMap.
pub const ADDRESS_MEMORY_SELECTOR: &str = "metadata.name=ferrolb-address-memory";
/// Maximum number of addresses of a Service: one of each family.
const ADDRESSES_MAX: usize = 2;

/// A decoded ConfigMap.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::ConfigMap")]
pub struct AddressMemoryObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// The addresses of deleted Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMemory {
    /// `metadata.name` of the ConfigMap.
    pub name: Box<str>,
    /// The Services in the order of their keys, at most [`REMEMBERED_SERVICES_MAX`].
    pub services: Vec<RememberedAddresses>,
}

/// The addresses of a deleted Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RememberedAddresses {
    /// Namespace and name of the Service.
    pub key: Key,
    /// The addresses that it had: at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The time at which the Service lost the addresses, in seconds since 1970.
    pub released_at: i64,
    /// The time at which the controller forgets them, in seconds since 1970.
    pub expires_at: i64,
}

/// The JSON of a Service in the ConfigMap.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryText {
    addresses: Vec<IpAddr>,
    released_at: Time,
    expires_at: Time,
}

impl RememberedAddresses {
    /// Reads an entry of the ConfigMap; `None` if the controller cannot have written it.
    fn read(name: &str, text: &str) -> Option<Self> {
        let (namespace, name) = name.split_once('.')?;
        let MemoryText { addresses, released_at, expires_at } = serde_json::from_str(text).ok()?;
        (1..=ADDRESSES_MAX).contains(&addresses.len()).then(|| Self {
            key: Key::new(namespace, name),
            addresses,
            released_at: released_at.0.as_second(),
            expires_at: expires_at.0.as_second(),
        })
    }

    /// Returns the entry of the ConfigMap: `NAMESPACE.NAME`, and JSON. Names of Namespaces and
    /// Services contain no dot.
    #[must_use]
    pub fn entry(&self) -> (String, String) {
        let time = |seconds| Time(Timestamp::from_second(seconds).unwrap_or_default());
        let text = MemoryText {
            addresses: self.addresses.clone(),
            released_at: time(self.released_at),
            expires_at: time(self.expires_at),
        };
        (format!("{}.{}", self.key.namespace(), self.key.name()), json!(text).to_string())
    }
}

impl From<AddressMemoryObject> for AddressMemory {
    fn from(object: AddressMemoryObject) -> Self {
        let entries = object.data.iter();
        let entries = entries.filter_map(|(name, text)| RememberedAddresses::read(name, text));
        let mut services: Vec<_> = entries.take(REMEMBERED_SERVICES_MAX).collect();
        services.sort_by(|a, b| a.key.cmp(&b.key));
        Self { name: object.metadata.name.unwrap_or_default().into(), services }
    }
}

built_in!(
    AddressMemory: AddressMemoryObject,
    "ConfigMap",
    "ConfigMaps",
    own,
    FIELDS = ADDRESS_MEMORY_SELECTOR
);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: impl IntoIterator<Item = (String, String)>) -> Vec<RememberedAddresses> {
        let data: BTreeMap<_, _> = data.into_iter().collect();
        let object = json!({"metadata": {"namespace": "lb", "name": "memory"}, "data": data});
        AddressMemory::from(serde_json::from_value::<AddressMemoryObject>(object).unwrap()).services
    }

    fn remembered(namespace: &str, name: &str, addresses: &[&str]) -> RememberedAddresses {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let key = Key::new(namespace, name);
        RememberedAddresses { key, addresses, released_at: 1_000, expires_at: 1_060 }
    }

    #[test]
    fn the_selector_has_the_name_of_the_config_map() {
        assert_eq!(
            ADDRESS_MEMORY_SELECTOR,
            format!("metadata.name={}", crate::api::ADDRESS_MEMORY)
        );
    }

    #[test]
    fn the_written_memory_is_read() {
        // The order of the keys in the ConfigMap differs: `-` precedes `.`.
        let services = vec![
            remembered("shop", "web", &["10.0.0.1", "fd00::1"]),
            remembered("shop-2", "web", &["10.0.0.2"]),
        ];
        assert_eq!(read(services.iter().map(RememberedAddresses::entry)), services);
        let (name, text) = services[1].entry();
        assert_eq!(name, "shop-2.web");
        let times = r#""expiresAt":"1970-01-01T00:17:40Z","releasedAt":"1970-01-01T00:16:40Z""#;
        assert_eq!(text, format!(r#"{{"addresses":["10.0.0.2"],{times}}}"#));
        let none: [(String, String); 0] = [];
        assert_eq!(read(none), []);
    }

    #[test]
    fn entries_of_others_are_ignored_and_their_number_is_limited() {
        let times = r#""releasedAt":"1970-01-01T00:16:40Z","expiresAt":"1970-01-01T00:17:40Z""#;
        for (name, addresses) in [
            ("web", r#"["10.0.0.2"]"#),
            ("shop.web", "[]"),
            ("shop.web", r#"["::1","::2","::3"]"#),
            ("shop.web", r#"["web"]"#),
            ("shop.web", "["),
        ] {
            let text = format!(r#"{{"addresses":{addresses},{times}}}"#);
            assert_eq!(read([(name.to_owned(), text.clone())]), [], "{name}: {text}");
        }
        let text = r#"{"addresses":["10.0.0.2"],"releasedAt":"today","expiresAt":"tomorrow"}"#;
        assert_eq!(read([("shop.web".to_owned(), text.to_owned())]), []);
        let many = (0..2_000).map(|n| remembered("shop", &format!("s{n}"), &["10.0.0.1"]).entry());
        assert_eq!(read(many).len(), REMEMBERED_SERVICES_MAX);
    }
}
