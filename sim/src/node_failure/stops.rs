//! Faults that end the pod of a speaker in order: an update, a deletion, an eviction or a changed
//! selector. Kubernetes sets the deletion time of the pod, and then the speaker reports that it
//! stops. Nothing on the node has failed.

use std::time::Duration;

use super::checker::Rule;
use super::faults::{hold, power_off, random_time};
use super::world::World;
use crate::scenario::ms;

/// Time of a fault that lasts to the end of the run.
const FOREVER: Duration = ms(1_000_000);

/// Maximum delay of the deletion time on its way to the replicas, beyond that of other changes: an
/// API server that delays it for longer than the detection takes leads to a mark.
const POD_LATE_MAX: Duration = ms(500);

/// Faults that coincide with the end of a pod.
#[derive(Clone, Copy, Debug)]
struct Coincidence {
    /// Time for which the kubelet's port is filtered from the stop on.
    filtered: Option<Duration>,
    /// Time for which the kubelet does not run from the stop on.
    kubelet_stopped: Option<Duration>,
}

/// Ends the pod of a node's speaker. A new pod follows if `is_updated`.
pub(super) fn end_pod(world: &mut World, node: usize, is_updated: bool, is_only: bool) {
    if is_only {
        world.checker.never_marked = Some((node, Rule::Alive));
    }
    let mut before = Duration::ZERO;
    if world.rng.chance(0.3) {
        before = world.rng.between(Duration::ZERO, ms(2_000));
        let time = before + random_time(world);
        world.interrupt_pods(time);
    }
    if world.rng.chance(0.3) {
        let late = world.rng.between(Duration::ZERO, POD_LATE_MAX);
        world.note(|_| format!("changes of pods arrive {} ms late", late.as_millis()));
        world.pods_late = late;
        world.after(before + ms(2_000), |world| world.pods_late = Duration::ZERO);
    }
    let is_filtered = world.rng.chance(0.75);
    let time = if is_updated { random_time(world) } else { FOREVER };
    let kubelet_stopped = world.rng.chance(0.3).then_some(world.rng.between(ms(500), ms(20_000)));
    let coincidence = Coincidence { filtered: is_filtered.then_some(time), kubelet_stopped };
    world.after(before, move |world| delete_pod(world, node, is_updated, coincidence));
    if is_only && !is_updated {
        let wait = before + world.rng.between(ms(4_000), ms(40_000));
        world.after(wait, move |world| fail_other(world, node));
    }
}

/// Lets another node lose its power after a speaker was removed.
fn fail_other(world: &mut World, removed: usize) {
    let leading = world.leader().map(|it| world.replicas[it].node);
    let others: Vec<_> =
        (0..world.nodes.len()).filter(|it| *it != removed && Some(*it) != leading).collect();
    let node = world.rng.pick(&others);
    world.checker.expect_mark(node, world.now);
    power_off(world, node);
}

fn delete_pod(world: &mut World, node: usize, is_updated: bool, coincidence: Coincidence) {
    let uid = world.pod_uid(node);
    world.change_pod(node, &uid, |pod| pod.is_wanted = false);
    let wait = world.rng.between(ms(2), ms(300));
    world.after(wait, move |world| {
        world.announce_stop(node);
        world.change(node, |it| it.speaker_down += 1);
        let mut wait = world.rng.between(ms(50), ms(2_000));
        if let Some(time) = coincidence.filtered {
            hold(world, node, time, |it| &mut it.kubelet_filtered);
        }
        if let Some(time) = coincidence.kubelet_stopped {
            hold(world, node, time, |it| &mut it.kubelet_stopped);
            wait += time;
        }
        world.after(wait, move |world| {
            if world.pod_uid(node) == uid {
                world.store_pod(node, None);
            }
            if is_updated {
                let wait = world.rng.between(ms(50), ms(3_000));
                world.after(wait, move |world| create_pod(world, node));
            }
        });
    });
}

/// Creates the next pod. Its kubelet reports the phase `Running` after the start of the speaker.
fn create_pod(world: &mut World, node: usize) {
    let mut pod = world.new_pod(node);
    (pod.ready, pod.is_wanted) = (false, false);
    let uid = pod.uid.clone();
    world.store_pod(node, Some(pod));
    let wait = world.rng.between(ms(300), ms(10_000));
    world.after(wait, move |world| {
        world.change(node, |it| it.speaker_down -= 1);
        let wait = world.rng.between(ms(10), ms(2_000));
        world.after(wait, move |world| {
            world.change_pod(node, &uid, |pod| (pod.ready, pod.is_wanted) = (true, true));
        });
    });
}
