//! Faults: each kind begins at one time, on random nodes, and most end by themselves.

use super::checker::Rule;
use super::node::Conditions;
use super::stops::end_pod;
use super::world::{RACK_SIZE, World};
use crate::scenario::ms;
use std::time::Duration;

/// Kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A node loses its power for good.
    PowerOff,
    /// All nodes of a rack lose their power, and some racks get it back.
    PowerOffRack,
    /// A node loses its power and gets it back.
    PowerCycle,
    /// Two nodes lose their power or their network at almost the same time.
    TwoNodes,
    /// The node of the controller's leader loses its power or its network.
    ControllerNode,
    /// The node of the controller's leader loses its power for good.
    LeaderOff,
    /// The interface of a node is down.
    Cut,
    /// The interface of a node goes down and up repeatedly.
    Flap,
    /// The frames of the segment do not reach a node, but UDP does.
    SegmentCut,
    /// The speaker of a node ends, with or without a stated stop, and starts again in its pod.
    SpeakerKilled,
    /// The speaker of a node stands still.
    SpeakerFrozen,
    /// Only the watcher of a speaker stands still.
    WatcherFrozen,
    /// The hellos of a node are dropped.
    HellosDropped,
    /// The challenges from and to a node are dropped.
    UdpDropped,
    /// Hellos and challenges are dropped.
    BothDropped,
    /// The kubelet of a node stops, and its port refuses connections.
    KubeletStopped,
    /// The API server is unreachable from half of the nodes.
    ApiCut,
    /// The network is in two halves, and the API server is in one of them.
    Halves,
    /// A few nodes reach the API server, but not the other nodes.
    SmallPart,
    /// A node restarts: its speaker reports that it stops, and its pod has no deletion time.
    Reboot,
    /// The pod of a speaker is replaced, as by an update.
    SpeakerUpdated,
    /// The pod of a speaker is deleted, and no other one follows.
    SpeakerRemoved,
    /// A replica of the controller stands still.
    ControllerFrozen,
    /// The controller's leader restarts on another node.
    ControllerRestarts,
    /// One or both replicas of the controller receive nothing, and can write.
    StaleView,
}

impl FaultKind {
    pub const ALL: [Self; 25] = [
        Self::PowerOff,
        Self::PowerOffRack,
        Self::PowerCycle,
        Self::TwoNodes,
        Self::ControllerNode,
        Self::LeaderOff,
        Self::Cut,
        Self::Flap,
        Self::SegmentCut,
        Self::SpeakerKilled,
        Self::SpeakerFrozen,
        Self::WatcherFrozen,
        Self::HellosDropped,
        Self::UdpDropped,
        Self::BothDropped,
        Self::KubeletStopped,
        Self::ApiCut,
        Self::Halves,
        Self::SmallPart,
        Self::Reboot,
        Self::SpeakerUpdated,
        Self::SpeakerRemoved,
        Self::ControllerFrozen,
        Self::ControllerRestarts,
        Self::StaleView,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "power_off",
            Self::PowerOffRack => "power_off_rack",
            Self::PowerCycle => "power_cycle",
            Self::TwoNodes => "two_nodes",
            Self::ControllerNode => "controller_node",
            Self::LeaderOff => "leader_off",
            Self::Cut => "cut",
            Self::Flap => "flap",
            Self::SegmentCut => "segment_cut",
            Self::SpeakerKilled => "speaker_killed",
            Self::SpeakerFrozen => "speaker_frozen",
            Self::WatcherFrozen => "watcher_frozen",
            Self::HellosDropped => "hellos_dropped",
            Self::UdpDropped => "udp_dropped",
            Self::BothDropped => "both_dropped",
            Self::KubeletStopped => "kubelet_stopped",
            Self::ApiCut => "api_cut",
            Self::Halves => "halves",
            Self::SmallPart => "small_part",
            Self::Reboot => "reboot",
            Self::SpeakerUpdated => "speaker_updated",
            Self::SpeakerRemoved => "speaker_removed",
            Self::ControllerFrozen => "ctrl_frozen",
            Self::ControllerRestarts => "ctrl_restarts",
            Self::StaleView => "stale_view",
        }
    }

    /// Returns whether the fault makes reports older than they seem, so that a mark of a living
    /// node is possible.
    const fn delays_the_controller(self) -> bool {
        matches!(self, Self::ControllerFrozen | Self::StaleView | Self::ControllerNode)
    }

    /// Returns whether the fault does so on the node of the leader.
    const fn cuts_the_node(self) -> bool {
        matches!(self, Self::Cut | Self::Flap)
    }
}

