//! Whether the size of a pool costs anything: the controller's own state, fed with Services that want an address, without a lab. One pool of
//! each kind in turn, so that whatever slows the machine slows all alike.

use super::budgets::{ALLOCATE_28, ALLOCATE_MANY_V4_8, ALLOCATE_MANY_V6_64, ALLOCATE_V4_8, ALLOCATE_V6_64};
use super::report::Findings;
use super::stats::{Spread, ratio};
use crate::wait;
use anyhow::{Context, Result, ensure};
use ferrolb_controller::event::{Event, Leadership};
use ferrolb_controller::state::{Config, State};
use ferrolb_proto::facts::{Key, Pool, Service};
use ferrolb_proto::range::Family;
use ferrolb_proto::{Instant, api};
use ferrolb_runtime::watch::Change;

/// How many addresses a round gives out of each pool: as many as a /28 has hosts.
const FEW: usize = 14;
const FEW_ROUNDS: usize = 1000;
/// How many a round of the long series gives, out of the large pools alone.
const MANY: usize = 10_000;
const MANY_ROUNDS: usize = 7;

/// The pools: a range, and its family.
const SMALL: (&str, Family) = ("192.0.2.0/28", Family::V4);
const LARGE_V4: (&str, Family) = ("10.0.0.0/8", Family::V4);
const LARGE_V6: (&str, Family) = ("2001:db8::/64", Family::V6);

/// Runs without a lab.
///
/// # Errors
/// When a Service is given no address.
pub(super) fn run() -> Result<Findings> {
    let mut findings = Findings::default();
    let [small, v4, v6] = medians(&mut findings, [SMALL, LARGE_V4, LARGE_V6], FEW, FEW_ROUNDS)?;
    let [many_v4, many_v6] = medians(&mut findings, [LARGE_V4, LARGE_V6], MANY, MANY_ROUNDS)?;
    findings.add(&ALLOCATE_28, small);
    for (known, time) in
        [(&ALLOCATE_V4_8, v4), (&ALLOCATE_V6_64, v6), (&ALLOCATE_MANY_V4_8, many_v4), (&ALLOCATE_MANY_V6_64, many_v6)]
    {
        findings.add(known, ratio(time, small).context("an address took no time")?);
    }
    Ok(findings)
}

/// The median nanoseconds that one of `count` addresses takes, out of each of the pools.
fn medians<const N: usize>(
    findings: &mut Findings,
    pools: [(&str, Family); N],
    count: usize,
    rounds: usize,
) -> Result<[f64; N]> {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (pool, times) in pools.iter().zip(&mut times) {
            times.push(fill(*pool, count)?);
        }
    }
    let mut medians = [0.0; N];
    for (((range, _), times), median) in pools.iter().zip(times).zip(&mut medians) {
        *median = Spread::of(&times).context("there are rounds")?.median;
        findings.keep(&format!("allocate.{count}.{range}"), times);
    }
    Ok(medians)
}

/// The nanoseconds that one of `count` addresses of a fresh pool takes.
fn fill((range, family): (&str, Family), count: usize) -> Result<f64> {
    let now = Instant::from_millis(1);
    let mut state = in_office(range, now)?;
    let services: Vec<Service> = (0..count).map(|number| service(number, family)).collect();
    let start = wait::now();
    for service in services {
        state.handle([Event::Service(Change::Apply(service))], now);
    }
    let elapsed = start.elapsed();
    let given: u64 = state.figures().pools.iter().flat_map(|pool| pool.usage).map(|usage| usage.used).sum();
    ensure!(usize::try_from(given)? == count, "{given} of {count} Services were given an address of {range}");
    Ok(elapsed.as_secs_f64() * 1e9 / count as f64)
}

/// A controller that leads a cluster with nothing in it but one pool.
fn in_office(range: &str, now: Instant) -> Result<State> {
    let classes = vec![api::LOAD_BALANCER_CLASS.to_owned()];
    let mut state = State::new(Config { classes, default_implementation: true, group: api::GROUP.to_owned() });
    let pool = Pool { name: "pool".into(), ranges: vec![range.parse()?], auto_assign: true, ..Pool::default() };
    let events = [
        Event::Lease(Leadership::Held(Instant::from_nanos(u64::MAX))),
        Event::Pool(Change::ResyncStarted),
        Event::Pool(Change::Apply(pool)),
        Event::Pool(Change::ResyncDone),
        Event::Node(Change::ResyncStarted),
        Event::Node(Change::ResyncDone),
        Event::Namespace(Change::ResyncStarted),
        Event::Namespace(Change::ResyncDone),
        Event::Advertisement(Change::ResyncStarted),
        Event::Advertisement(Change::ResyncDone),
        Event::Service(Change::ResyncStarted),
        Event::Service(Change::ResyncDone),
    ];
    state.handle(events, now);
    Ok(state)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_cannot_give_so_many_is_no_measurement() {
        for (pool, count, full) in [(SMALL, FEW, true), (SMALL, 17, false), (LARGE_V4, 17, true), (LARGE_V6, 17, true)]
        {
            assert_eq!(fill(pool, count).is_ok(), full, "{count} of {pool:?}");
        }
    }
}
