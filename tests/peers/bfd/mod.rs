//! BFD of the node's sessions with FRR and BIRD; the drawing is in README.md.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::said::{self, ESTABLISHED, Witness};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::stage::{measured, play_alone, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::ROUTERS;
use ferrolb_tests::{Lab, Options, Signal, run, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// The port of BFD (RFC 5881 section 4).
const PORT: u16 = 3784;
/// The profiles, by their interval in milliseconds; three packets may be missing.
const INTERVALS_MS: [u64; 3] = [300, 100, 50];
const MULTIPLIER: u64 = 3;
/// Longer than the story, so that no session ends by it.
const HOLD_SECONDS: u16 = 90;
/// At this interval no session may be lost for so long. At a shorter one any machine that lets a program wait for 150 ms loses some.
const QUIET_MS: u64 = 100;
const QUIET: Duration = Duration::from_secs(10);
/// How soon a speaker has done all that it does to gobgpd after its start, and has written so.
const AT_WORK: Duration = Duration::from_secs(3);
/// A router whose BFD says nothing; all else that it says passes.
const SILENCE: &str =
    "table inet silence { chain said { type filter hook output priority raw; policy accept; udp dport 3784 drop; }; }";

#[test]
fn bfd_watches_sessions_by_the_profiles_timers_and_ends_them_either_way() {
    play_alone(&Options { nodes: 1, bgp: true, ..Options::named("bfd") }, |lab| {
        let node = Host::node(1);
        let port = step("another program on the node has the port of BFD", || other_program(lab, &node))?;
        lab.start_ferrolb()?;
        let routers = step("FRR and BIRD run", || routers(lab))?;
        step("sessions with BFD are asked for", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&wanted(lab)?)
        })?;
        let before = step("they stand, and it is said that BFD does not watch them, and why", || {
            let before = Witness::called(lab, &node.name, &peers())?;
            let told = "another program on this node has UDP port 3784";
            wait_bfd(lab, &node, "Down", told)?;
            let condition = |peer: &String| said::wait_condition(lab, ("bgppeer", peer), ESTABLISHED, ("NoBFD", told));
            peers().iter().try_for_each(condition)?;
            Ok(before)
        })?;
        step("when that is gone BFD comes up, and no session begins anew", || {
            drop(port);
            settled(lab, &node, &routers)?;
            before.unmoved(lab)?;
            peers().iter().try_for_each(|peer| {
                said::wait_condition(lab, ("bgppeer", peer), ESTABLISHED, ("Established", "all its nodes"))
            })
        })?;
        step("a speaker that is told to stop, as by its upgrade, leaves sessions and BFD as they are", || {
            let before = Witness::called(lab, &node.name, &peers())?;
            lab.stop(&speaker_name(&node.name), Signal::TERM)?;
            lab.restart(&speaker_name(&node.name))?;
            lab.wait_healthy(&speaker_name(&node.name), &node.name, ADMIN_PORT, "/readyz")?;
            wait::during(AT_WORK, || Ok(()))?;
            settled(lab, &node, &routers)?;
            before.unmoved(lab)
        })?;
        for (index, interval) in INTERVALS_MS.into_iter().enumerate() {
            step(&format!("both routers hear of {interval} ms, as the profile says"), || {
                if index > 0 {
                    change(lab, &node, interval)?;
                    settled(lab, &node, &routers)?;
                }
                agreed(&routers, interval)
            })?;
            if interval == QUIET_MS {
                step("and no session is lost in a quiet time", || quiet(lab, &node)?)?;
            }
        }
        step("at the fastest it is said whether one is lost", || {
            let quiet = quiet(lab, &node)?;
            measured(&format!("{} ms x {MULTIPLIER} for {QUIET:?}: no session lost: {quiet:?}", INTERVALS_MS[2]));
            settled(lab, &node, &routers)
        })?;
        for (router, host) in routers.iter().zip(ROUTERS) {
            step(&format!("{router} whose BFD is silent loses its sessions, and gets them back"), || {
                silent(lab, router, host)?;
                settled(lab, &node, &routers)
            })?;
        }
        step("all routers end their sessions when gobgpd is frozen, and have them again when it is not", || {
            frozen(lab, &node, &routers)?;
            settled(lab, &node, &routers)
        })?;
        routers.into_iter().try_for_each(Router::stop)
    });
}

/// Nothing happens for some time; whether all sessions have stood meanwhile.
fn quiet(lab: &Lab, node: &Host) -> Result<Result<()>> {
    let before = Witness::called(lab, &node.name, &peers())?;
    wait::during(QUIET, || Ok(()))?;
    Ok(before.unmoved(lab))
}

/// What has the port, without sharing it, until it is dropped.
fn other_program(lab: &Lab, node: &Host) -> Result<UdpSocket> {
    Ok(lab.within(&node.name, || UdpSocket::bind(("::", PORT)))??)
}

/// Both, with BFD that is as fast as the fastest profile.
fn routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let router = |(kind, host): (Kind, &str)| {
        let bfd = u16::try_from(INTERVALS_MS[2]).ok();
        Router::with(lab, kind, host, &Peering { hold: HOLD_SECONDS, bfd, ..Peering::with_nodes(lab, host)? })
    };
    [Kind::Frr, Kind::Bird].into_iter().zip(ROUTERS).map(router).collect()
}