/// Plans the fault, or several random ones. Those of a node are on the one of the leader if
/// `on_leaders_node`.
pub(super) fn plan(world: &mut World, only: Option<FaultKind>, on_leaders_node: bool) {
    let mut kinds = Vec::new();
    if let Some(kind) = only {
        kinds.push(kind);
        // A fault of the controller matters only if nodes fail as well.
        if matches!(kind, FaultKind::ControllerRestarts) || kind.delays_the_controller() {
            let others =
                [FaultKind::PowerCycle, FaultKind::Cut, FaultKind::Flap, FaultKind::ControllerNode];
            kinds.extend([world.rng.pick(&others), world.rng.pick(&others)]);
        }
    } else {
        for _ in 0..world.rng.between(ms(2), ms(5)).as_millis() {
            kinds.push(world.rng.pick(&FaultKind::ALL));
        }
    }
    world.checker.reports_are_certain = world.loss == 0.0
        && only.is_some_and(|kind| {
            !(kind.delays_the_controller() || on_leaders_node && kind.cuts_the_node())
        });
    let mut at = world.rng.between(Duration::ZERO, ms(3_000));
    for kind in kinds {
        world.after(at, move |world| begin(world, kind, only.is_some(), on_leaders_node));
        let longest = world.rng.pick(&[ms(300), ms(2_500), ms(20_000)]);
        at += world.rng.between(Duration::ZERO, longest);
    }
}

fn begin(world: &mut World, kind: FaultKind, is_only: bool, on_leaders_node: bool) {
    world.note(|_| format!("fault: {}", kind.name()));
    let leader = world.leader().unwrap_or(0);
    let leaders_node = world.replicas[leader].node;
    let other = other_than_the_leaders(world);
    let node = if on_leaders_node { leaders_node } else { other };
    let time = random_time(world);
    match kind {
        FaultKind::PowerOff | FaultKind::LeaderOff => {
            let node = if kind == FaultKind::PowerOff { node } else { leaders_node };
            if is_only {
                world.checker.expect_mark(node, world.now);
            }
            power_off(world, node);
        }
        FaultKind::PowerOffRack => power_off_rack(world, node, time),
        FaultKind::PowerCycle => power_cycle(world, node),
        FaultKind::TwoNodes => {
            for node in world.rng.sample(world.nodes.len(), 2) {
                let wait = world.rng.between(Duration::ZERO, ms(400));
                world.after(wait, move |world| fail_or_cut(world, node));
            }
        }
        FaultKind::ControllerNode => fail_or_cut(world, leaders_node),
        FaultKind::Cut => hold(world, node, time, |it| &mut it.cut),
        FaultKind::Flap => {
            let (down, up) = if world.rng.chance(0.5) {
                (ms(500), ms(500))
            } else {
                (world.rng.between(ms(200), ms(3_000)), world.rng.between(ms(200), ms(3_000)))
            };
            flap(world, node, (down, up), 30);
        }
        FaultKind::SegmentCut => hold(world, node, time, |it| &mut it.segment_cut),
        FaultKind::SpeakerKilled => kill_speaker(world, node, time),
        FaultKind::SpeakerFrozen => hold(world, node, time, |it| &mut it.frozen),
        FaultKind::WatcherFrozen => hold(world, node, time, |it| &mut it.watcher_frozen),
        FaultKind::HellosDropped => hold(world, node, time, |it| &mut it.hellos_dropped),
        FaultKind::UdpDropped => hold(world, node, time, |it| &mut it.udp_dropped),
        FaultKind::BothDropped => {
            hold(world, node, time, |it| &mut it.udp_dropped);
            hold(world, node, time, |it| &mut it.hellos_dropped);
        }
        FaultKind::KubeletStopped => hold(world, node, time, |it| &mut it.kubelet_stopped),
        FaultKind::ApiCut => {
            let count = world.nodes.len();
            for node in world.rng.sample(count, count / 2) {
                hold(world, node, time, |it| &mut it.api_cut);
            }
        }
        FaultKind::Halves => split(world, world.nodes.len() / 2, None, false, time),
        FaultKind::SmallPart => {
            let size = 1 + world.rng.below((world.nodes.len() / 10).max(2));
            split(world, size, on_leaders_node.then_some(node), true, time);
        }
        FaultKind::Reboot => {
            let node = if world.rng.chance(0.3) { leaders_node } else { node };
            reboot(world, node, is_only);
        }
        FaultKind::SpeakerUpdated | FaultKind::SpeakerRemoved => {
            let node = if world.rng.chance(0.3) { leaders_node } else { node };
            end_pod(world, node, kind == FaultKind::SpeakerUpdated, is_only);
        }
        FaultKind::ControllerFrozen => {
            let replica = if world.rng.chance(0.3) { 1 - leader } else { leader };
            world.freeze_replica(replica, time);
        }
        FaultKind::ControllerRestarts => world.restart_replica(leader),
        FaultKind::StaleView => stall_watches(world, time),
    }
}

fn other_than_the_leaders(world: &mut World) -> usize {
    let leaders_node = world.replicas[world.leader().unwrap_or(0)].node;
    let count = world.nodes.len();
    (leaders_node + 1 + world.rng.below(count - 1)) % count
}

