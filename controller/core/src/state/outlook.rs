//! Predicts the addresses, owners and routes that follow from the present objects, once the
//! controller and all speakers have handled them. Pure; `kubectl ferrolb plan` compares two.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_core::bgp::{Prefix, RouteTable};
use ferrolb_proto::facts::Key;

use super::State;
use super::service::{self, Role, ServiceEntry};

/// The addresses, owners and routes that follow from the present objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The Services that FerroLB serves.
    pub services: BTreeMap<Key, ServiceOutlook>,
    /// The nodes that announce each address on layer 2.
    pub owners: BTreeMap<IpAddr, OwnerOutlook>,
    /// The nodes that advertise each prefix to the router of each BGPPeer, as far as sessions are
    /// established. The value is true for a de-preferred route.
    pub routes: BTreeMap<(Box<str>, Prefix), BTreeMap<Box<str>, bool>>,
}

/// A Service that FerroLB serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOutlook {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The pool of the addresses.
    pub pool: Option<Box<str>>,
    /// Reason of the condition `AddressAssigned`.
    pub reason: &'static str,
}

/// The nodes that announce an address on layer 2, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerOutlook {
    /// At present.
    pub present: Vec<String>,
    /// After all speakers have handled the objects.
    pub next: Vec<String>,
}

impl State {
    /// Returns the addresses, owners and routes that follow from the present objects.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        let stale = self.stale();
        self.with_check_context(&stale, |context| {
            let mut outlook = Outlook::default();
            let inputs: Vec<_> = context.route_inputs().collect();
            let mut tables: Vec<_> = inputs.iter().map(|_| RouteTable::default()).collect();
            let entries = self.services.iter();
            for (key, entry) in entries.filter(|(_, it)| it.role == Role::ServedByFerroLb) {
                outlook.services.insert(key.clone(), service_outlook(entry));
                self.with_diagnosis_input(entry, context, |input| {
                    outlook.owners.extend(input.owner_outlooks());
                    for address in entry.service.announceable() {
                        for (table, of) in tables.iter_mut().zip(&inputs) {
                            input.set_routes(table, of, address);
                        }
                    }
                });
            }
            for (mut table, input) in tables.into_iter().zip(&inputs) {
                table.update(input);
                outlook.add_routes(&input.node.name, &table);
            }
            outlook
        })
    }
}

impl Outlook {
    fn add_routes(&mut self, node: &str, table: &RouteTable) {
        for (prefix, class) in table.routes().iter() {
            for (attributes, peers) in &class.peers_by_attributes {
                for peer in peers {
                    let nodes = self.routes.entry((peer.clone(), *prefix)).or_default();
                    nodes.insert(node.into(), attributes.is_de_preferred());
                }
            }
        }
    }
}

fn service_outlook(entry: &ServiceEntry) -> ServiceOutlook {
    ServiceOutlook {
        addresses: entry.service.assigned.iter().map(|assigned| assigned.address).collect(),
        pool: entry.pool_name(),
        reason: service::decided_reason(entry).unwrap_or_default(),
    }
}
