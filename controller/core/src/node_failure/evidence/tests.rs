//! Tests of the evidence: each case is a table of reports.

use ferrolb_core::node_failure::WATCHED_NODES;
use ferrolb_proto::api::WatchedNode;
use ferrolb_proto::facts::SpeakerInterface;

use super::*;
use WatchedNodeState::{Leaving, Replies, Silent, SpeakerSilent};

/// Returns the speaker of `node` with its reports, and the nodes whose hellos it receives.
fn speaker(node: &str, watched: &[(&str, WatchedNodeState)], hears: &[&str]) -> Speaker {
    let watched = watched.iter().map(|(node, state)| WatchedNode {
        node: (*node).into(),
        state: *state,
        silent: false,
    });
    let hello_senders = hears.iter().map(|node| Box::from(*node)).collect();
    let interface = SpeakerInterface { hello_senders, ..SpeakerInterface::default() };
    Speaker {
        node: node.into(),
        watched: watched.collect(),
        interfaces: [interface].into(),
        ..Speaker::default()
    }
}

fn silent(speakers: &[Speaker]) -> Vec<(Box<str>, Confirmation)> {
    Evidence::new(speakers.iter(), |_| true, |_| true).silent.into_iter().collect()
}

#[test]
fn two_reports_are_complete_and_one_is_not() {
    let a = speaker("a", &[("b", Replies), ("c", Silent)], &["b"]);
    let b = speaker("b", &[("a", Replies), ("c", Silent)], &["a"]);
    // The SpeakerStatus of the failed node does not change any more.
    let c = speaker("c", &[("a", Replies), ("b", Replies)], &["a", "b"]);
    let d = speaker("d", &[("a", Replies)], &[]);
    assert_eq!(silent(&[a.clone(), b.clone(), c.clone()]), [("c".into(), Confirmation::Complete)]);
    let b_replies = speaker("b", &[("a", Replies), ("c", Replies)], &["a"]);
    assert_eq!(silent(&[a.clone(), b_replies, c.clone()]), []);
    let evidence = Evidence::new([a, c, d].iter(), |node| node == "a", |_| true);
    assert!(evidence.silent.is_empty() && evidence.suspected.contains("c"));
    assert_eq!(evidence.replying, ["a".into()].into());
}

#[test]
fn two_replies_contradict_one_report_of_silence() {
    let contradicted = |states: &[WatchedNodeState]| {
        let names = ["a", "b", "c", "d"].into_iter();
        let all: Vec<_> = names
            .zip(states)
            .map(|(node, state)| speaker(node, &[("x", *state)], &["a", "b", "c", "d"]))
            .collect();
        Evidence::new(all.iter(), |_| false, |_| true).contradicted.contains("x")
    };
    assert!(contradicted(&[Silent, Replies, Replies]));
    assert!(!contradicted(&[Silent, Replies]), "a cluster of three has one other watcher");
    assert!(!contradicted(&[Silent, Silent, Replies, Replies]));
    assert!(!contradicted(&[Replies, Replies, Replies]), "nobody reports silence");
}

#[test]
fn hellos_an_announced_stop_and_a_kubelet_are_proof_of_life() {
    let reports = |third: Speaker| {
        let a = speaker("a", &[("b", Replies), ("c", Silent), ("d", Replies)], &["b"]);
        let b = speaker("b", &[("a", Replies), ("c", Silent)], &["a"]);
        silent(&[a, b, third]).len()
    };
    assert_eq!(reports(speaker("d", &[("a", Replies)], &["a"])), 1);
    assert_eq!(reports(speaker("d", &[("a", Replies)], &["c"])), 0, "its hellos arrive at d");
    assert_eq!(reports(speaker("d", &[("c", Leaving)], &[])), 0);
    assert_eq!(reports(speaker("d", &[("c", SpeakerSilent)], &[])), 0);
}

#[test]
fn a_stated_stop_is_a_failure_if_the_node_is_silent_and_nobody_has_ended_the_pod() {
    let found = |silent: [bool; 2], is_wanted: bool| {
        let speakers = [("a", "b"), ("b", "a")].into_iter().zip(silent);
        let speakers = speakers.map(|((own, other), silent)| {
            let mut speaker = speaker(own, &[(other, Replies), ("c", Leaving)], &[other]);
            speaker.watched[1].silent = silent;
            speaker
        });
        let evidence = Evidence::new(
            speakers.collect::<Vec<_>>().iter(),
            |_| true,
            |node| is_wanted && node == "c",
        );
        (evidence.silent.contains_key("c"), evidence.suspected.len())
    };
    assert_eq!(found([true, true], true), (true, 1));
    assert_eq!(found([true, true], false), (false, 0), "it does not count for the limit either");
    assert_eq!(found([true, false], true), (false, 1));
    assert_eq!(found([false, false], true), (false, 0));
}

