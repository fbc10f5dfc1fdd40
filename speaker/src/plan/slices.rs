//! The EndpointSlices of each Service, found in time. Pure.

use ferrolb_proto::facts::Key;

use crate::state::KeptSlice;

/// A slice with its own namespace and name.
pub(super) type Named<'a> = (&'a Key, &'a KeptSlice);

/// These slices, sorted by Service.
pub(super) fn by_service<'a>(slices: impl Iterator<Item = Named<'a>>) -> Vec<Named<'a>> {
    let mut slices: Vec<_> = slices.collect();
    slices.sort_by_key(service);
    slices
}

/// Those of one Service; `slices` are sorted by Service.
pub(super) fn of<'a>(slices: &[Named<'a>], key: &Key) -> impl Iterator<Item = &'a KeptSlice> {
    let wanted = (&*key.namespace, &*key.name);
    let start = slices.partition_point(|slice| service(slice) < wanted);
    slices[start..].iter().take_while(move |slice| service(slice) == wanted).map(|(_, slice)| *slice)
}

/// The namespace and name of a slice's Service.
fn service<'a>((key, slice): &Named<'a>) -> (&'a str, &'a str) {
    (&key.namespace, &slice.service)
}
