//! Compares the time to assign an address from a large pool with the time to assign one from a
//! small pool.
//!
//! The benchmark sends events to the controller's own state, without a cluster. A round assigns the
//! same number of addresses from a new pool of each size, one pool after the other, so that other
//! load on the machine slows all pools alike. The short series has many rounds with few addresses,
//! and the long series has few rounds with many addresses. The clock runs while the state selects
//! the addresses. The results are the medians of the rounds, as ratios to the time with a /28.
//! `--check` fails if a ratio is more than three times its target.
//!
//! A state with 10,000 Services is slower than one with 14, for any pool. The pool does not cause
//! that part of the ratios of the long series, so its target is higher.
//!
//! `cargo bench --profile lab -p ferrolb-controller-core --bench allocate` takes two seconds. The
//! results are in docs/internals/benchmarks.md.

use std::process::ExitCode;
use std::time::{Duration, Instant as WallClock};

use clap::Parser;
use ferrolb_controller_core::event::{Event, Leadership};
use ferrolb_controller_core::node_failure::failures::MarkScope;
use ferrolb_controller_core::state::{Config, Names, State};
use ferrolb_core::store::Change;
use ferrolb_proto::facts::{AddressMemory, Key, L2Advertisement, Namespace, Node, Pool, Service};
use ferrolb_proto::range::Family;
use ferrolb_proto::{Instant, api};

/// The number of addresses that a round of the short series assigns from each pool: a /28 has 14
/// host addresses.
const SHORT_ROUND_ADDRESSES: usize = 14;
/// The number of rounds of the short series.
const SHORT_ROUNDS: usize = 1000;
/// The number of addresses that a round of the long series assigns from each pool. Only the large
/// pools have so many addresses.
const LONG_ROUND_ADDRESSES: usize = 10_000;
/// The number of rounds of the long series.
const LONG_ROUNDS: usize = 7;

/// The range and the address family of each pool.
const SMALL_POOL: (&str, Family) = ("192.0.2.0/28", Family::V4);
const LARGE_POOL_V4: (&str, Family) = ("10.0.0.0/8", Family::V4);
const LARGE_POOL_V6: (&str, Family) = ("2001:db8::/64", Family::V6);

/// The targets for the two series: the largest permitted ratio of the time per address of a large
/// pool to the time per address of the /28.
const SHORT_RATIO_MAX: f64 = 1.5;
const LONG_RATIO_MAX: f64 = 3.0;
/// The factor by which a ratio must exceed its target before `--check` fails, because other
/// programs may slow the machine down.
const CHECK_FACTOR: f64 = 3.0;

/// Measures whether the size of a pool changes the time to assign an address.
#[derive(Parser)]
struct Args {
    /// Fail if a ratio is more than three times its target.
    #[arg(long)]
    check: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let [small, short_v4, short_v6] =
        medians([SMALL_POOL, LARGE_POOL_V4, LARGE_POOL_V6], SHORT_ROUND_ADDRESSES, SHORT_ROUNDS);
    let [long_v4, long_v6] =
        medians([LARGE_POOL_V4, LARGE_POOL_V6], LONG_ROUND_ADDRESSES, LONG_ROUNDS);
    println!("{SHORT_ROUND_ADDRESSES} addresses of {}: {small:.0} ns each", SMALL_POOL.0);
    let mut failed = false;
    for (count, (range, _), time, target) in [
        (SHORT_ROUND_ADDRESSES, LARGE_POOL_V4, short_v4, SHORT_RATIO_MAX),
        (SHORT_ROUND_ADDRESSES, LARGE_POOL_V6, short_v6, SHORT_RATIO_MAX),
        (LONG_ROUND_ADDRESSES, LARGE_POOL_V4, long_v4, LONG_RATIO_MAX),
        (LONG_ROUND_ADDRESSES, LARGE_POOL_V6, long_v6, LONG_RATIO_MAX),
    ] {
        let ratio = time / small;
        println!("{count} addresses of {range}: {ratio:.2} times as long (target {target:.1})");
        failed |= ratio > target * CHECK_FACTOR;
    }
    if args.check && failed {
        eprintln!("error: a ratio is more than {CHECK_FACTOR} times its target");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns, for each pool, the median over all rounds of the time per address, in nanoseconds. Each
/// round assigns `count` addresses from each pool.
fn medians<const N: usize>(pools: [(&str, Family); N], count: usize, rounds: usize) -> [f64; N] {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (pool, times) in pools.iter().zip(&mut times) {
            times.push(time_per_address(*pool, count));
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// Assigns `count` addresses from a new pool. Returns the time per address, in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time_per_address((range, family): (&str, Family), count: usize) -> f64 {
    let now = Instant::from_millis(1);
    let mut state = leader_state(range, now);
    let services: Vec<Service> = (0..count).map(|number| service(number, family)).collect();
    let start = WallClock::now();
    for service in services {
        state.handle([Event::of::<Service>(Change::Apply(service))], now);
    }
    let elapsed = start.elapsed();
    let assigned: u64 = state
        .metric_values()
        .pools
        .iter()
        .flat_map(|pool| pool.usage)
        .map(|usage| usage.used)
        .sum();
    assert_eq!(assigned, count as u64, "every Service has an address of {range}");
    elapsed.as_secs_f64() * 1e9 / count as f64
}

/// Returns the state of an active leader in a cluster with one pool and no other object.
fn leader_state(range: &str, now: Instant) -> State {
    let classes = vec![api::LOAD_BALANCER_CLASS.to_owned()];
    let names = Names { namespace: api::NAMESPACE.to_owned(), group: api::GROUP.to_owned() };
    let mut state = State::new(Config {
        classes,
        default_implementation: true,
        names,
        foreign_custom_resources: false,
        pool_grace: Duration::from_secs(60),
        node_failure_endpoints: MarkScope::Off,
        node: "".into(),
    });
    let pool = Pool {
        name: "pool".into(),
        ranges: vec![range.parse().expect("the range is valid")],
        auto_assign: true,
        ..Pool::default()
    };
    let events = [
        Event::Lease(Leadership::Held(Instant::from_nanos(u64::MAX))),
        Event::of::<Pool>(Change::ResyncStarted),
        Event::of::<Pool>(Change::Apply(pool)),
        Event::of::<Pool>(Change::ResyncDone),
        Event::of::<Node>(Change::ResyncStarted),
        Event::of::<Node>(Change::ResyncDone),
        Event::of::<Namespace>(Change::ResyncStarted),
        Event::of::<Namespace>(Change::ResyncDone),
        Event::of::<AddressMemory>(Change::ResyncStarted),
        Event::of::<AddressMemory>(Change::ResyncDone),
        Event::of::<L2Advertisement>(Change::ResyncStarted),
        Event::of::<L2Advertisement>(Change::ResyncDone),
        Event::of::<Service>(Change::ResyncStarted),
        Event::of::<Service>(Change::ResyncDone),
    ];
    state.handle(events, now);
    state
}

fn service(number: usize, family: Family) -> Service {
    let name = format!("service{number:05}");
    Service {
        uid: name.as_str().into(),
        key: Key::new("default", &name),
        load_balancer: true,
        families: vec![family],
        ..Service::default()
    }
}
