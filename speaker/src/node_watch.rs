//! Driver that watches other nodes, to detect their failure
//! ([`ferrolb_speaker_core::node_failure`]). The main loop's `JoinSet` owns the task; cancelling
//! the task is safe. The task runs the state machine [`Watcher`], sends its challenges by the
//! second path, and connects to kubelets.

use std::sync::Arc;

use ferrolb_core::Machine;
use ferrolb_proto::wire::hello::{Body, Frame, NodeWatch};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::reach;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::node_failure::ring;
use ferrolb_speaker_core::node_failure::watcher::{Watcher, WatcherInput, WatcherOutput};
use ferrolb_speaker_core::plan::NodeWatchConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::link::SecondPath;

/// Maximum number of replies in the queue of the driver.
pub const REPLIES_MAX: usize = 64;

/// Driver of the state machine. See the module documentation.
pub struct NodeWatchDriver {
    node: Box<str>,
    watcher: Watcher,
    second_path: Arc<SecondPath>,
    config: NodeWatchConfig,
    probes: JoinSet<(Arc<str>, bool)>,
    events: mpsc::Sender<Event>,
}

impl NodeWatchDriver {
    /// Creates the driver of the node `node`. `seed` must be random.
    #[must_use]
    pub fn new(
        node: &str,
        seed: u64,
        second_path: Arc<SecondPath>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            node: node.into(),
            watcher: Watcher::new(seed),
            second_path,
            config: NodeWatchConfig::default(),
            probes: JoinSet::new(),
            events,
        }
    }

    /// Runs the driver. Ends when the main loop drops the sender of `config` or the receiver of the
    /// events.
    pub async fn run(
        mut self,
        mut config: watch::Receiver<NodeWatchConfig>,
        mut replies: mpsc::Receiver<Frame>,
    ) {
        loop {
            let deadline = self.watcher.deadline();
            tokio::select! {
                changed = config.changed() => match changed {
                    Ok(()) => {
                        let config = config.borrow_and_update().clone();
                        self.configure(config);
                    }
                    Err(_) => return,
                },
                Some(frame) = replies.recv() => self.on_reply(frame),
                Some(probed) = self.probes.join_next() => match probed {
                    Ok((node, is_silent)) => {
                        let input = WatcherInput::KubeletProbed { node, replied: !is_silent };
                        self.watcher.handle(input, Clock::now());
                    }
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = Clock::sleep_until(deadline) => self.watcher.tick(Clock::now()),
            }
            if !self.execute().await {
                return;
            }
        }
    }

    fn configure(&mut self, config: NodeWatchConfig) {
        let before = std::mem::replace(&mut self.config, config);
        let (now, nodes) = (Clock::now(), &self.config.nodes.nodes);
        if !Arc::ptr_eq(&before.nodes, &self.config.nodes)
            && !before.nodes.nodes.keys().eq(nodes.keys())
        {
            let ring = ring::successors(&self.node, nodes.keys());
            self.watcher.handle(WatcherInput::Nodes(ring), now);
        }
        if before.contacts != self.config.contacts {
            let contacts = self.config.contacts.clone();
            self.watcher.handle(WatcherInput::Contacts(contacts), now);
        }
    }

    fn on_reply(&mut self, frame: Frame) {
        let Frame { node, flags, body, .. } = frame;
        if let Body::NodeWatch(NodeWatch::Reply(nonce)) = body {
            let input = WatcherInput::Reply { node, nonce, flags };
            self.watcher.handle(input, Clock::now());
        }
    }

    /// Executes the outputs of the state machine. Returns false if the main loop has ended.
    async fn execute(&mut self) -> bool {
        while let Some(output) = self.watcher.poll() {
            match output {
                WatcherOutput::Challenge { node, nonce, missed } => {
                    let challenge = NodeWatch::Challenge(nonce);
                    self.second_path.send_to_watched(&node, challenge, missed);
                }
                WatcherOutput::ProbeKubelet(node) => match self.config.nodes.kubelet_of(&node) {
                    Some(kubelet) => drop(
                        self.probes.spawn(async move { (node, reach::is_silent(kubelet).await) }),
                    ),
                    // A node without an address has never replied to a challenge either.
                    None => {
                        let input = WatcherInput::KubeletProbed { node, replied: true };
                        self.watcher.handle(input, Clock::now());
                    }
                },
                WatcherOutput::Report(watched) => {
                    if self.events.send(Event::WatchedNodes(watched.into())).await.is_err() {
                        return false;
                    }
                }
                WatcherOutput::KubeProxyWorks(works) => {
                    if self.events.send(Event::KubeProxyWorksElsewhere(works)).await.is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }
}
