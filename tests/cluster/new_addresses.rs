//! New addresses, with kube-proxy in nftables and in iptables mode: a client that connects as soon
//! as the status shows an address gets the page, with a delay, and never an error. kube-proxy makes
//! its rules up to a second later.

use crate::pools::{self, pool};
use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::segment;
use crate::services::{self, http, service};
use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::traffic::page;
use ferrolb_lab::{Lab, Options, wait};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

const SERVICE_COUNT: usize = 50;
/// Interval at which the client connects to each new address, and for how long.
const STEP: Duration = Duration::from_millis(10);
const LENGTH: Duration = Duration::from_millis(1_500);
/// Maximum time of a connection. A node that has no rules for the address reports after three
/// seconds that there is no route to the host.
const PAGE_MAX: Duration = Duration::from_secs(6);
/// One in so many connections may fail for another reason, on a busy machine.
const ERRORS_DIVISOR: usize = 100;
/// Maximum time from the status to the first page: three times the target of 1.5 s.
const FIRST_PAGE_MAX: Duration = Duration::from_millis(4_500);

/// Results of the connections to one address.
#[derive(Default)]
struct Results {
    /// Time from the status to the first page.
    first: Option<Duration>,
    pages: usize,
    errors: Vec<String>,
}

#[test]
fn a_new_address_is_announced_when_it_is_served_with_nftables() {
    check_mode("nftables", &["nft", "list", "ruleset"]);
}

#[test]
fn a_new_address_is_announced_when_it_is_served_with_iptables() {
    check_mode("iptables", &["iptables-save"]);
}

/// Runs the scenario with this kube-proxy mode. The command `rules` prints the kernel's rules of
/// that mode.
fn check_mode(mode: &str, rules: &[&str]) {
    let name = format!("new{mode}");
    let options = Options { proxy_mode: Some(mode.to_owned()), ..Options::named(&name) };
    // Next to another lab, kube-proxy can be later than a second, and the kernel never translates
    // the connections that arrive before its rules.
    run_scenario_alone(&options, |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node3")?;
        lab.apply_objects(&[pool("new", &["172.30.0.110-172.30.0.169"])])?;
        let address = step("another Service is served, so all programs have started", || {
            let address = services::serve(lab, "web")?;
            services::wait_announced(lab, "web", "Announced", "")?;
            Ok(address)
        })?;
        step("the owner's kernel has the rules of this mode", || {
            let output = lab.exec(&segment::wait_owner(lab, address)?, rules)?;
            let has_address = output.contains(&address.to_string());
            ensure!(has_address, "{rules:?} does not name {address}:\n{output}");
            Ok(())
        })?;
        let results = step("a client connects to each new address at once", || connect(lab))?;
        check(mode, &results)
    });
}

/// Creates Services one after the other, and connects to each of them from the moment that its
/// status shows an address.
fn connect(lab: &Lab) -> Result<Vec<Results>> {
    let (sender, receiver) = unbounded_channel();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| lab.within(CLIENT, || run_client(receiver)));
        create_services(lab, sender)?;
        client.join().map_err(|_| anyhow!("the client panicked"))??
    })
}

fn create_services(lab: &Lab, created: UnboundedSender<(SocketAddr, Instant)>) -> Result<()> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        for n in 0..SERVICE_COUNT {
            let name = format!("new-{n}");
            let mut object = service(&name, json!({}));
            object["metadata"]["annotations"] = json!({"ferrolb.io/address-pool": "new"});
            let object = serde_json::from_value(object)?;
            services.create(&PostParams::default(), &object).await?;
            let address = wait::until_async("an address", pools::STATE_MAX, async || {
                let addresses = services::addresses(&services.get(&name).await?);
                Ok(addresses.first().copied())
            })
            .await?;
            created.send((http(address), wait::now())).context("the client has ended")?;
        }
        Ok(())
    })
}

/// Connects to each address that arrives, until no more arrive.
fn run_client(mut addresses: UnboundedReceiver<(SocketAddr, Instant)>) -> Result<Vec<Results>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut probes = JoinSet::new();
        while let Some((server, shown)) = addresses.recv().await {
            probes.spawn(connect_repeatedly(server, shown));
        }
        Ok(probes.join_all().await)
    })
}

async fn connect_repeatedly(server: SocketAddr, shown: Instant) -> Results {
    let (mut results, mut attempts) = (Results::default(), JoinSet::new());
    let mut ticks = tokio::time::interval(STEP);
    while shown.elapsed() < LENGTH {
        ticks.tick().await;
        attempts.spawn(async move {
            let page = page::fetch(server, "/", PAGE_MAX).await;
            (page.map(drop).map_err(|error| error.root_cause().to_string()), shown.elapsed())
        });
    }
    while let Some(done) = attempts.join_next().await {
        match done {
            Ok((Ok(()), time)) => {
                results.pages += 1;
                results.first = Some(results.first.map_or(time, |first| first.min(time)));
            }
            Ok((Err(error), _)) => results.errors.push(error),
            Err(error) => results.errors.push(error.to_string()),
        }
    }
    results
}

fn check(mode: &str, results: &[Results]) -> Result<()> {
    let mut firsts: Vec<_> = results.iter().filter_map(|results| results.first).collect();
    firsts.sort();
    let mut errors = BTreeMap::<&str, usize>::new();
    results
        .iter()
        .flat_map(|results| &results.errors)
        .for_each(|error| *errors.entry(error).or_default() += 1);
    let pages: usize = results.iter().map(|results| results.pages).sum();
    let slowest = firsts.last().copied().context("no connection succeeded")?;
    print_measured(&format!(
        "{SERVICE_COUNT} new Services, {mode}: {pages} pages; first page after {:?} (median), \
         {slowest:?} (worst); errors: {errors:?}",
        firsts[firsts.len() / 2],
    ));
    ensure!(firsts.len() == SERVICE_COUNT, "{} Services were reached: {errors:?}", firsts.len());
    let no_route = errors.keys().any(|error| error.contains("No route to host"));
    let is_rare = errors.values().sum::<usize>() <= pages / ERRORS_DIVISOR;
    ensure!(!no_route && is_rare, "connections failed: {errors:?}");
    ensure!(slowest < FIRST_PAGE_MAX, "the first page took {slowest:?}");
    Ok(())
}
