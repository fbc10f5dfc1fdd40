//! A daemon that executes every step. Its state is consistent after each step, and matches the
//! desired state at the end.

use std::net::Ipv4Addr;

use gobgp_proto as api;

use super::*;

const IDENTITY: BgpIdentity = BgpIdentity { asn: 64512, router_id: Ipv4Addr::new(10, 0, 0, 1) };

fn mark(number: u32) -> ContentHash {
    let community =
        api::LargeCommunity { global_admin: 4_200_000_000, local_data1: 0, local_data2: number };
    ContentHash::from_community(&community).expect("a mark")
}

fn place(number: u8) -> PeerLocation {
    PeerLocation::Address([192, 0, 2, number].into())
}

fn prefix(number: u32) -> Prefix {
    Prefix::of(Ipv4Addr::from(0x0a00_0000 + number).into(), 32)
}

/// Returns a desired state with these sessions, by number and parameters, and paths, by number and
/// class.
fn wanted(
    identity: Option<BgpIdentity>,
    sessions: &[(u8, &str)],
    paths: &[(u32, u32)],
) -> GobgpConfig {
    let peer = |terms: &str| {
        let conf = api::PeerConf { description: terms.to_owned(), ..api::PeerConf::default() };
        PeerConfig {
            name: "tor".into(),
            peer: api::Peer { conf: Some(conf), ..api::Peer::default() },
        }
    };
    let class = |class: u32| PolicyConfig { hash: mark(class), sets: vec![], statements: vec![] };
    GobgpConfig {
        identity,
        peers: sessions
            .iter()
            .map(|(number, terms)| (place(*number), Arc::new(peer(terms))))
            .collect(),
        policies: paths
            .iter()
            .map(|(_, number)| (mark(*number), Arc::new(class(*number))))
            .collect(),
        paths: Arc::new(
            paths.iter().map(|(number, class)| (prefix(*number), mark(*class))).collect(),
        ),
        no_restart_reason: None,
    }
}

/// Executes all steps and returns their names.
fn run_to_end(known: &mut ObservedState, wanted: &GobgpConfig) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(step) = next_step(wanted, known) {
        done.push(match &step {
            BgpStep::Start(_) => "start".to_owned(),
            BgpStep::RemoveSession(place) => {
                format!("remove {}", place.address().expect("an address"))
            }
            BgpStep::SetPolicies(classes) => format!("policies {}", classes.len()),
            BgpStep::Announce(paths) => format!("announce {}", paths.len()),
            BgpStep::Withdraw(paths) => format!("withdraw {}", paths.len()),
            BgpStep::AddSession(place, _) => {
                format!("add {}", place.address().expect("an address"))
            }
            BgpStep::SetBfd(place, _, on) => {
                format!("watch {} {on}", place.address().expect("an address"))
            }
        });
        known.apply(step);
        let mut marks = known.paths.values().flatten();
        assert!(
            marks.all(|mark| known.classes.contains_key(mark)),
            "a path without its statements: {done:?}"
        );
        assert!(done.len() < 50, "{done:?}");
    }
    let is: Vec<_> =
        known.paths.iter().map(|(prefix, mark)| (*prefix, mark.expect("a mark"))).collect();
    assert_eq!(is, wanted.paths.iter().map(|(prefix, mark)| (*prefix, *mark)).collect::<Vec<_>>());
    assert!(
        known.classes.keys().eq(wanted.policies.keys())
            && known.peers.keys().eq(wanted.peers.keys())
    );
    done
}

#[test]
fn what_a_router_hears_first_is_complete() {
    let mut known = ObservedState::default();
    assert_eq!(run_to_end(&mut known, &wanted(None, &[], &[])), [""; 0], "nobody asks for it");
    let all = wanted(Some(IDENTITY), &[(1, "a"), (2, "a")], &[(1, 7), (2, 8)]);
    assert_eq!(
        run_to_end(&mut known, &all),
        ["start", "policies 2", "announce 2", "add 192.0.2.1", "add 192.0.2.2"]
    );
    assert_eq!(run_to_end(&mut known, &all), [""; 0]);
}

#[test]
fn what_is_as_it_is_wanted_is_not_touched() {
    let mut known = ObservedState::default();
    let before = [(1, "a"), (2, "a"), (3, "a")];
    run_to_end(&mut known, &wanted(Some(IDENTITY), &before, &[(1, 7), (2, 7)]));
    let other_terms = wanted(Some(IDENTITY), &[(1, "a"), (2, "b"), (4, "a")], &[(1, 7), (2, 7)]);
    assert_eq!(
        run_to_end(&mut known, &other_terms),
        ["remove 192.0.2.2", "remove 192.0.2.3", "add 192.0.2.2", "add 192.0.2.4"]
    );
    let same = [(1, "a"), (2, "b"), (4, "a")];
    assert_eq!(
        run_to_end(&mut known, &wanted(Some(IDENTITY), &same, &[(1, 7), (3, 7)])),
        ["withdraw 1", "announce 1"]
    );
    assert_eq!(
        run_to_end(&mut known, &wanted(Some(IDENTITY), &same, &[])),
        ["withdraw 2", "policies 0"]
    );
}

#[test]
fn a_class_that_changes_is_there_before_its_paths_and_the_old_one_goes_after_them() {
    let mut known = ObservedState::default();
    run_to_end(&mut known, &wanted(Some(IDENTITY), &[(1, "a")], &[(1, 7), (2, 7), (3, 8)]));
    let changed = wanted(Some(IDENTITY), &[(1, "a")], &[(1, 9), (2, 9), (3, 8)]);
    assert_eq!(run_to_end(&mut known, &changed), ["policies 3", "announce 2", "policies 2"]);
}

