//! A daemon that does what it is told: after each step what stands there is sound, and in the end it is what is wanted.

use std::net::Ipv4Addr;

use gobgp_proto as api;

use super::*;

const IDENTITY: Identity = Identity { asn: 64512, router_id: Ipv4Addr::new(10, 0, 0, 1) };

fn mark(number: u32) -> Mark {
    let community = api::LargeCommunity { global_admin: 4_200_000_000, local_data1: 0, local_data2: number };
    Mark::read(&community).expect("a mark")
}

fn place(number: u8) -> PeerPlace {
    PeerPlace::Address([192, 0, 2, number].into())
}

fn prefix(number: u32) -> Prefix {
    Prefix::of(Ipv4Addr::from(0x0a00_0000 + number).into(), 32)
}

/// Sessions by number and terms, and paths by number and class.
fn wanted(identity: Option<Identity>, sessions: &[(u8, &str)], paths: &[(u32, u32)]) -> Wanted {
    let peer = |terms: &str| {
        let conf = api::PeerConf { description: terms.to_owned(), ..api::PeerConf::default() };
        PeerOrder { name: "tor".into(), peer: api::Peer { conf: Some(conf), ..api::Peer::default() } }
    };
    let class = |class: u32| ClassOrder { mark: mark(class), sets: vec![], statements: vec![] };
    Wanted {
        identity,
        peers: sessions.iter().map(|(number, terms)| (place(*number), Arc::new(peer(terms)))).collect(),
        classes: paths.iter().map(|(_, number)| (mark(*number), Arc::new(class(*number)))).collect(),
        paths: Arc::new(paths.iter().map(|(number, class)| (prefix(*number), mark(*class))).collect()),
        parting: None,
    }
}

/// Does everything that is to be done; the steps by their names.
fn obey(known: &mut Known, wanted: &Wanted) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(step) = next(wanted, known) {
        done.push(match &step {
            Step::Start(_) => "start".to_owned(),
            Step::Remove(place) => format!("remove {}", place.address().expect("an address")),
            Step::Policies(classes) => format!("policies {}", classes.len()),
            Step::Announce(paths) => format!("announce {}", paths.len()),
            Step::Withdraw(paths) => format!("withdraw {}", paths.len()),
            Step::Add(place, _) => format!("add {}", place.address().expect("an address")),
            Step::Watch(place, _, on) => format!("watch {} {on}", place.address().expect("an address")),
        });
        known.did(step);
        let mut marks = known.paths.values().flatten();
        assert!(marks.all(|mark| known.classes.contains_key(mark)), "a path without its statements: {done:?}");
        assert!(done.len() < 50, "{done:?}");
    }
    let is: Vec<_> = known.paths.iter().map(|(prefix, mark)| (*prefix, mark.expect("a mark"))).collect();
    assert_eq!(is, wanted.paths.iter().map(|(prefix, mark)| (*prefix, *mark)).collect::<Vec<_>>());
    assert!(known.classes.keys().eq(wanted.classes.keys()) && known.peers.keys().eq(wanted.peers.keys()));
    done
}

#[test]
fn what_a_router_hears_first_is_complete() {
    let mut known = Known::default();
    assert_eq!(obey(&mut known, &wanted(None, &[], &[])), [""; 0], "nobody asks for it");
    let all = wanted(Some(IDENTITY), &[(1, "a"), (2, "a")], &[(1, 7), (2, 8)]);
    assert_eq!(obey(&mut known, &all), ["start", "policies 2", "announce 2", "add 192.0.2.1", "add 192.0.2.2"]);
    assert_eq!(obey(&mut known, &all), [""; 0]);
}

#[test]
fn what_is_as_it_is_wanted_is_not_touched() {
    let mut known = Known::default();
    let before = [(1, "a"), (2, "a"), (3, "a")];
    obey(&mut known, &wanted(Some(IDENTITY), &before, &[(1, 7), (2, 7)]));
    let other_terms = wanted(Some(IDENTITY), &[(1, "a"), (2, "b"), (4, "a")], &[(1, 7), (2, 7)]);
    assert_eq!(
        obey(&mut known, &other_terms),
        ["remove 192.0.2.2", "remove 192.0.2.3", "add 192.0.2.2", "add 192.0.2.4"]
    );
    let same = [(1, "a"), (2, "b"), (4, "a")];
    assert_eq!(obey(&mut known, &wanted(Some(IDENTITY), &same, &[(1, 7), (3, 7)])), ["withdraw 1", "announce 1"]);
    assert_eq!(obey(&mut known, &wanted(Some(IDENTITY), &same, &[])), ["withdraw 2", "policies 0"]);
}

#[test]
fn a_class_that_changes_is_there_before_its_paths_and_the_old_one_goes_after_them() {
    let mut known = Known::default();
    obey(&mut known, &wanted(Some(IDENTITY), &[(1, "a")], &[(1, 7), (2, 7), (3, 8)]));
    let changed = wanted(Some(IDENTITY), &[(1, "a")], &[(1, 9), (2, 9), (3, 8)]);
    assert_eq!(obey(&mut known, &changed), ["policies 3", "announce 2", "policies 2"]);
}

