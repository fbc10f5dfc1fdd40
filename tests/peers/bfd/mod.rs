//! BFD of the node's sessions with FRR and BIRD; README.md has the drawing.

use crate::expect;
use crate::in_containers;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::reported::{self, ESTABLISHED, SessionSnapshot};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario_alone, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, Signal, run, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// The port of BFD (RFC 5881 section 4).
const PORT: u16 = 3784;
/// Successive intervals of the BFDProfile, in milliseconds. BFD is down after `MULTIPLIER`
/// intervals without a packet.
const INTERVALS_MS: [u64; 3] = [300, 100, 50];
const MULTIPLIER: u64 = 3;
/// Hold time of the sessions, so long that only BFD ends a session.
const HOLD_SECONDS: u16 = 90;
/// Interval at which no session may be lost, and the time for which the test checks this. At a
/// shorter interval, a delay of a process by 150 ms loses sessions.
const STABLE_INTERVAL_MS: u64 = 100;
const STABLE_TIME: Duration = Duration::from_secs(10);
/// Maximum time after a speaker's start until it has configured gobgpd and written its status.
const CONFIGURED_MAX: Duration = Duration::from_secs(3);
/// nftables rules that drop only the router's BFD packets.
const DROP_BFD: &str = "table inet drop_bfd { chain output { type filter hook output priority raw; policy accept; udp dport 3784 drop; }; }";

#[test]
fn bfd_uses_the_timers_of_the_profile_and_detects_failures() {
    run_scenario_alone(&in_containers("bfd"), |lab| {
        let node = Host::node(1);
        let port =
            step("another program on the node uses the BFD port", || bind_bfd_port(lab, &node))?;
        lab.start_ferrolb()?;
        let routers = step("FRR and BIRD start", || start_routers(lab))?;
        step("BGPPeers with a BFDProfile are created", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&scenario_objects(lab)?)
        })?;
        check_port_in_use(lab, &node, &routers, port)?;
        check_speaker_upgrade(lab, &node, &routers)?;
        check_intervals(lab, &node, &routers)?;
        check_failures(lab, &node, &routers)?;
        routers.into_iter().try_for_each(Router::stop)
    });
}

/// Runs the steps while another program uses the BFD port, and after that program has ended.
fn check_port_in_use(
    lab: &Lab,
    node: &Host,
    routers: &[Router],
    other_program: UdpSocket,
) -> Result<()> {
    let before = step("the sessions are established, and FerroLB reports why BFD is down", || {
        let before = SessionSnapshot::take(lab, &node.name, &peers())?;
        let issue = "another program on this node uses UDP port 3784";
        wait_bfd(lab, node, "Down", issue)?;
        let condition = |peer: &String| {
            reported::wait_condition(lab, ("bgppeers", peer), ESTABLISHED, ("NoBFD", issue))
        };
        peers().iter().try_for_each(condition)?;
        Ok(before)
    })?;
    step("after the other program has ended, BFD comes up, and all sessions stay", || {
        drop(other_program);
        wait_bfd_up(lab, node, routers)?;
        before.check_unchanged(lab)?;
        peers().iter().try_for_each(|peer| {
            reported::wait_condition(
                lab,
                ("bgppeers", peer),
                ESTABLISHED,
                ("Established", "session established on all selected nodes"),
            )
        })
    })
}

/// Runs the step in which the speaker restarts: all sessions must stay.
fn check_speaker_upgrade(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    step("a restart of the speaker, as in an upgrade, keeps all sessions and BFD", || {
        let before = SessionSnapshot::take(lab, &node.name, &peers())?;
        lab.stop(&speaker_name(&node.name), Signal::TERM)?;
        lab.restart(&speaker_name(&node.name))?;
        lab.wait_healthy(&speaker_name(&node.name), &node.name, ADMIN_PORT, "/readyz")?;
        wait::during(CONFIGURED_MAX, || Ok(()))?;
        wait_bfd_up(lab, node, routers)?;
        before.check_unchanged(lab)
    })
}

