//! Measures of nodes whose pods use all processors, in a kubeadm cluster.

use super::Unit::{Count, Milliseconds};
use super::{MeasureSpec, with_target, without_target};

/// Measures of one CPU request of the speakers, and of one longest detection time.
#[derive(Debug)]
pub struct BusyMeasures {
    pub moves: MeasureSpec,
    pub fences: MeasureSpec,
    pub failures: MeasureSpec,
    pub suspicions: MeasureSpec,
    pub lost: MeasureSpec,
}

/// Builds the measures of a case. The arguments are the part of the ids that names the case, its
/// description, and the function for the measures that can have the target 0.
macro_rules! busy_measures {
    ($id:literal, $words:literal, $build:ident) => {
        BusyMeasures {
            moves: $build(
                concat!("busy.", $id, ".moves"),
                concat!($words, ": moves of the address"),
            ),
            fences: $build(concat!("busy.", $id, ".fences"), concat!($words, ": fences")),
            failures: $build(
                concat!("busy.", $id, ".failures"),
                concat!($words, ": false node failures"),
            ),
            suspicions: counted(
                concat!("busy.", $id, ".suspicions"),
                concat!($words, ": suspicions"),
            ),
            lost: counted(
                concat!("busy.", $id, ".lost"),
                concat!($words, ": connections lost within moves"),
            ),
        }
    };
}

/// The cases of the benchmark, in its order.
pub const BUSY: [BusyMeasures; 6] = [
    busy_measures!("100m.constant", "request 100m, constant time", counted),
    busy_measures!("100m.stated", "request 100m, stated time", none),
    busy_measures!("10m.constant", "request 10m, constant time", counted),
    busy_measures!("10m.stated", "request 10m, stated time", counted),
    busy_measures!("250m.stated", "request 250m, stated time", counted),
    busy_measures!("500m.stated", "request 500m, stated time", counted),
];
/// Time from the power failure of the busy owner to the first frame of the next one.
pub const BUSY_FAILOVER: MeasureSpec =
    without_target("busy.failover", "a busy owner fails: another node owns", Milliseconds);

const fn counted(id: &'static str, what: &'static str) -> MeasureSpec {
    without_target(id, what, Count)
}

const fn none(id: &'static str, what: &'static str) -> MeasureSpec {
    with_target(id, what, Count, 0.0, &[])
}
