//! BFD of the node's sessions with FRR and BIRD; README.md has the drawing.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::reported::{self, ESTABLISHED, SessionSnapshot};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario_alone, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, Options, Signal, run, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// The port of BFD (RFC 5881 section 4).
const PORT: u16 = 3784;
/// Intervals of the profiles, in milliseconds. The multiplier is the number of packets that may be
/// missing.
const INTERVALS_MS: [u64; 3] = [300, 100, 50];
const MULTIPLIER: u64 = 3;
/// Hold time longer than the scenario, so that no session ends by it.
const HOLD_SECONDS: u16 = 90;
/// Interval at which no session may be lost, and for how long. At a shorter interval a machine that
/// delays a process by 150 ms loses some.
const QUIET_MS: u64 = 100;
const QUIET: Duration = Duration::from_secs(10);
/// Maximum time after its start in which a speaker configures gobgpd and writes its status.
const AT_WORK: Duration = Duration::from_secs(3);
/// nftables rules that drop only the router's BFD packets.
const DROP_BFD: &str = "table inet silence { chain said { type filter hook output priority raw; policy accept; udp dport 3784 drop; }; }";

#[test]
fn bfd_uses_the_profiles_timers_and_detects_failures_at_both_ends() {
    run_scenario_alone(&Options { nodes: 1, bgp: true, ..Options::named("bfd") }, |lab| {
        let node = Host::node(1);
        let port =
            step("another program on the node has the port of BFD", || other_program(lab, &node))?;
        lab.start_ferrolb()?;
        let routers = step("FRR and BIRD run", || routers(lab))?;
        step("sessions with BFD are asked for", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects_of_test(lab)?)
        })?;
        check_port_in_use(lab, &node, &routers, port)?;
        check_speaker_upgrade(lab, &node, &routers)?;
        check_intervals(lab, &node, &routers)?;
        check_failures(lab, &node, &routers)?;
        routers.into_iter().try_for_each(Router::stop)
    });
}

/// Steps in which another program uses the port of BFD, and in which it has ended.
fn check_port_in_use(
    lab: &Lab,
    node: &Host,
    routers: &[Router],
    other_program: UdpSocket,
) -> Result<()> {
    let before = step("they stand, and it is said that BFD does not watch them, and why", || {
        let before = SessionSnapshot::take(lab, &node.name, &peers())?;
        let told = "another program on this node uses UDP port 3784";
        wait_bfd(lab, node, "Down", told)?;
        let condition = |peer: &String| {
            reported::wait_condition(lab, ("bgppeer", peer), ESTABLISHED, ("NoBFD", told))
        };
        peers().iter().try_for_each(condition)?;
        Ok(before)
    })?;
    step("when that is gone BFD comes up, and no session begins anew", || {
        drop(other_program);
        settled(lab, node, routers)?;
        before.check_unchanged(lab)?;
        peers().iter().try_for_each(|peer| {
            reported::wait_condition(
                lab,
                ("bgppeer", peer),
                ESTABLISHED,
                ("Established", "session established on all selected nodes"),
            )
        })
    })
}

/// Step in which the speaker is restarted. The sessions must continue.
fn check_speaker_upgrade(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    step(
        "a speaker that is told to stop, as by its upgrade, leaves sessions and BFD as they are",
        || {
            let before = SessionSnapshot::take(lab, &node.name, &peers())?;
            lab.stop(&speaker_name(&node.name), Signal::TERM)?;
            lab.restart(&speaker_name(&node.name))?;
            lab.wait_healthy(&speaker_name(&node.name), &node.name, ADMIN_PORT, "/readyz")?;
            wait::during(AT_WORK, || Ok(()))?;
            settled(lab, node, routers)?;
            before.check_unchanged(lab)
        },
    )
}

/// Steps with the intervals of each profile. A session that is lost at the shortest one is only
/// printed.
fn check_intervals(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    for (index, interval) in INTERVALS_MS.into_iter().enumerate() {
        step(&format!("both routers hear of {interval} ms, as the profile says"), || {
            if index > 0 {
                change(lab, node, interval)?;
                settled(lab, node, routers)?;
            }
            agreed(routers, interval)
        })?;
        if interval == QUIET_MS {
            step("and no session is lost in a quiet time", || quiet(lab, node)?)?;
        }
    }
    step("at the fastest it is said whether one is lost", || {
        let quiet = quiet(lab, node)?;
        print_measured(&format!(
            "{} ms x {MULTIPLIER} for {QUIET:?}: no session lost: {quiet:?}",
            INTERVALS_MS[2]
        ));
        settled(lab, node, routers)
    })
}