#[test]
fn another_speaker_before_this_one_left_what_is_wanted_and_nothing_moves() {
    let all = wanted(Some(IDENTITY), &[(1, "a")], &[(1, 7)]);
    let mut known = ObservedState::default();
    run_to_end(&mut known, &all);
    // A read of gobgpd returns only the marks of its classes.
    known.classes.values_mut().for_each(|class| *class = None);
    assert_eq!(run_to_end(&mut known.clone(), &all), [""; 0]);
    let changed = wanted(Some(IDENTITY), &[(1, "a")], &[(1, 8)]);
    known.paths.insert(prefix(1), None);
    assert_eq!(run_to_end(&mut known, &changed), ["policies 1", "announce 1"]);
}

#[test]
fn who_becomes_somebody_else_begins_anew_and_who_has_no_session_left_says_nothing() {
    let mut known = ObservedState::default();
    run_to_end(&mut known, &wanted(Some(IDENTITY), &[(1, "a")], &[(1, 7)]));
    let other = BgpIdentity { asn: 64999, ..IDENTITY };
    let steps = run_to_end(&mut known, &wanted(Some(other), &[(1, "a")], &[(1, 7)]));
    assert_eq!(steps, ["remove 192.0.2.1", "start", "policies 1", "announce 1", "add 192.0.2.1"]);
    assert_eq!(
        run_to_end(&mut known, &wanted(None, &[], &[])),
        ["remove 192.0.2.1", "withdraw 1", "policies 0"]
    );
    assert_eq!(known.identity, Some(other), "it can be used again");
}

#[test]
fn a_session_that_is_refused_is_asked_for_again_with_other_terms_and_holds_nothing_else_back() {
    let mut known = ObservedState::default();
    let all = wanted(Some(IDENTITY), &[(1, "a"), (2, "a")], &[]);
    known.apply(next_step(&all, &known).expect("to start"));
    let Some(BgpStep::AddSession(place, order)) = next_step(&all, &known) else {
        panic!("a session")
    };
    known.reject(place, &order);
    assert!(
        matches!(next_step(&all, &known), Some(BgpStep::AddSession(other, _)) if other == self::place(2))
    );
    let other_terms = wanted(Some(IDENTITY), &[(1, "b")], &[]);
    assert!(matches!(next_step(&other_terms, &known), Some(BgpStep::AddSession(..))));
    known.rejected.clear();
    assert!(
        matches!(next_step(&all, &known), Some(BgpStep::AddSession(first, _)) if first == self::place(1))
    );
}

/// Sets whether the next list of sessions shows the first one as established.
fn set_established(known: &mut ObservedState, established: bool) {
    known.peers.get_mut(&place(1)).expect("a session").established = established;
}

#[test]
fn a_session_that_the_next_list_lacks_is_added_again_and_one_that_it_has_too_many_is_removed() {
    let all = wanted(Some(IDENTITY), &[(1, "a"), (2, "a")], &[(1, 7)]);
    let mut known = ObservedState::default();
    run_to_end(&mut known, &all);
    let list = known.peers.clone();
    known.peers.remove(&place(1));
    assert_eq!(
        run_to_end(&mut known, &all),
        ["add 192.0.2.1"],
        "someone deleted it with the gobgp command"
    );
    assert_eq!(known.peers, list);
    known.peers.insert(place(3), ObservedSession::default());
    assert_eq!(run_to_end(&mut known, &all), ["remove 192.0.2.3"]);
}

#[test]
fn bfd_is_on_while_its_session_is_established_and_other_timers_are_another_session() {
    let with = |terms: &str, multiplier: Option<u32>| {
        let mut all = wanted(Some(IDENTITY), &[(1, terms)], &[]);
        let bfd = |detection_multiplier| api::BfdPeerConfig {
            enabled: true,
            detection_multiplier,
            ..api::BfdPeerConfig::default()
        };
        all.peers
            .values_mut()
            .for_each(|order| Arc::make_mut(order).peer.bfd = multiplier.map(bfd));
        all
    };
    let (plain, three, four) = (with("a", None), with("a", Some(3)), with("a", Some(4)));
    let mut known = ObservedState::default();
    assert_eq!(run_to_end(&mut known, &three), ["start", "add 192.0.2.1"]);
    set_established(&mut known, true);
    assert_eq!(run_to_end(&mut known, &three), ["watch 192.0.2.1 true"]);
    assert_eq!(run_to_end(&mut known, &four), ["remove 192.0.2.1", "add 192.0.2.1"]);
    set_established(&mut known, true);
    assert_eq!(run_to_end(&mut known, &four), ["watch 192.0.2.1 true"]);
    set_established(&mut known, false);
    assert_eq!(
        run_to_end(&mut known, &three),
        ["watch 192.0.2.1 false"],
        "nothing is lost by other timers"
    );
    set_established(&mut known, true);
    assert_eq!(run_to_end(&mut known, &three), ["watch 192.0.2.1 true"]);
    assert_eq!(run_to_end(&mut known, &plain), ["remove 192.0.2.1", "add 192.0.2.1"]);
    set_established(&mut known, true);
    assert_eq!(run_to_end(&mut known, &plain), [""; 0]);
    let Some(BgpStep::SetBfd(place, order, true)) = next_step(&three, &known) else {
        panic!("to watch")
    };
    known.reject(place, &order);
    assert_eq!(next_step(&three, &known), None, "it is asked for again when its time has come");
}

#[test]
fn ten_thousand_paths_go_in_batches() {
    let all: Vec<_> = (0..2_500).map(|number| (number, 7)).collect();
    let mut known = ObservedState::default();
    let steps = run_to_end(&mut known, &wanted(Some(IDENTITY), &[], &all));
    assert_eq!(steps, ["start", "policies 1", "announce 1000", "announce 1000", "announce 500"]);
}
