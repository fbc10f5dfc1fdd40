//! The measures of answers: ARP and Neighbor Discovery against the kernel's own, at each number of addresses.

use super::Unit::{Count, Microseconds, Milliseconds, Times};
use super::{Known, METALLB, plain};
use ferrolb_proto::range::Family;

/// The figures of one way to ask, each as median and 99th percentile.
#[derive(Debug)]
pub struct Answered {
    /// What its ids begin with, and the names of its samples.
    pub name: &'static str,
    pub family: Family,
    /// Whether all hosts are asked, as by a client that knows nothing; if not, the owner alone, as by one that makes sure of what it knows
    /// (RFC 1122 section 2.3.2.1, RFC 4861 section 7.3.3).
    pub of_all: bool,
    pub address: [Known; 2],
    pub kernel: [Known; 2],
    pub ratio: [Known; 2],
}

/// The budgets of the two ratios, where there are some, and MetalLB's ratios.
type Promise = (Option<[f64; 2]>, [&'static [(&'static str, f64)]; 2]);

/// What is promised of an answer to a question to all.
const BUDGETS: Option<[f64; 2]> = Some([1.8, 1.6]);
/// The same for many addresses, of which MetalLB was not asked.
const MANY: Promise = (BUDGETS, [&[], &[]]);
const PLAIN: Promise = (None, [&[], &[]]);

const fn ratio(
    [p50, p99]: [(&'static str, &'static str); 2],
    (budgets, [peers_p50, peers_p99]): Promise,
) -> [Known; 2] {
    let [budget_p50, budget_p99] = match budgets {
        Some([p50, p99]) => [Some(p50), Some(p99)],
        None => [None, None],
    };
    [
        Known { id: p50.0, what: p50.1, unit: Times, budget: budget_p50, peers: peers_p50 },
        Known { id: p99.0, what: p99.1, unit: Times, budget: budget_p99, peers: peers_p99 },
    ]
}

/// A way to ask: family, whether of all, the ids' beginning, its words, what is promised.
macro_rules! answered {
    ($family:ident, $of_all:literal, $id:literal, $words:literal, $promise:expr) => {
        Answered {
            name: $id,
            family: Family::$family,
            of_all: $of_all,
            address: [
                plain(concat!($id, ".address.p50"), concat!($words, ": Service's address, p50"), Microseconds),
                plain(concat!($id, ".address.p99"), concat!($words, ": Service's address, p99"), Microseconds),
            ],
            kernel: [
                plain(concat!($id, ".kernel.p50"), concat!($words, ": kernel's own, p50"), Microseconds),
                plain(concat!($id, ".kernel.p99"), concat!($words, ": kernel's own, p99"), Microseconds),
            ],
            ratio: ratio(
                [
                    (concat!($id, ".ratio.p50"), concat!($words, ": ratio, p50")),
                    (concat!($id, ".ratio.p99"), concat!($words, ": ratio, p99")),
                ],
                $promise,
            ),
        }
    };
}

/// With one address.
pub static ANSWERED_1: [Answered; 4] = [
    answered!(V4, true, "answers", "ARP, asked of all", (BUDGETS, [&[(METALLB, 2.3)], &[(METALLB, 1.8)]])),
    answered!(V4, false, "answers.unicast", "ARP, asked of the owner", PLAIN),
    answered!(V6, true, "answers.ndp", "NDP, asked of all", (BUDGETS, [&[(METALLB, 2.6)], &[(METALLB, 1.7)]])),
    answered!(V6, false, "answers.ndp.unicast", "NDP, asked of the owner", PLAIN),
];

/// With 500 addresses.
pub static ANSWERED_500: [Answered; 4] = [
    answered!(V4, true, "answers.500", "ARP, 500 addresses, asked of all", MANY),
    answered!(V4, false, "answers.unicast.500", "ARP, 500 addresses, asked of the owner", PLAIN),
    answered!(V6, true, "answers.ndp.500", "NDP, 500 addresses, asked of all", MANY),
    answered!(V6, false, "answers.ndp.unicast.500", "NDP, 500 addresses, asked of the owner", PLAIN),
];

/// With 10,000 addresses.
pub static ANSWERED_10000: [Answered; 4] = [
    answered!(V4, true, "answers.10000", "ARP, 10,000 addresses, asked of all", MANY),
    answered!(V4, false, "answers.unicast.10000", "ARP, 10,000 addresses, asked of the owner", PLAIN),
    answered!(V6, true, "answers.ndp.10000", "NDP, 10,000 addresses, asked of all", MANY),
    answered!(V6, false, "answers.ndp.unicast.10000", "NDP, 10,000 addresses, asked of the owner", PLAIN),
];

/// The figures of one protocol, asked without a pause.
#[derive(Debug)]
pub struct Flooded {
    pub family: Family,
    /// Answers for Services' addresses in a second.
    pub rate: Known,
    /// The kernel's in a second, for the owner's own address.
    pub kernel: Known,
    /// What a thousand answers take of the speaker's processor time.
    pub cpu: Known,
    /// How many answers that is for a second of one processor.
    pub core: Known,
}

macro_rules! flooded {
    ($family:ident, $id:literal, $words:literal) => {
        Flooded {
            family: Family::$family,
            rate: plain(
                concat!("answers.rate.", $id),
                concat!($words, ", 10,000 addresses, asked without pause: answers a second"),
                Count,
            ),
            kernel: plain(
                concat!("answers.rate.kernel.", $id),
                concat!($words, ", asked without pause: kernel's own answers a second"),
                Count,
            ),
            cpu: plain(
                concat!("answers.cpu.", $id),
                concat!($words, ": speaker's processor time for 1,000 answers"),
                Milliseconds,
            ),
            core: plain(
                concat!("answers.core.", $id),
                concat!($words, ": answers that one processor has time for in a second"),
                Count,
            ),
        }
    };
}

pub static FLOODED: [Flooded; 2] = [flooded!(V4, "arp", "ARP"), flooded!(V6, "ndp", "NDP")];

/// The processor time that a gigabit takes on its way through a node, by family.
#[derive(Debug)]
pub struct Forwarded {
    pub without: Known,
    pub with: Known,
    pub ratio: Known,
}

macro_rules! forwarded {
    ($id:literal, $words:literal) => {
        Forwarded {
            without: plain(
                concat!("forwarding.without.", $id),
                concat!("1 Gbit of ", $words, " through a node, no speaker: processor time"),
                Milliseconds,
            ),
            with: plain(
                concat!("forwarding.with.", $id),
                concat!("1 Gbit of ", $words, " through a node, with speaker: processor time"),
                Milliseconds,
            ),
            ratio: plain(
                concat!("forwarding.ratio.", $id),
                concat!("1 Gbit of ", $words, " through a node: with speaker, against without"),
                Times,
            ),
        }
    };
}

pub static FORWARDED: [Forwarded; 2] = [forwarded!("v4", "IPv4"), forwarded!("v6", "IPv6")];
