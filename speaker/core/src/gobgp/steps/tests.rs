//! Tests of the steps with a gobgpd that executes each of them: its state is consistent after each
//! step, and matches the desired state at the end.

use std::net::Ipv4Addr;

use gobgp_proto as api;

use super::*;

const IDENTITY: BgpIdentity = BgpIdentity { asn: 64512, router_id: Ipv4Addr::new(10, 0, 0, 1) };

fn mark(number: u32) -> ContentHash {
    let community =
        api::LargeCommunity { global_admin: 4_200_000_000, local_data1: 0, local_data2: number };
    ContentHash::from_community(&community).expect("a mark")
}

fn location(number: u8) -> PeerLocation {
    PeerLocation::Address([192, 0, 2, number].into())
}

fn prefix(number: u32) -> Prefix {
    Prefix::of(Ipv4Addr::from(0x0a00_0000 + number).into(), 32)
}

/// Returns a desired state with these sessions, by number and parameters, and paths, by number and
/// class.
fn desired(
    identity: Option<BgpIdentity>,
    sessions: &[(u8, &str)],
    paths: &[(u32, u32)],
) -> GobgpConfig {
    let peer = |parameters: &str| {
        let conf = api::PeerConf { description: parameters.to_owned(), ..api::PeerConf::default() };
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
            .map(|(number, parameters)| (location(*number), Arc::new(peer(parameters))))
            .collect(),
        policies: paths
            .iter()
            .map(|(_, number)| (mark(*number), Arc::new(class(*number))))
            .collect(),
        paths: paths
            .iter()
            .map(|(number, class)| (*number, *class))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .map(|(number, class)| (prefix(number), Some(mark(class))))
            .collect(),
        no_restart_reason: None,
    }
}

/// Executes steps until gobgpd has the desired state. Returns the names of the steps.
fn execute_all(known: &mut ObservedState, desired: &GobgpConfig) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(step) = next_step(desired, known) {
        names.push(match &step {
            BgpStep::Start(_) => "start".to_owned(),
            BgpStep::RemoveSession(location) => {
                format!("remove {}", location.address().expect("an address"))
            }
            BgpStep::SetPolicies(classes) => format!("policies {}", classes.len()),
            BgpStep::Announce(paths) => format!("announce {}", paths.len()),
            BgpStep::Withdraw(paths) => format!("withdraw {}", paths.len()),
            BgpStep::AddSession(location, _) => {
                format!("add {}", location.address().expect("an address"))
            }
            BgpStep::SetBfd(location, _, on) => {
                format!("bfd {} {on}", location.address().expect("an address"))
            }
        });
        known.apply(step);
        let mut marks = known.paths.values().flatten();
        assert!(
            marks.all(|mark| known.classes.contains_key(mark)),
            "every path has a policy: {names:?}"
        );
        assert!(names.len() < 50, "{names:?}");
    }
    assert_eq!(known.paths, desired.paths);
    assert!(
        known.classes.keys().eq(desired.policies.keys())
            && known.peers.keys().eq(desired.peers.keys())
    );
    names
}

#[test]
fn sessions_are_added_after_all_paths() {
    let mut known = ObservedState::default();
    assert_eq!(execute_all(&mut known, &desired(None, &[], &[])), [""; 0], "no session is desired");
    let all = desired(Some(IDENTITY), &[(1, "a"), (2, "a")], &[(1, 7), (2, 8)]);
    assert_eq!(
        execute_all(&mut known, &all),
        ["start", "policies 2", "announce 2", "add 192.0.2.1", "add 192.0.2.2"]
    );
    assert_eq!(execute_all(&mut known, &all), [""; 0]);
}

#[test]
fn unchanged_sessions_and_paths_are_not_touched() {
    let mut known = ObservedState::default();
    let before = [(1, "a"), (2, "a"), (3, "a")];
    execute_all(&mut known, &desired(Some(IDENTITY), &before, &[(1, 7), (2, 7)]));
    let other_parameters =
        desired(Some(IDENTITY), &[(1, "a"), (2, "b"), (4, "a")], &[(1, 7), (2, 7)]);
    assert_eq!(
        execute_all(&mut known, &other_parameters),
        ["remove 192.0.2.2", "remove 192.0.2.3", "add 192.0.2.2", "add 192.0.2.4"]
    );
    let same = [(1, "a"), (2, "b"), (4, "a")];
    assert_eq!(
        execute_all(&mut known, &desired(Some(IDENTITY), &same, &[(1, 7), (3, 7)])),
        ["withdraw 1", "announce 1"]
    );
    assert_eq!(
        execute_all(&mut known, &desired(Some(IDENTITY), &same, &[])),
        ["withdraw 2", "policies 0"]
    );
}

#[test]
fn policies_are_added_before_and_removed_after_their_paths() {
    let mut known = ObservedState::default();
    execute_all(&mut known, &desired(Some(IDENTITY), &[(1, "a")], &[(1, 7), (2, 7), (3, 8)]));
    let changed = desired(Some(IDENTITY), &[(1, "a")], &[(1, 9), (2, 9), (3, 8)]);
    assert_eq!(execute_all(&mut known, &changed), ["policies 3", "announce 2", "policies 2"]);
}