/// Runs the steps with each interval.
fn check_intervals(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    for (index, interval) in INTERVALS_MS.into_iter().enumerate() {
        step(&format!("both routers receive the interval of the profile, {interval} ms"), || {
            if index > 0 {
                change_profile(lab, node, interval)?;
                wait_bfd_up(lab, node, routers)?;
            }
            wait_timers(routers, interval)
        })?;
        if interval == STABLE_INTERVAL_MS {
            step("no session is lost at 100 ms", || {
                let before = SessionSnapshot::take(lab, &node.name, &peers())?;
                wait::during(STABLE_TIME, || Ok(()))?;
                before.check_unchanged(lab)
            })?;
        }
    }
    Ok(())
}

/// Runs the steps in which each router's BFD packets are dropped, and in which gobgpd is stalled.
fn check_failures(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    for (router, host) in routers.iter().zip(ROUTERS) {
        step(&format!("{router} loses its sessions while its BFD packets are dropped"), || {
            drop_bfd(lab, router, host)?;
            wait_bfd_up(lab, node, routers)
        })?;
    }
    step("all routers end their sessions while gobgpd is stalled, and establish them again", || {
        stall_gobgpd(lab, node, routers)?;
        wait_bfd_up(lab, node, routers)
    })
}

/// Binds the BFD port exclusively until the socket is dropped.
fn bind_bfd_port(lab: &Lab, node: &Host) -> Result<UdpSocket> {
    Ok(lab.within(&node.name, || UdpSocket::bind(("::", PORT)))??)
}

/// Starts both routers, with BFD at the shortest interval.
fn start_routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let router = |(kind, host): (RouterKind, &str)| {
        let bfd = u16::try_from(INTERVALS_MS[2]).ok();
        Router::start_with_peering(
            lab,
            kind,
            host,
            &Peering { hold: HOLD_SECONDS, bfd, ..Peering::with_nodes(lab, host)? },
        )
    };
    [RouterKind::Frr, RouterKind::Bird].into_iter().zip(ROUTERS).map(router).collect()
}

/// Returns the names of all BGPPeers.
fn peers() -> Vec<String> {
    ROUTERS[..2]
        .iter()
        .flat_map(|router| ADDRESSES.map(|address| peer_name(router, address)))
        .collect()
}

fn scenario_objects(lab: &Lab) -> Result<Vec<Value>> {
    let mut created = objects::service().to_vec();
    created.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    created.push(profile(INTERVALS_MS[0]));
    for router in &ROUTERS[..2] {
        created.extend(objects::peers(lab, router)?.into_iter().map(|mut peer| {
            peer["spec"]["holdTime"] = format!("{HOLD_SECONDS}s").into();
            peer["spec"]["bfdProfile"] = "fast".into();
            peer
        }));
    }
    Ok(created)
}

fn profile(interval: u64) -> Value {
    let spec = json!({"receiveInterval": interval, "transmitInterval": interval, "detectMultiplier": MULTIPLIER});
    object("v1beta1", "BFDProfile", "fast", &spec)
}

/// Changes the interval of the profile, and waits until all sessions have been established again.
fn change_profile(lab: &Lab, node: &Host, interval: u64) -> Result<()> {
    let since = |lab: &Lab| -> Result<Vec<Value>> {
        let sessions = objects::sessions(lab, &node.name)?;
        Ok(sessions.iter().map(|session| session["since"].clone()).collect())
    };
    let before = since(lab)?;
    let start = wait::now();
    lab.apply_objects(&[profile(interval)])?;
    wait::until("all sessions have been established again", BGP_MAX, || {
        let now = since(lab)?;
        let reestablished =
            now.iter().zip(&before).all(|(now, before)| now.is_string() && now != before);
        ensure!(
            reestablished,
            "the start times of the sessions were {before:?}, and are now {now:?}"
        );
        Ok(Some(()))
    })?;
    print_measured(&format!(
        "changed BFD timers: all sessions established again within {:?}",
        wait::now() - start
    ));
    Ok(())
}

