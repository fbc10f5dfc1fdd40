//! Tests of the credibility: each case is a table of reports.

use ferrolb_proto::facts::SpeakerInterface;

use super::Credibility::{Contradicted, Credible, Silent, Stale, Unheard};
use super::*;

/// A node, the nodes whose hellos it receives (`~`: it is isolated), and its reports: `b+` if b
/// replies to its challenges, `b-` if only the speaker of b does not.
type SpeakerText = (&'static str, &'static str, &'static str);

fn speaker((node, senders, reports): &SpeakerText) -> Speaker {
    let report = |text: &str| WatchedNode {
        node: text[..1].into(),
        state: match &text[1..] {
            "+" => WatchedNodeState::Replies,
            _ => WatchedNodeState::SpeakerSilent,
        },
        silent: false,
    };
    let interface = SpeakerInterface {
        isolated: *senders == "~",
        hello_senders: senders.split_whitespace().filter(|it| *it != "~").map(Into::into).collect(),
        ..SpeakerInterface::default()
    };
    Speaker {
        node: (*node).into(),
        interfaces: [interface].into(),
        watched: reports.split_whitespace().map(report).collect(),
        ..Speaker::default()
    }
}

/// Cases: a name, the speakers, and the credibility of the last one. All others are credible.
const CASES: [(&str, &[SpeakerText], Credibility); 12] = [
    ("a single node", &[("a", "", "")], Credible),
    ("in contact", &[("a", "b", ""), ("b", "a", "")], Credible),
    ("no contact at all", &[("a", "", ""), ("b", "", "")], Credible),
    ("nobody receives c", &[("a", "b", ""), ("b", "a", ""), ("c", "a b", "")], Silent),
    ("c receives itself", &[("a", "b", ""), ("b", "a", ""), ("c", "c", "")], Credible),
    ("a sender is isolated", &[("a", "~", ""), ("b", "", ""), ("c", "a b", "")], Credible),
    ("the only sender has no SpeakerStatus", &[("a", "", ""), ("b", "x", "")], Silent),
    ("c replies", &[("a", "b", ""), ("b", "a", "c+"), ("c", "a b", "")], Unheard),
    ("two kinds of evidence", &[("a", "b", "c-"), ("b", "a", "c-"), ("c", "a b", "")], Stale),
    ("c does not reply", &[("a", "b c", "c-"), ("b", "a", "c-"), ("c", "a", "")], Contradicted),
    (
        "as many reports as there are replies",
        &[("a", "", "e-"), ("b", "", "e-"), ("c", "", "e+"), ("d", "", "e+"), ("e", "", "")],
        Credible,
    ),
    (
        "a report beyond the number of nodes that a speaker watches",
        &[("a", "", "c-"), ("b", "", "v+ w+ x+ c-"), ("c", "", "")],
        Credible,
    ),
];

#[test]
fn reports_decide_the_credibility() {
    for (case, speakers, last) in CASES {
        let speakers: Vec<_> = speakers.iter().map(speaker).collect();
        let all = speakers.iter().map(|speaker| (&*speaker.node, speaker)).collect();
        let found: Vec<_> = by_reports(&all).map(|(_, credibility)| credibility).collect();
        let mut expected = vec![Credible; speakers.len() - 1];
        expected.push(last);
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn nodes_and_pods_decide_about_speakers_that_nobody_confirms() {
    let node =
        |name: &str, ready_unknown| Node { name: name.into(), ready_unknown, ..Node::default() };
    let nodes =
        [node("a", false), node("b", true), node("c", true), node("d", true), node("f", false)];
    let pods = ["a", "b", "c", "d"].map(Into::into).into();
    // a receives b, which receives c. d has the reply of e, which has no Node.
    let speakers = [
        ("a", "b", ""),
        ("b", "a c", ""),
        ("c", "b", "f+"),
        ("d", "", "e+"),
        ("e", "", "d+"),
        ("f", "", ""),
    ];
    let speakers: Vec<_> = speakers.iter().map(speaker).collect();
    let found = |running: &SpeakerPods| {
        let node = |name: &str| nodes.iter().find(|node| *node.name == *name);
        let all = credibility(speakers.iter(), node, running);
        let stale: String =
            all.iter().filter(|(_, it)| **it == Stale).map(|(node, _)| *node).collect();
        stale
    };
    assert_eq!(found(&SpeakerPods::UNKNOWN), "de");
    assert_eq!(
        found(&SpeakerPods { running: Some(pods), ..SpeakerPods::UNKNOWN }),
        "de",
        "c has a reply of f"
    );
    let none = SpeakerPods { running: Some(BTreeSet::new()), ..SpeakerPods::UNKNOWN };
    assert_eq!(found(&none), "abcdef", "no speaker is credible by itself");
}
