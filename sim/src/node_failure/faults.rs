//! Faults: each kind begins at one time, on random nodes, and most end by themselves.

use super::node::Conditions;
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
    /// The controller's node loses its power or its network.
    ControllerNode,
    /// The interface of a node is down.
    Cut,
    /// The interface of a node goes down and up repeatedly.
    Flap,
    /// The frames of the segment do not reach a node, but UDP does.
    SegmentCut,
    /// The speaker of a node ends without an announcement, and starts again.
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
    /// A node restarts: its speaker reports that it stops.
    Reboot,
    /// The controller stands still.
    ControllerFrozen,
    /// The controller restarts.
    ControllerRestarts,
    /// The controller receives nothing, and can write.
    StaleView,
}

impl FaultKind {
    pub const ALL: [Self; 22] = [
        Self::PowerOff,
        Self::PowerOffRack,
        Self::PowerCycle,
        Self::TwoNodes,
        Self::ControllerNode,
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
}

/// Plans the fault, or several random ones.
pub(super) fn plan(world: &mut World, only: Option<FaultKind>) {
    let mut kinds = Vec::new();
    if let Some(kind) = only {
        kinds.push(kind);
        // A fault of the controller matters only if nodes fail as well.
        if matches!(kind, FaultKind::ControllerRestarts) || kind.delays_the_controller() {
            let others = [FaultKind::PowerCycle, FaultKind::Cut, FaultKind::Flap];
            kinds.extend([world.rng.pick(&others), world.rng.pick(&others)]);
        }
    } else {
        for _ in 0..world.rng.between(ms(2), ms(5)).as_millis() {
            kinds.push(world.rng.pick(&FaultKind::ALL));
        }
    }
    world.checker.reports_are_certain =
        world.loss == 0.0 && only.is_some_and(|kind| !kind.delays_the_controller());
    let mut at = world.rng.between(Duration::ZERO, ms(3_000));
    for kind in kinds {
        world.after(at, move |world| begin(world, kind, only.is_some()));
        let longest = world.rng.pick(&[ms(300), ms(2_500), ms(20_000)]);
        at += world.rng.between(Duration::ZERO, longest);
    }
}

fn begin(world: &mut World, kind: FaultKind, is_only: bool) {
    world.note(|_| format!("fault: {}", kind.name()));
    let node = other_than_the_controllers(world);
    let time = random_time(world);
    match kind {
        FaultKind::PowerOff => {
            if is_only {
                world.checker.single_failure = Some((node, world.now));
            }
            power_off(world, node);
        }
        FaultKind::PowerOffRack => {
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
        FaultKind::PowerCycle => power_cycle(world, node),
        FaultKind::TwoNodes => {
            for node in world.rng.sample(world.nodes.len(), 2) {
                let wait = world.rng.between(Duration::ZERO, ms(400));
                world.after(wait, move |world| fail_or_cut(world, node));
            }
        }
        FaultKind::ControllerNode => fail_or_cut(world, world.controller.node),
        FaultKind::Cut => hold(world, node, time, |it| &mut it.cut),
        FaultKind::Flap => {
            let half = ms(500);
            let (down, up) = if world.rng.chance(0.5) {
                (half, half)
            } else {
                (world.rng.between(ms(200), ms(3_000)), world.rng.between(ms(200), ms(3_000)))
            };
            flap(world, node, (down, up), 30);
        }
        FaultKind::SegmentCut => hold(world, node, time, |it| &mut it.segment_cut),
        FaultKind::SpeakerKilled => hold(world, node, time, |it| &mut it.speaker_down),
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
        FaultKind::Halves => split(world, world.nodes.len() / 2, false, time),
        FaultKind::SmallPart => {
            let size = 1 + world.rng.below((world.nodes.len() / 10).max(2));
            split(world, size, true, time);
        }
        FaultKind::Reboot => reboot(world, node),
        FaultKind::ControllerFrozen => freeze_controller(world, time),
        FaultKind::ControllerRestarts => world.restart_controller(),
        FaultKind::StaleView => delay_view(world, time),
    }
}

fn other_than_the_controllers(world: &mut World) -> usize {
    let count = world.nodes.len();
    (world.controller.node + 1 + world.rng.below(count - 1)) % count
}

/// Returns a random duration of a fault: most often short.
fn random_time(world: &mut World) -> Duration {
    let (shortest, longest) = world.rng.pick(&[(300, 2_000), (1_000, 20_000), (10_000, 70_000)]);
    world.rng.between(ms(shortest), ms(longest))
}

/// Causes a condition for some time.
fn hold(world: &mut World, node: usize, time: Duration, of: fn(&mut Conditions) -> &mut u8) {
    world.note(|world| format!("{} is affected for {} ms", world.names[node], time.as_millis()));
    world.change(node, move |it| *of(it) += 1);
    world.after(time, move |world| {
        world.note(|world| format!("the fault of {} ends", world.names[node]));
        world.change(node, move |it| *of(it) -= 1);
    });
}

fn power_off(world: &mut World, node: usize) {
    world.note(|world| format!("{} has no power", world.names[node]));
    world.change(node, |it| {
        it.off += 1;
        it.kubelet_stopped += 1;
        it.speaker_down += 1;
    });
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

/// Separates random nodes from all others. A second split changes the parts of the first one.
fn split(world: &mut World, size: usize, api_in_all_parts: bool, time: Duration) {
    let part = world.rng.sample(world.nodes.len(), size);
    world.note(|_| format!("{size} nodes are separate for {} ms: {part:?}", time.as_millis()));
    for node in part {
        world.change(node, |it| (it.part, it.api_in_all_parts) = (1, api_in_all_parts));
        world.after(time, move |world| world.change(node, |it| it.part = 0));
    }
}

/// Restarts a node as its administrator does.
fn reboot(world: &mut World, node: usize) {
    world.note(|world| format!("{} restarts", world.names[node]));
    world.announce_stop(node);
    world.change(node, |it| it.speaker_down += 1);
    let off = world.rng.between(ms(10), ms(5_000));
    world.after(off, move |world| {
        power_off(world, node);
        world.change(node, |it| it.speaker_down -= 1);
    });
    let longest = world.rng.pick(&[ms(40_000), ms(100_000)]);
    let time = off + world.rng.between(ms(5_000), longest);
    world.after(time, move |world| power_on(world, node));
}

fn freeze_controller(world: &mut World, time: Duration) {
    world.controller.frozen += 1;
    world.controller_changed();
    world.after(time, |world| {
        // Another replica may run by now.
        if world.controller.frozen > 0 {
            world.controller.frozen -= 1;
            world.controller_changed();
        }
    });
}

fn delay_view(world: &mut World, time: Duration) {
    world.controller.watch_stalled += 1;
    world.after(time, |world| {
        world.controller.watch_stalled -= 1;
        if world.controller.watch_stalled == 0 {
            world.resume_controller();
        }
    });
}