/// Steps in which each router's BFD packets are dropped, and in which gobgpd is stalled.
fn check_failures(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    for (router, host) in routers.iter().zip(ROUTERS) {
        step(
            &format!("{router} whose BFD is silent loses its sessions, and gets them back"),
            || {
                bfd_dropped(lab, router, host)?;
                settled(lab, node, routers)
            },
        )?;
    }
    step(
        "all routers end their sessions when gobgpd is frozen, and have them again when it is not",
        || {
            gobgpd_stalled(lab, node, routers)?;
            settled(lab, node, routers)
        },
    )
}

/// Waits without an event. Returns whether all sessions stayed established.
fn quiet(lab: &Lab, node: &Host) -> Result<Result<()>> {
    let before = SessionSnapshot::take(lab, &node.name, &peers())?;
    wait::during(QUIET, || Ok(()))?;
    Ok(before.check_unchanged(lab))
}

/// Binds the port exclusively until the socket is dropped.
fn other_program(lab: &Lab, node: &Host) -> Result<UdpSocket> {
    Ok(lab.within(&node.name, || UdpSocket::bind(("::", PORT)))??)
}

/// Starts both routers, with BFD at the fastest profile's interval.
fn routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let router = |(kind, host): (RouterKind, &str)| {
        let bfd = u16::try_from(INTERVALS_MS[2]).ok();
        Router::with(
            lab,
            kind,
            host,
            &Peering { hold: HOLD_SECONDS, bfd, ..Peering::with_nodes(lab, host)? },
        )
    };
    [RouterKind::Frr, RouterKind::Bird].into_iter().zip(ROUTERS).map(router).collect()
}

fn peers() -> Vec<String> {
    ROUTERS[..2]
        .iter()
        .flat_map(|router| ADDRESSES.map(|address| peer_name(router, address)))
        .collect()
}

fn objects_of_test(lab: &Lab) -> Result<Vec<Value>> {
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    all.push(profile(INTERVALS_MS[0]));
    for router in &ROUTERS[..2] {
        all.extend(objects::peers(lab, router)?.into_iter().map(|mut peer| {
            peer["spec"]["holdTime"] = format!("{HOLD_SECONDS}s").into();
            peer["spec"]["bfdProfile"] = "watch".into();
            peer
        }));
    }
    Ok(all)
}

fn profile(interval: u64) -> Value {
    let spec = json!({"receiveInterval": interval, "transmitInterval": interval, "detectMultiplier": MULTIPLIER});
    object("v1beta1", "BFDProfile", "watch", &spec)
}

/// Changes the profile, and waits until all sessions have been established again.
fn change(lab: &Lab, node: &Host, interval: u64) -> Result<()> {
    let since = |lab: &Lab| -> Result<Vec<Value>> {
        let sessions = objects::sessions(lab, &node.name)?;
        Ok(sessions.iter().map(|session| session["since"].clone()).collect())
    };
    let before = since(lab)?;
    let start = wait::now();
    lab.apply_objects(&[profile(interval)])?;
    wait::until("the sessions to begin anew", BGP_MAX, || {
        let now = since(lab)?;
        let anew = now.iter().zip(&before).all(|(now, before)| now.is_string() && now != before);
        ensure!(anew, "established since {before:?}, and now since {now:?}");
        Ok(Some(()))
    })?;
    print_measured(&format!(
        "other timers of BFD: all sessions have begun anew within {:?}",
        wait::now() - start
    ));
    Ok(())
}

/// Waits until the node has all its sessions with BFD up, and the routers report the same.
fn settled(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    let start = wait::now();
    wait_bfd(lab, node, "Up", "")?;
    let node = node.addresses();
    for router in routers {
        expect::sessions_with(router, &node)?;
        // The node's last packet may still be on its way: a router whose BFD was not yet up does
        // not notice that it goes down.
        wait::until(&format!("BFD of {router} is up"), BGP_MAX, || {
            let heard = received_timers(router)?;
            ensure!(heard.len() == ADDRESSES.len(), "the router receives {heard:?}");
            Ok(Some(()))
        })?;
    }
    print_measured(&format!(
        "all sessions stand, and BFD watches them, after {:?}",
        wait::now() - start
    ));
    Ok(())
}