#[test]
fn a_status_whose_speaker_does_not_reply_proves_nothing() {
    let a = speaker("a", &[("d", SpeakerSilent), ("c", Silent)], &[]);
    let b = speaker("b", &[("d", SpeakerSilent), ("c", Silent)], &[]);
    let d = speaker("d", &[("c", Replies), ("a", Silent)], &["c"]);
    assert_eq!(silent(&[a.clone(), b, d.clone()]), [("c".into(), Confirmation::Complete)]);
    let only_a = [a.clone(), speaker("b", &[("d", Replies), ("c", Silent)], &[]), d.clone()];
    assert_eq!(silent(&only_a), [], "one report is not enough to discredit d");
    let honest = ["e", "f"].map(|node| speaker(node, &[("d", Replies)], &["d"]));
    let b = speaker("b", &[("d", SpeakerSilent), ("c", Silent)], &[]);
    let all = [vec![a, b, d], honest.to_vec()].concat();
    assert_eq!(silent(&all), [], "two speakers do not outweigh the two others that watch d");
}

#[test]
fn reports_about_more_nodes_than_a_speaker_watches_do_not_count() {
    let names = ["b", "c", "d", "e", "f"].map(|node| (node, Silent));
    let liar = speaker("a", &names, &[]);
    let evidence = Evidence::new([&liar].into_iter(), |_| false, |_| true);
    assert_eq!(evidence.suspected.len(), WATCHED_NODES);
}

#[test]
fn a_status_whose_speaker_nobody_receives_or_watches_proves_nothing() {
    let a = speaker("a", &[("b", Replies), ("c", Silent)], &["b"]);
    let b = speaker("b", &[("a", Replies), ("c", Silent)], &["a"]);
    // The others have restarted since the speaker of d ended, so they do not watch d.
    let d = speaker("d", &[("a", Replies)], &["a", "b", "c"]);
    assert_eq!(silent(&[a.clone(), b.clone(), d.clone()]), [("c".into(), Confirmation::Complete)]);
    let b = speaker("b", &[("a", Replies), ("c", Silent)], &["a", "d"]);
    assert_eq!(silent(&[a, b, d]), [], "b receives the hellos of d");
}

#[test]
fn a_node_that_one_speaker_reports_as_silent_does_not_reply() {
    let a = speaker("a", &[("b", Replies), ("c", Silent)], &["b", "c"]);
    let b = speaker("b", &[("a", Replies), ("c", Replies)], &["a"]);
    let evidence = Evidence::new([&a, &b].into_iter(), |node| node == "c", |_| true);
    assert!(evidence.silent.is_empty() && evidence.replying.is_empty());
}

#[test]
fn in_a_cluster_of_two_the_controller_must_confirm() {
    let a = speaker("a", &[("b", Silent)], &[]);
    let b = speaker("b", &[("a", Replies)], &["a"]);
    assert_eq!(silent(&[a.clone(), b.clone()]), [("b".into(), Confirmation::ByController)]);
    let b = speaker("b", &[("a", Silent)], &[]);
    let both = [("a".into(), Confirmation::ByController), ("b".into(), Confirmation::ByController)];
    assert_eq!(silent(&[a, b]), both, "they are more than one node, so nothing is patched");
}

#[test]
fn in_a_cluster_of_two_the_controller_must_confirm_a_stated_stop() {
    let stopped = |node: &str| {
        let mut speaker = speaker(node, &[("b", Leaving)], &[]);
        speaker.watched[0].silent = true;
        speaker
    };
    let b = speaker("b", &[("a", Replies)], &["a"]);
    let confirmed = [("b".into(), Confirmation::ByController)];
    assert_eq!(silent(&[stopped("a"), b.clone()]), confirmed);
    assert_eq!(silent(&[stopped("a")]), confirmed, "the pod of b is not Ready");
    let c = speaker("c", &[("a", Replies)], &["a"]);
    assert_eq!(silent(&[stopped("a"), c.clone()]), [], "c has not reported it");
    assert_eq!(silent(&[stopped("a"), b, c]), []);
    let both = silent(&[stopped("a"), stopped("c")]);
    assert_eq!(both, [("b".into(), Confirmation::Complete)]);
}

#[test]
fn two_parts_of_a_cluster_that_cannot_reach_each_other_are_not_silent() {
    let part = |own: [&str; 2], other: [&str; 2]| {
        own.map(|node| speaker(node, &other.map(|other| (other, Silent)), &own))
    };
    let speakers = [part(["a", "b"], ["c", "d"]), part(["c", "d"], ["a", "b"])].concat();
    assert_eq!(silent(&speakers), []);
}

#[test]
fn without_a_report_there_is_no_evidence() {
    let replies = speaker("a", &[("b", Replies)], &[]);
    assert!(!Evidence::is_possible([&replies].into_iter()));
    assert!(Evidence::is_possible([&replies, &speaker("b", &[("a", Leaving)], &[])].into_iter()));
}
