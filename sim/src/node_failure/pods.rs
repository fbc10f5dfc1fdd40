//! Pods of the speakers in the API server, and the watch of them by the replicas of the controller.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_controller_core::credibility::SpeakerPods;
use ferrolb_proto::facts::{Component, Key, Pod, Speaker};

use super::controller::REPLICAS;
use super::queue::Event;
use super::world::World;
use crate::scenario::ms;

const NAMESPACE: &str = "ferrolb-system";

/// The pods as one replica has received them.
#[derive(Default)]
pub(super) struct PodView {
    /// The pod of each node's speaker.
    all: Vec<Option<Arc<Pod>>>,
    speakers: SpeakerPods,
    /// Number of faults that interrupt the watch.
    pub(super) interrupted: u8,
}

impl PodView {
    /// Returns whether the pod of a speaker is Ready.
    pub(super) fn runs(&self, speaker: &Speaker) -> bool {
        !self.speakers.lack(&speaker.node)
    }

    /// Returns the pods, and whether the watch of them is not interrupted.
    pub(super) const fn speakers(&self) -> (&SpeakerPods, bool) {
        (&self.speakers, self.interrupted == 0)
    }

    pub(super) fn list(&mut self, all: &[Option<Arc<Pod>>]) {
        self.all = all.to_vec();
        self.update();
    }

    fn update(&mut self) {
        let controller = pod(Component::Controller, "", 0);
        let speakers = self.all.iter().flatten().map(|it| &**it);
        self.speakers = SpeakerPods::of(speakers.chain([&controller]));
    }
}

/// Returns a pod that is Ready.
fn pod(component: Component, node: &str, number: u32) -> Pod {
    let uid: Box<str> = format!("{node}-{number}").into();
    Pod {
        key: Key::new(NAMESPACE, &uid),
        component: Some(component),
        node: node.into(),
        ready: true,
        uid,
        is_wanted: true,
    }
}

impl World {
    /// Returns a new pod of a node's speaker, which is Ready.
    pub(super) fn new_pod(&mut self, node: usize) -> Pod {
        self.nodes[node].pods += 1;
        pod(Component::Speaker, &self.names[node], self.nodes[node].pods)
    }

    /// Returns the UID of the pod of a node's speaker.
    pub(super) fn pod_uid(&self, node: usize) -> Box<str> {
        self.pods[node].as_ref().map_or_else(Box::default, |pod| pod.uid.clone())
    }

    /// Changes the pod of a node's speaker, if it still has this UID.
    pub(super) fn change_pod(&mut self, node: usize, uid: &str, change: impl FnOnce(&mut Pod)) {
        let Some(pod) = self.pods[node].as_deref().filter(|pod| *pod.uid == *uid) else { return };
        let mut pod = pod.clone();
        change(&mut pod);
        self.store_pod(node, Some(pod));
    }

    /// Stores the pod of a node's speaker, or that there is none.
    pub(super) fn store_pod(&mut self, node: usize, pod: Option<Pod>) {
        self.note(|world| {
            let name = &world.names[node];
            match &pod {
                Some(pod) => {
                    format!("pod {}: wanted {}, Ready {}", pod.uid, pod.is_wanted, pod.ready)
                }
                None => format!("no pod of a speaker is on {name}"),
            }
        });
        let pod = pod.map(Arc::new);
        self.pods[node].clone_from(&pod);
        let wait = self.pods_late + self.rng.between(ms(1), ms(10));
        let it = &mut self.nodes[node];
        it.latest_pod_seen = it.latest_pod_seen.max(self.now + wait);
        self.queue.push(it.latest_pod_seen, Event::PodSeen(node, pod));
    }

    pub(super) fn pod_seen(&mut self, node: usize, pod: &Option<Arc<Pod>>) {
        for replica in 0..REPLICAS {
            if self.receives_objects(replica) && self.replicas[replica].pods.interrupted == 0 {
                let pods = &mut self.replicas[replica].pods;
                pods.all[node].clone_from(pod);
                pods.update();
                self.evaluate_soon(replica);
            }
        }
    }

    /// Interrupts the watches of pods. The missed changes arrive after they continue.
    pub(super) fn interrupt_pods(&mut self, time: Duration) {
        self.note(|_| format!("the watches of pods are interrupted for {} ms", time.as_millis()));
        for replica in 0..REPLICAS {
            self.replicas[replica].pods.interrupted += 1;
            self.evaluate_soon(replica);
            self.after(time, move |world| world.resume_pods(replica));
        }
    }

    fn resume_pods(&mut self, replica: usize) {
        let interrupted = &mut self.replicas[replica].pods.interrupted;
        *interrupted -= 1;
        if *interrupted > 0 {
            return;
        }
        self.evaluate_soon(replica);
        let wait = self.rng.between(ms(1), ms(10));
        self.after(wait, move |world| {
            if world.receives_objects(replica) {
                world.replicas[replica].pods.list(&world.pods);
                world.evaluate_soon(replica);
            }
        });
    }
}