/// Waits until the node and the routers report all sessions as established with BFD up.
fn wait_bfd_up(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    let start = wait::now();
    wait_bfd(lab, node, "Up", "")?;
    let node = node.addresses();
    for router in routers {
        expect::wait_sessions_with(router, &node)?;
        // A router may still have to receive the node's last packet before its BFD is up.
        wait::until(&format!("BFD of {router} is up"), BGP_MAX, || {
            let received = received_timers(router)?;
            ensure!(
                received.len() == ADDRESSES.len(),
                "the router receives the timers {received:?}"
            );
            Ok(Some(()))
        })?;
    }
    print_measured(&format!(
        "all sessions are established with BFD up after {:?}",
        wait::now() - start
    ));
    Ok(())
}

/// Waits until the speaker reports all sessions as established with this BFD state, and with issues
/// that contain `words`. If `words` is empty, there must be no issue.
fn wait_bfd(lab: &Lab, node: &Host, state: &str, words: &str) -> Result<()> {
    wait::until(&format!("BFD of all sessions is {state}"), BGP_MAX, || {
        let sessions = objects::sessions(lab, &node.name)?;
        let matches = |session: &&Value| {
            let message = reported::messages(session);
            let has_issue = message.contains(words) && message.is_empty() == words.is_empty();
            session["state"] == ESTABLISHED && session["bfd"] == state && has_issue
        };
        ensure!(
            sessions.iter().filter(matches).count() == peers().len(),
            "the sessions are {sessions:#?}"
        );
        Ok(Some(()))
    })
}

/// Waits until the routers receive the profile's timers from the node, over both families.
fn wait_timers(routers: &[Router], interval: u64) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the router receives the timers of the profile", BGP_MAX, || {
            let received = received_timers(router)?;
            let expected = vec![[interval, interval, MULTIPLIER * interval]; ADDRESSES.len()];
            ensure!(
                received == expected,
                "{router} receives the timers {received:?}, not {expected:?}"
            );
            Ok(Some(()))
        })
    })
}

/// Returns the node's timers in each BFD session that is up at a router, in milliseconds: transmit
/// interval, receive interval, and detection time.
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
        let [transmit, receive] =
            [number("remote-transmit-interval")?, number("remote-receive-interval")?];
        let own = [number("receive-interval")?, number("transmit-interval")?];
        ensure!(own == [INTERVALS_MS[2]; 2], "FRR does not use its own timers: {session}");
        Ok([transmit, receive, number("remote-detect-multiplier")? * transmit])
    })
    .collect()
}

/// Parses BIRD's output, which shows BIRD's transmit interval and detection time in seconds. Both
/// result from the node's intervals, because these are longer than BIRD's.
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

/// Drops the router's BFD packets, but not its BGP packets, until its sessions have ended.
fn drop_bfd(lab: &Lab, router: &Router, host: &str) -> Result<()> {
    lab.within(host, || run::run_with_input(Command::new("nft").args(["-f", "-"]), DROP_BFD))??;
    let start = wait::now();
    let result = wait_no_session(router);
    let after = wait::now() - start;
    lab.exec(host, &["nft", "delete", "table", "inet", "drop_bfd"])?;
    result?;
    print_measured(&format!(
        "BFD packets of {router} dropped at 50 ms x 3: its sessions ended after {after:?}"
    ));
    Ok(())
}

fn stall_gobgpd(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    let gobgpd = format!("gobgpd-{}", node.name);
    lab.signal(&gobgpd, Signal::STOP)?;
    let start = wait::now();
    let result = routers.iter().try_for_each(wait_no_session);
    let after = wait::now() - start;
    lab.signal(&gobgpd, Signal::CONT)?;
    result?;
    print_measured(&format!(
        "gobgpd stalled at 50 ms x 3: all sessions of the routers ended after {after:?}"
    ));
    Ok(())
}

/// Waits until a router has no established session.
fn wait_no_session(router: &Router) -> Result<()> {
    wait::until("all sessions have ended", BGP_MAX, || {
        let sessions = router.sessions()?;
        ensure!(
            sessions.iter().all(|session| !session.established),
            "{router} has the sessions {sessions:?}"
        );
        Ok(Some(()))
    })
}
