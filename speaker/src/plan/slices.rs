//! Index of the EndpointSlices by Service. Pure.

use ferrolb_proto::facts::Key;

use crate::state::ReducedSlice;

/// EndpointSlice with its own namespace and name.
pub(super) type KeyedSlice<'a> = (&'a Key, &'a ReducedSlice);

/// Returns the EndpointSlices, sorted by the namespace and name of their Services.
pub(super) fn by_service<'a>(slices: impl Iterator<Item = KeyedSlice<'a>>) -> Vec<KeyedSlice<'a>> {
    let mut slices: Vec<_> = slices.collect();
    slices.sort_by_key(service);
    slices
}

/// Returns the EndpointSlices of one Service. `slices` must be the result of [`by_service`].
pub(super) fn of<'a>(
    slices: &[KeyedSlice<'a>],
    key: &Key,
) -> impl Iterator<Item = &'a ReducedSlice> {
    let wanted = (&*key.namespace, &*key.name);
    let start = slices.partition_point(|slice| service(slice) < wanted);
    slices[start..]
        .iter()
        .take_while(move |slice| service(slice) == wanted)
        .map(|(_, slice)| *slice)
}

/// Returns the namespace and name of the Service that an EndpointSlice belongs to.
fn service<'a>((key, slice): &KeyedSlice<'a>) -> (&'a str, &'a str) {
    (&key.namespace, &slice.service)
}