#[test]
fn state_that_an_earlier_speaker_configured_is_kept() {
    let all = desired(Some(IDENTITY), &[(1, "a")], &[(1, 7)]);
    let mut known = ObservedState::default();
    execute_all(&mut known, &all);
    // A read of gobgpd returns only the marks of its classes.
    known.classes.values_mut().for_each(|class| *class = None);
    assert_eq!(execute_all(&mut known.clone(), &all), [""; 0]);
    let changed = desired(Some(IDENTITY), &[(1, "a")], &[(1, 8)]);
    known.paths.insert(prefix(1), None);
    assert_eq!(execute_all(&mut known, &changed), ["policies 1", "announce 1"]);
}

#[test]
fn a_new_identity_restarts_bgp_and_no_peer_withdraws_all_paths() {
    let mut known = ObservedState::default();
    execute_all(&mut known, &desired(Some(IDENTITY), &[(1, "a")], &[(1, 7)]));
    let other = BgpIdentity { asn: 64999, ..IDENTITY };
    let steps = execute_all(&mut known, &desired(Some(other), &[(1, "a")], &[(1, 7)]));
    assert_eq!(steps, ["remove 192.0.2.1", "start", "policies 1", "announce 1", "add 192.0.2.1"]);
    assert_eq!(
        execute_all(&mut known, &desired(None, &[], &[])),
        ["remove 192.0.2.1", "withdraw 1", "policies 0"]
    );
    assert_eq!(known.identity, Some(other), "gobgpd keeps its identity without sessions");
}

#[test]
fn a_rejected_session_is_retried_after_a_change_or_a_delay() {
    let mut known = ObservedState::default();
    let all = desired(Some(IDENTITY), &[(1, "a"), (2, "a")], &[]);
    known.apply(next_step(&all, &known).expect("a step Start"));
    let Some(BgpStep::AddSession(location, config)) = next_step(&all, &known) else {
        panic!("the next step is not AddSession")
    };
    known.reject(location, &config);
    assert!(
        matches!(next_step(&all, &known), Some(BgpStep::AddSession(other, _)) if other == self::location(2))
    );
    let other_parameters = desired(Some(IDENTITY), &[(1, "b")], &[]);
    assert!(matches!(next_step(&other_parameters, &known), Some(BgpStep::AddSession(..))));
    known.rejected.clear();
    assert!(
        matches!(next_step(&all, &known), Some(BgpStep::AddSession(first, _)) if first == self::location(1))
    );
}

/// Sets whether the next list of sessions shows the first one as established.
fn set_established(known: &mut ObservedState, established: bool) {
    known.peers.get_mut(&location(1)).expect("the first session").established = established;
}

#[test]
fn missing_sessions_are_added_and_unknown_ones_removed() {
    let all = desired(Some(IDENTITY), &[(1, "a"), (2, "a")], &[(1, 7)]);
    let mut known = ObservedState::default();
    execute_all(&mut known, &all);
    let list = known.peers.clone();
    known.peers.remove(&location(1));
    assert_eq!(
        execute_all(&mut known, &all),
        ["add 192.0.2.1"],
        "an operator deleted the session with the gobgp command"
    );
    assert_eq!(known.peers, list);
    known.peers.insert(location(3), ObservedSession::default());
    assert_eq!(execute_all(&mut known, &all), ["remove 192.0.2.3"]);
}

#[test]
fn bfd_is_on_only_while_its_session_is_established() {
    let with = |parameters: &str, multiplier: Option<u32>| {
        let mut all = desired(Some(IDENTITY), &[(1, parameters)], &[]);
        let bfd = |detection_multiplier| api::BfdPeerConfig {
            enabled: true,
            detection_multiplier,
            ..api::BfdPeerConfig::default()
        };
        all.peers
            .values_mut()
            .for_each(|config| Arc::make_mut(config).peer.bfd = multiplier.map(bfd));
        all
    };
    let (plain, three, four) = (with("a", None), with("a", Some(3)), with("a", Some(4)));
    let mut known = ObservedState::default();
    assert_eq!(execute_all(&mut known, &three), ["start", "add 192.0.2.1"]);
    set_established(&mut known, true);
    assert_eq!(execute_all(&mut known, &three), ["bfd 192.0.2.1 true"]);
    assert_eq!(execute_all(&mut known, &four), ["remove 192.0.2.1", "add 192.0.2.1"]);
    set_established(&mut known, true);
    assert_eq!(execute_all(&mut known, &four), ["bfd 192.0.2.1 true"]);
    set_established(&mut known, false);
    assert_eq!(
        execute_all(&mut known, &three),
        ["bfd 192.0.2.1 false"],
        "timers change without a new session while BGP is down"
    );
    set_established(&mut known, true);
    assert_eq!(execute_all(&mut known, &three), ["bfd 192.0.2.1 true"]);
    assert_eq!(execute_all(&mut known, &plain), ["remove 192.0.2.1", "add 192.0.2.1"]);
    set_established(&mut known, true);
    assert_eq!(execute_all(&mut known, &plain), [""; 0]);
    let Some(BgpStep::SetBfd(location, config, true)) = next_step(&three, &known) else {
        panic!("the next step is not SetBfd")
    };
    known.reject(location, &config);
    assert_eq!(next_step(&three, &known), None, "a rejected BFD is retried only after a delay");
}

#[test]
fn paths_are_announced_in_batches() {
    let all: Vec<_> = (0..2_500).map(|number| (number, 7)).collect();
    let mut known = ObservedState::default();
    let steps = execute_all(&mut known, &desired(Some(IDENTITY), &[], &all));
    assert_eq!(steps, ["start", "policies 1", "announce 1000", "announce 1000", "announce 500"]);
}