/// Waits until the speaker reports all sessions as established with this BFD state. Their issues
/// contain `words`; if it is empty, there are none.
fn wait_bfd(lab: &Lab, node: &Host, state: &str, words: &str) -> Result<()> {
    wait::until(&format!("BFD is {state} everywhere"), BGP_MAX, || {
        let sessions = objects::sessions(lab, &node.name)?;
        let good = |session: &&Value| {
            let message = reported::messages(session);
            let said = message.contains(words) && message.is_empty() == words.is_empty();
            session["state"] == ESTABLISHED && session["bfd"] == state && said
        };
        ensure!(
            sessions.iter().filter(good).count() == peers().len(),
            "the sessions are {sessions:#?}"
        );
        Ok(Some(()))
    })
}

/// Waits until the routers receive the profile's timers from the node, over both families.
fn agreed(routers: &[Router], interval: u64) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the timers", BGP_MAX, || {
            let heard = received_timers(router)?;
            let all = vec![[interval, interval, MULTIPLIER * interval]; ADDRESSES.len()];
            ensure!(heard == all, "{router} receives {heard:?}, not {all:?}");
            Ok(Some(()))
        })
    })
}

/// Returns the node's timers of each BFD session of a router that is up, in milliseconds: its
/// transmit interval, its receive interval, and the detection time.
fn received_timers(router: &Router) -> Result<Vec<[u64; 3]>> {
    match router.kind() {
        RouterKind::Frr => frr_timers(&router.run_command(&["show bfd peers json"])?),
        RouterKind::Bird | RouterKind::Gobgp => {
            Ok(bird_timers(&router.run_command(&["show", "bfd", "sessions"])?))
        }
    }
}

fn frr_timers(json: &str) -> Result<Vec<[u64; 3]>> {
    let sessions: Vec<Value> = serde_json::from_str(json)?;
    let up = sessions.iter().filter(|session| session["status"] == "up");
    up.map(|session| {
        let number =
            |name: &str| session[name].as_u64().with_context(|| format!("no {name}: {session}"));
        let [send, hear] =
            [number("remote-transmit-interval")?, number("remote-receive-interval")?];
        let own = [number("receive-interval")?, number("transmit-interval")?];
        ensure!(own == [INTERVALS_MS[2]; 2], "FRR does not use its own timers: {session}");
        Ok([send, hear, number("remote-detect-multiplier")? * send])
    })
    .collect()
}

/// Reads BIRD's output: its transmit interval and detection time, in seconds. Both follow the
/// node's timers, because the node is slower.
fn bird_timers(text: &str) -> Vec<[u64; 3]> {
    let milliseconds = |word: &str| word.replace('.', "").parse::<u64>().ok();
    let session = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _link, "Up", _since, interval, timeout] = words[..] else { return None };
        address.parse::<IpAddr>().ok()?;
        let (interval, timeout) = (milliseconds(interval)?, milliseconds(timeout)?);
        Some([timeout / MULTIPLIER, interval, timeout])
    };
    text.lines().filter_map(session).collect()
}

/// Drops the router's BFD packets until its sessions have ended. BGP packets pass.
fn bfd_dropped(lab: &Lab, router: &Router, host: &str) -> Result<()> {
    lab.within(host, || run::run_with_input(Command::new("nft").args(["-f", "-"]), DROP_BFD))??;
    let start = wait::now();
    let ended = ended(router);
    let after = wait::now() - start;
    lab.exec(host, &["nft", "delete", "table", "inet", "silence"])?;
    ended?;
    print_measured(&format!(
        "{router}'s BFD silent at 50 ms x 3: its sessions ended after {after:?}"
    ));
    Ok(())
}

fn gobgpd_stalled(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    let gobgpd = format!("gobgpd-{}", node.name);
    lab.signal(&gobgpd, Signal::STOP)?;
    let start = wait::now();
    let ended = routers.iter().try_for_each(ended);
    let after = wait::now() - start;
    lab.signal(&gobgpd, Signal::CONT)?;
    ended?;
    print_measured(&format!(
        "gobgpd frozen at 50 ms x 3: all routers' sessions ended after {after:?}"
    ));
    Ok(())
}

/// Waits until a router has no session left.
fn ended(router: &Router) -> Result<()> {
    wait::until("the sessions' end", BGP_MAX, || {
        let sessions = router.sessions()?;
        ensure!(sessions.iter().all(|session| !session.established), "{router} has {sessions:?}");
        Ok(Some(()))
    })
}
