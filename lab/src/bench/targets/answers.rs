//! Measures of ARP and Neighbor Discovery replies compared with the kernel's own, at each number of
//! addresses.

use super::Unit::{Count, Microseconds, Milliseconds, Times};
use super::{METALLB, MeasureSpec, without_target};
use ferrolb_proto::range::Family;

/// Measures of the replies in one request mode, each as median and 99th percentile. A request mode
/// is a family, and either broadcast or unicast.
#[derive(Debug)]
pub struct ReplyMeasures {
    /// Prefix of the ids, and name of the samples.
    pub name: &'static str,
    pub family: Family,
    /// True if requests are broadcast or multicast, as from a client without a cache entry. False
    /// if they are unicast to the owner, as from a client that verifies its cache entry (RFC 1122
    /// section 2.3.2.1, RFC 4861 section 7.3.3).
    pub broadcast: bool,
    pub address: [MeasureSpec; 2],
    pub kernel: [MeasureSpec; 2],
    pub ratio: [MeasureSpec; 2],
}

/// Targets, if any, for the median ratio and for the ratio of the 99th percentiles; and MetalLB's
/// values of both.
type RatioTargets = (Option<[f64; 2]>, [&'static [(&'static str, f64)]; 2]);

/// Targets for the ratios of replies to broadcast or multicast requests.
const REPLY_TARGETS: Option<[f64; 2]> = Some([1.8, 1.6]);
/// Targets for the ratios of replies to broadcast or multicast requests with many addresses.
/// MetalLB was not measured with many addresses.
const MANY_ADDRESSES: RatioTargets = (REPLY_TARGETS, [&[], &[]]);
const NO_TARGETS: RatioTargets = (None, [&[], &[]]);

const fn ratio(
    [p50, p99]: [(&'static str, &'static str); 2],
    (targets, [others_p50, others_p99]): RatioTargets,
) -> [MeasureSpec; 2] {
    let [target_p50, target_p99] = match targets {
        Some([p50, p99]) => [Some(p50), Some(p99)],
        None => [None, None],
    };
    [
        MeasureSpec { id: p50.0, what: p50.1, unit: Times, target: target_p50, peers: others_p50 },
        MeasureSpec { id: p99.0, what: p99.1, unit: Times, target: target_p99, peers: others_p99 },
    ]
}

/// Builds the measures of one request mode. The arguments are the family, whether all hosts receive
/// the request, the prefix of the ids, the description and the targets.
macro_rules! reply_measures {
    ($family:ident, $broadcast:literal, $id:literal, $words:literal, $targets:expr) => {
        ReplyMeasures {
            name: $id,
            family: Family::$family,
            broadcast: $broadcast,
            address: [
                without_target(
                    concat!($id, ".address.p50"),
                    concat!($words, ": Service's address, p50"),
                    Microseconds,
                ),
                without_target(
                    concat!($id, ".address.p99"),
                    concat!($words, ": Service's address, p99"),
                    Microseconds,
                ),
            ],
            kernel: [
                without_target(
                    concat!($id, ".kernel.p50"),
                    concat!($words, ": kernel's own, p50"),
                    Microseconds,
                ),
                without_target(
                    concat!($id, ".kernel.p99"),
                    concat!($words, ": kernel's own, p99"),
                    Microseconds,
                ),
            ],
            ratio: ratio(
                [
                    (concat!($id, ".ratio.p50"), concat!($words, ": ratio, p50")),
                    (concat!($id, ".ratio.p99"), concat!($words, ": ratio, p99")),
                ],
                $targets,
            ),
        }
    };
}

/// Measures of the replies to broadcast and unicast requests by ARP and NDP, with one address.
pub static REPLIES_1: [ReplyMeasures; 4] = [
    reply_measures!(
        V4,
        true,
        "answers",
        "ARP, broadcast",
        (REPLY_TARGETS, [&[(METALLB, 2.3)], &[(METALLB, 1.8)]])
    ),
    reply_measures!(V4, false, "answers.unicast", "ARP, unicast", NO_TARGETS),
    reply_measures!(
        V6,
        true,
        "answers.ndp",
        "NDP, broadcast",
        (REPLY_TARGETS, [&[(METALLB, 2.6)], &[(METALLB, 1.7)]])
    ),
    reply_measures!(V6, false, "answers.ndp.unicast", "NDP, unicast", NO_TARGETS),
];

