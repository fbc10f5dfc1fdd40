//! An IPAddressPool, decoded for decisions: its ranges instead of texts, its problems instead of errors.

use std::collections::BTreeMap;

use crate::api;
use crate::range::{AddressRange, ParseRangeError};

/// Something that is wrong with a pool by itself. The pool is not used then; all others are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolProblem {
    /// `spec.addresses` is empty.
    #[error("spec.addresses is empty: name at least one CIDR, range or address")]
    Empty,
    /// An entry of `spec.addresses` cannot be read.
    #[error("spec.addresses: {0}")]
    Addresses(ParseRangeError),
    /// An entry of `spec.excludeAddresses` cannot be read.
    #[error("spec.excludeAddresses: {0}")]
    Exclude(ParseRangeError),
    /// Two entries of `spec.addresses` overlap.
    #[error("spec.addresses: {0} and {1} overlap: write every address once")]
    Overlap(AddressRange, AddressRange),
    /// The object does not have the shape of the kind.
    #[error("the object cannot be read: {0}")]
    Unreadable(Box<str>),
}

/// What we know of an IPAddressPool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.labels`, for pool selectors.
    pub labels: BTreeMap<String, String>,
    /// `spec.addresses` in the order written; none where there is a problem.
    pub ranges: Vec<AddressRange>,
    /// `spec.excludeAddresses`.
    pub excluded: Vec<AddressRange>,
    /// `spec.autoAssign`.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`.
    pub avoid_buggy: bool,
    /// What is wrong with it, if anything.
    pub problem: Option<PoolProblem>,
    /// The status it has.
    pub status: api::IPAddressPoolStatus,
}

impl From<api::Pool> for Pool {
    fn from(object: api::Pool) -> Self {
        let (ranges, excluded, problem) = match read(&object.spec) {
            Ok((ranges, excluded)) => (ranges, excluded, None),
            Err(problem) => (Vec::new(), Vec::new(), Some(problem)),
        };
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            labels: object.metadata.labels.unwrap_or_default(),
            ranges,
            excluded,
            auto_assign: object.spec.auto_assign,
            avoid_buggy: object.spec.avoid_buggy_ips,
            problem,
            status: object.status.unwrap_or_default(),
        }
    }
}

fn read(spec: &api::IPAddressPoolSpec) -> Result<(Vec<AddressRange>, Vec<AddressRange>), PoolProblem> {
    if spec.addresses.is_empty() {
        return Err(PoolProblem::Empty);
    }
    let parse = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<AddressRange>, _>>();
    let ranges = parse(&spec.addresses).map_err(PoolProblem::Addresses)?;
    let excluded = parse(&spec.exclude_addresses).map_err(PoolProblem::Exclude)?;
    for (i, range) in ranges.iter().enumerate() {
        if let Some(other) = ranges[..i].iter().find(|other| other.overlaps(range)) {
            return Err(PoolProblem::Overlap(*other, *range));
        }
    }
    Ok((ranges, excluded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(addresses: &[&str], exclude: &[&str]) -> Pool {
        let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let spec =
            api::IPAddressPoolSpec { addresses: own(addresses), exclude_addresses: own(exclude), ..Default::default() };
        api::Pool::new("p", &api::resource(api::Kind::IPAddressPool, api::GROUP), spec).into()
    }

    #[test]
    fn a_pool_with_a_problem_names_the_field_and_gives_no_address() {
        let cases: [(&[&str], &[&str], &str); 5] = [
            (&[], &[], "spec.addresses is empty"),
            (&["10.0.0.0/40"], &[], "spec.addresses: \"10.0.0.0/40\""),
            (&["10.0.0.9-10.0.0.1"], &[], "ends before it starts"),
            (&["10.0.0.0/24"], &["x"], "spec.excludeAddresses"),
            (&["10.0.0.0/24", "10.0.0.7"], &[], "10.0.0.0-10.0.0.255 and 10.0.0.7 overlap"),
        ];
        for (addresses, exclude, why) in cases {
            let pool = pool(addresses, exclude);
            assert!(
                pool.problem.as_ref().is_some_and(|p| p.to_string().contains(why)),
                "{addresses:?}: {:?}",
                pool.problem
            );
            assert_eq!(pool.ranges, []);
        }
    }

    #[test]
    fn a_sound_pool_keeps_the_order_written() {
        let pool = pool(&["10.0.1.0/24", "10.0.0.0/24", "fd00::1"], &["10.0.1.0"]);
        assert_eq!(pool.problem, None);
        assert_eq!(
            pool.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.1.0-10.0.1.255", "10.0.0.0-10.0.0.255", "fd00::1"]
        );
    }
}