/// Returns a random duration of a fault: most often short.
pub(super) fn random_time(world: &mut World) -> Duration {
    let (shortest, longest) = world.rng.pick(&[(300, 2_000), (1_000, 20_000), (10_000, 70_000)]);
    world.rng.between(ms(shortest), ms(longest))
}

/// Causes a condition for some time.
pub(super) fn hold(
    world: &mut World,
    node: usize,
    time: Duration,
    of: fn(&mut Conditions) -> &mut u8,
) {
    world.note(|world| format!("{} is affected for {} ms", world.names[node], time.as_millis()));
    world.change(node, move |it| *of(it) += 1);
    world.after(time, move |world| {
        world.note(|world| format!("the fault of {} ends", world.names[node]));
        world.change(node, move |it| *of(it) -= 1);
    });
}

pub(super) fn power_off(world: &mut World, node: usize) {
    world.note(|world| format!("{} has no power", world.names[node]));
    world.change(node, |it| {
        it.off += 1;
        it.kubelet_stopped += 1;
        it.speaker_down += 1;
    });
}

fn power_off_rack(world: &mut World, node: usize, time: Duration) {
    let start = node - node % RACK_SIZE;
    let returns = world.rng.chance(0.5);
    for node in start..(start + RACK_SIZE).min(world.nodes.len()) {
        let wait = world.rng.between(Duration::ZERO, ms(20));
        world.after(wait, move |world| power_off(world, node));
        if returns {
            world.after(wait + time, move |world| power_on(world, node));
        }
    }
}

/// Gives a node its power back. Its kubelet starts before the pod of its speaker.
fn power_on(world: &mut World, node: usize) {
    world.note(|world| format!("{} has power", world.names[node]));
    world.change(node, |it| it.off -= 1);
    let kubelet = world.rng.between(ms(500), ms(10_000));
    let speaker = kubelet + world.rng.between(ms(300), ms(15_000));
    world.after(kubelet, move |world| world.change(node, |it| it.kubelet_stopped -= 1));
    world.after(speaker, move |world| world.change(node, |it| it.speaker_down -= 1));
}

fn power_cycle(world: &mut World, node: usize) {
    power_off(world, node);
    let longest = world.rng.pick(&[ms(20_000), ms(100_000)]);
    let time = world.rng.between(ms(5_000), longest);
    world.after(time, move |world| power_on(world, node));
}

fn fail_or_cut(world: &mut World, node: usize) {
    if world.rng.chance(0.5) {
        power_cycle(world, node);
    } else {
        let time = random_time(world);
        hold(world, node, time, |it| &mut it.cut);
    }
}

fn flap(world: &mut World, node: usize, (down, up): (Duration, Duration), times: u32) {
    hold(world, node, down, |it| &mut it.cut);
    if times > 0 {
        world.after(down + up, move |world| flap(world, node, (down, up), times - 1));
    }
}

/// Ends a speaker. A kubelet whose probe fails lets it stop in order.
fn kill_speaker(world: &mut World, node: usize, time: Duration) {
    if world.rng.chance(0.5) {
        world.announce_stop(node);
    }
    hold(world, node, time, |it| &mut it.speaker_down);
}

fn stall_watches(world: &mut World, time: Duration) {
    let replicas = world.rng.pick(&[&[0][..], &[1], &[0, 1]]);
    replicas.iter().for_each(|replica| world.stall_watches(*replica, time));
}

/// Separates random nodes from all others, `with` among them. A second split changes the parts of
/// the first one.
fn split(
    world: &mut World,
    size: usize,
    with: Option<usize>,
    api_in_all_parts: bool,
    time: Duration,
) {
    let mut part = world.rng.sample(world.nodes.len(), size);
    if let Some(node) = with.filter(|node| !part.contains(node)) {
        part[0] = node;
    }
    world.note(|_| format!("{size} nodes are separate for {} ms: {part:?}", time.as_millis()));
    for node in part {
        world.change(node, |it| (it.part, it.api_in_all_parts) = (1, api_in_all_parts));
        world.after(time, move |world| world.change(node, |it| it.part = 0));
    }
}

/// Restarts a node as its administrator does.
fn reboot(world: &mut World, node: usize, is_only: bool) {
    world.note(|world| format!("{} restarts", world.names[node]));
    let is_old = world.has_old_watcher(node);
    if is_only && is_old && world.loss == 0.0 {
        world.checker.never_marked = Some((node, Rule::Versions));
    }
    world.announce_stop(node);
    world.change(node, |it| it.speaker_down += 1);
    let off = world.rng.between(ms(10), ms(5_000));
    world.after(off, move |world| {
        if is_only && !is_old {
            world.checker.expect_mark_of_stopped(node, world.now);
        }
        power_off(world, node);
        world.change(node, |it| it.speaker_down -= 1);
    });
    let longest = world.rng.pick(&[ms(40_000), ms(100_000)]);
    let time = off + world.rng.between(ms(5_000), longest);
    world.after(time, move |world| power_on(world, node));
}