/// Measures of the replies to broadcast and unicast requests by ARP and NDP, with 500 addresses.
pub static REPLIES_500: [ReplyMeasures; 4] = [
    reply_measures!(V4, true, "answers.500", "ARP, 500 addresses, broadcast", MANY_ADDRESSES),
    reply_measures!(V4, false, "answers.unicast.500", "ARP, 500 addresses, unicast", NO_TARGETS),
    reply_measures!(V6, true, "answers.ndp.500", "NDP, 500 addresses, broadcast", MANY_ADDRESSES),
    reply_measures!(
        V6,
        false,
        "answers.ndp.unicast.500",
        "NDP, 500 addresses, unicast",
        NO_TARGETS
    ),
];

/// Measures of the replies to broadcast and unicast requests by ARP and NDP, with 10,000 addresses.
pub static REPLIES_10000: [ReplyMeasures; 4] = [
    reply_measures!(V4, true, "answers.10000", "ARP, 10,000 addresses, broadcast", MANY_ADDRESSES),
    reply_measures!(
        V4,
        false,
        "answers.unicast.10000",
        "ARP, 10,000 addresses, unicast",
        NO_TARGETS
    ),
    reply_measures!(
        V6,
        true,
        "answers.ndp.10000",
        "NDP, 10,000 addresses, broadcast",
        MANY_ADDRESSES
    ),
    reply_measures!(
        V6,
        false,
        "answers.ndp.unicast.10000",
        "NDP, 10,000 addresses, unicast",
        NO_TARGETS
    ),
];

/// Measures of one protocol under a continuous load of requests.
#[derive(Debug)]
pub struct RateMeasures {
    pub family: Family,
    /// Replies per second for Services' addresses.
    pub rate: MeasureSpec,
    /// Replies per second of the kernel for the owner's own address.
    pub kernel: MeasureSpec,
    /// Processor time of the speaker for a thousand replies.
    pub cpu: MeasureSpec,
    /// Replies per second that one processor could send, according to `cpu`.
    pub core: MeasureSpec,
}

macro_rules! rate_measures {
    ($family:ident, $id:literal, $words:literal) => {
        RateMeasures {
            family: Family::$family,
            rate: without_target(
                concat!("answers.rate.", $id),
                concat!($words, ", 10,000 addresses, continuous requests: replies per second"),
                Count,
            ),
            kernel: without_target(
                concat!("answers.rate.kernel.", $id),
                concat!($words, ", continuous requests: kernel's own replies per second"),
                Count,
            ),
            cpu: without_target(
                concat!("answers.cpu.", $id),
                concat!($words, ": speaker's processor time for 1,000 replies"),
                Milliseconds,
            ),
            core: without_target(
                concat!("answers.core.", $id),
                concat!($words, ": replies per second that one processor has time for"),
                Count,
            ),
        }
    };
}

pub static REPLY_RATES: [RateMeasures; 2] =
    [rate_measures!(V4, "arp", "ARP"), rate_measures!(V6, "ndp", "NDP")];

/// Processor time for a gigabit forwarded through a node, by family.
#[derive(Debug)]
pub struct ForwardingMeasures {
    pub without: MeasureSpec,
    pub with: MeasureSpec,
    pub ratio: MeasureSpec,
}

macro_rules! forwarding_measures {
    ($id:literal, $words:literal) => {
        ForwardingMeasures {
            without: without_target(
                concat!("forwarding.without.", $id),
                concat!("1 Gbit of ", $words, " through a node, no speaker: processor time"),
                Milliseconds,
            ),
            with: without_target(
                concat!("forwarding.with.", $id),
                concat!("1 Gbit of ", $words, " through a node, with speaker: processor time"),
                Milliseconds,
            ),
            ratio: without_target(
                concat!("forwarding.ratio.", $id),
                concat!("1 Gbit of ", $words, " through a node: ratio of with speaker to without"),
                Times,
            ),
        }
    };
}

pub static FORWARDING_COST: [ForwardingMeasures; 2] =
    [forwarding_measures!("v4", "IPv4"), forwarding_measures!("v6", "IPv6")];