#[test]
fn another_speaker_before_this_one_left_what_is_wanted_and_nothing_moves() {
    let all = wanted(Some(IDENTITY), &[(1, "a")], &[(1, 7)]);
    let mut known = Known::default();
    obey(&mut known, &all);
    // What is read of a daemon: of classes the marks alone.
    known.classes.values_mut().for_each(|class| *class = None);
    assert_eq!(obey(&mut known.clone(), &all), [""; 0]);
    let changed = wanted(Some(IDENTITY), &[(1, "a")], &[(1, 8)]);
    known.paths.insert(prefix(1), None);
    assert_eq!(obey(&mut known, &changed), ["policies 1", "announce 1"]);
}

#[test]
fn who_becomes_somebody_else_begins_anew_and_who_has_no_session_left_says_nothing() {
    let mut known = Known::default();
    obey(&mut known, &wanted(Some(IDENTITY), &[(1, "a")], &[(1, 7)]));
    let other = Identity { asn: 64999, ..IDENTITY };
    let steps = obey(&mut known, &wanted(Some(other), &[(1, "a")], &[(1, 7)]));
    assert_eq!(steps, ["remove 192.0.2.1", "start", "policies 1", "announce 1", "add 192.0.2.1"]);
    assert_eq!(obey(&mut known, &wanted(None, &[], &[])), ["remove 192.0.2.1", "withdraw 1", "policies 0"]);
    assert_eq!(known.identity, Some(other), "it can be used again");
}

#[test]
fn a_session_that_is_refused_is_asked_for_again_with_other_terms_and_holds_nothing_else_back() {
    let mut known = Known::default();
    let all = wanted(Some(IDENTITY), &[(1, "a"), (2, "a")], &[]);
    known.did(next(&all, &known).expect("to start"));
    let Some(Step::Add(place, order)) = next(&all, &known) else { panic!("a session") };
    known.refuse(place, &order);
    assert!(matches!(next(&all, &known), Some(Step::Add(other, _)) if other == self::place(2)));
    let other_terms = wanted(Some(IDENTITY), &[(1, "b")], &[]);
    assert!(matches!(next(&other_terms, &known), Some(Step::Add(..))));
    known.refused.clear();
    assert!(matches!(next(&all, &known), Some(Step::Add(first, _)) if first == self::place(1)));
}

/// The next list of sessions shows the first one established, or not.
fn see(known: &mut Known, established: bool) {
    known.peers.get_mut(&place(1)).expect("a session").established = established;
}

#[test]
fn a_session_that_the_next_list_lacks_is_added_again_and_one_that_it_has_too_many_is_removed() {
    let all = wanted(Some(IDENTITY), &[(1, "a"), (2, "a")], &[(1, 7)]);
    let mut known = Known::default();
    obey(&mut known, &all);
    let list = known.peers.clone();
    known.peers.remove(&place(1));
    assert_eq!(obey(&mut known, &all), ["add 192.0.2.1"], "someone deleted it with the gobgp command");
    assert_eq!(known.peers, list);
    known.peers.insert(place(3), Has::default());
    assert_eq!(obey(&mut known, &all), ["remove 192.0.2.3"]);
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
        all.peers.values_mut().for_each(|order| Arc::make_mut(order).peer.bfd = multiplier.map(bfd));
        all
    };
    let (plain, three, four) = (with("a", None), with("a", Some(3)), with("a", Some(4)));
    let mut known = Known::default();
    assert_eq!(obey(&mut known, &three), ["start", "add 192.0.2.1"]);
    see(&mut known, true);
    assert_eq!(obey(&mut known, &three), ["watch 192.0.2.1 true"]);
    assert_eq!(obey(&mut known, &four), ["remove 192.0.2.1", "add 192.0.2.1"]);
    see(&mut known, true);
    assert_eq!(obey(&mut known, &four), ["watch 192.0.2.1 true"]);
    see(&mut known, false);
    assert_eq!(obey(&mut known, &three), ["watch 192.0.2.1 false"], "nothing is lost by other timers");
    see(&mut known, true);
    assert_eq!(obey(&mut known, &three), ["watch 192.0.2.1 true"]);
    assert_eq!(obey(&mut known, &plain), ["remove 192.0.2.1", "add 192.0.2.1"]);
    see(&mut known, true);
    assert_eq!(obey(&mut known, &plain), [""; 0]);
    let Some(Step::Watch(place, order, true)) = next(&three, &known) else { panic!("to watch") };
    known.refuse(place, &order);
    assert_eq!(next(&three, &known), None, "it is asked for again when its time has come");
}

#[test]
fn ten_thousand_paths_go_in_batches() {
    let all: Vec<_> = (0..2_500).map(|number| (number, 7)).collect();
    let mut known = Known::default();
    let steps = obey(&mut known, &wanted(Some(IDENTITY), &[], &all));
    assert_eq!(steps, ["start", "policies 1", "announce 1000", "announce 1000", "announce 500"]);
}