fn peers() -> Vec<String> {
    ROUTERS[..2].iter().flat_map(|router| ADDRESSES.map(|address| peer_name(router, address))).collect()
}

fn wanted(lab: &Lab) -> Result<Vec<Value>> {
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

/// Changes the profile, and waits until all sessions have begun anew.
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
        ensure!(anew, "they stood since {before:?}, and now since {now:?}");
        Ok(Some(()))
    })?;
    measured(&format!("other timers of BFD: all sessions have begun anew within {:?}", wait::now() - start));
    Ok(())
}

/// Waits until the node has all its sessions, and BFD watches all of them, and so say the routers.
fn settled(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    let start = wait::now();
    wait_bfd(lab, node, "Up", "")?;
    let node = node.addresses();
    for router in routers {
        expect::standing(router, &node)?;
        // The node's last word may still be on its way: a router whose BFD has not been up does not notice that it goes down.
        wait::until(&format!("BFD of {router} is up"), BGP_MAX, || {
            let heard = heard(router)?;
            ensure!(heard.len() == ADDRESSES.len(), "it hears {heard:?}");
            Ok(Some(()))
        })?;
    }
    measured(&format!("all sessions stand, and BFD watches them, after {:?}", wait::now() - start));
    Ok(())
}

/// Waits until the speaker says of all sessions that they are established, and how their BFD stands; and `words`, or nothing.
fn wait_bfd(lab: &Lab, node: &Host, state: &str, words: &str) -> Result<()> {
    wait::until(&format!("BFD is {state} everywhere"), BGP_MAX, || {
        let sessions = objects::sessions(lab, &node.name)?;
        let good = |session: &&Value| {
            let message = session["message"].as_str().unwrap_or_default();
            let said = message.contains(words) && message.is_empty() == words.is_empty();
            session["state"] == ESTABLISHED && session["bfd"] == state && said
        };
        ensure!(sessions.iter().filter(good).count() == peers().len(), "it says {sessions:#?}");
        Ok(Some(()))
    })
}

/// Waits until the routers hear from the node what the profile says, by either family.
fn agreed(routers: &[Router], interval: u64) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the timers", BGP_MAX, || {
            let heard = heard(router)?;
            let all = vec![[interval, interval, MULTIPLIER * interval]; ADDRESSES.len()];
            ensure!(heard == all, "{router} hears {heard:?}, not {all:?}");
            Ok(Some(()))
        })
    })
}

/// Of each BFD session of a router that is up, in milliseconds: how often the node wants to send, and to hear, and after how long it is missed.
fn heard(router: &Router) -> Result<Vec<[u64; 3]>> {
    match router.kind() {
        Kind::Frr => frr_heard(&router.ask(&["show bfd peers json"])?),
        Kind::Bird | Kind::Gobgp => Ok(bird_heard(&router.ask(&["show", "bfd", "sessions"])?)),
    }
}

fn frr_heard(json: &str) -> Result<Vec<[u64; 3]>> {
    let sessions: Vec<Value> = serde_json::from_str(json)?;
    let up = sessions.iter().filter(|session| session["status"] == "up");
    up.map(|session| {
        let number = |name: &str| session[name].as_u64().with_context(|| format!("no {name}: {session}"));
        let [send, hear] = [number("remote-transmit-interval")?, number("remote-receive-interval")?];
        let own = [number("receive-interval")?, number("transmit-interval")?];
        ensure!(own == [INTERVALS_MS[2]; 2], "FRR has not taken its own timers: {session}");
        Ok([send, hear, number("remote-detect-multiplier")? * send])
    })
    .collect()
}

/// BIRD says how often it sends, and after how long the node is missed, in seconds; that is what the node asks for, as it is slower.
fn bird_heard(text: &str) -> Vec<[u64; 3]> {
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

/// The router's BFD is silent until its sessions have ended, while its BGP goes on.
fn silent(lab: &Lab, router: &Router, host: &str) -> Result<()> {
    lab.within(host, || run::run_with_input(Command::new("nft").args(["-f", "-"]), SILENCE))??;
    let start = wait::now();
    let ended = ended(router);
    let after = wait::now() - start;
    lab.exec(host, &["nft", "delete", "table", "inet", "silence"])?;
    ended?;
    measured(&format!("{router}'s BFD silent at 50 ms x 3: its sessions ended after {after:?}"));
    Ok(())
}

fn frozen(lab: &Lab, node: &Host, routers: &[Router]) -> Result<()> {
    let gobgpd = format!("gobgpd-{}", node.name);
    lab.signal(&gobgpd, Signal::STOP)?;
    let start = wait::now();
    let ended = routers.iter().try_for_each(ended);
    let after = wait::now() - start;
    lab.signal(&gobgpd, Signal::CONT)?;
    ended?;
    measured(&format!("gobgpd frozen at 50 ms x 3: all routers' sessions ended after {after:?}"));
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
