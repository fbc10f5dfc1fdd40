//! Task that executes the calls to gobgpd. The core's [`GobgpMachine`] decides which ones, and
//! when. The main loop's `JoinSet` owns the task; cancelling it is safe, and leaves gobgpd
//! unchanged. The task is gobgpd's only client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrolb_core::Machine;
use ferrolb_runtime::admin::ActionRequest;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::log_once::LogOnce;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::gobgp::{
    GobgpCall, GobgpError, GobgpInput, GobgpMachine, GobgpOutput, GobgpReply,
};
use ferrolb_speaker_core::plan::BgpConfig;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::bfd_port;
use super::client::Client;
use super::inputs::DriverInputs;
use super::stale_socket::StaleSocket;
use crate::metrics::GobgpMetrics;

/// Brings gobgpd to the latest desired state, as soon as that is known. Reports the state of its
/// sessions, and stops it on request. Runs until the process ends.
pub async fn run(
    inputs: DriverInputs,
    mut wanted: watch::Receiver<Option<BgpConfig>>,
    events: mpsc::Sender<Event>,
) {
    let DriverInputs { path, responsive, mut handovers, metrics } = inputs;
    let mut machine = GobgpMachine::new(Clock::now());
    let mut gobgpd = Gobgpd {
        path,
        responsive,
        metrics,
        events,
        connection: None,
        handover: None,
        stale_socket: StaleSocket::default(),
        error_log: LogOnce::default(),
    };
    wanted.mark_changed();
    loop {
        gobgpd.forward_changes(&mut wanted, &mut machine);
        while let Some(output) = machine.poll() {
            let result = gobgpd.perform(output).await;
            gobgpd.forward_changes(&mut wanted, &mut machine);
            result.into_iter().for_each(|result| machine.handle(result, Clock::now()));
        }
        let input = tokio::select! {
            change = next_change(&mut gobgpd.connection) => Some(change),
            () = gobgpd.metrics.scraped.notified() => Some(GobgpInput::Scraped),
            Ok(()) = wanted.changed() => {
                wanted.mark_changed();
                continue;
            }
            Some(request) = handovers.recv(), if gobgpd.handover.is_none() => {
                gobgpd.handover = Some(request);
                machine.handle(GobgpInput::HandoverRequested, Clock::now());
                continue;
            }
            () = Clock::sleep_until(machine.deadline()) => None,
        };
        gobgpd.forward_changes(&mut wanted, &mut machine);
        match input {
            Some(input) => machine.handle(input, Clock::now()),
            None => machine.tick(Clock::now()),
        }
    }
}

/// Client of a connected gobgpd, and the stream of the changes of its sessions.
type ConnectedClient = (Client, BoxStream<'static, ()>);

/// Waits until gobgpd reports a change of a session, or ends.
async fn next_change(connection: &mut Option<ConnectedClient>) -> GobgpInput {
    let Some((_, changes)) = connection else { return std::future::pending().await };
    match changes.next().await {
        Some(()) => GobgpInput::SessionChanged,
        None => GobgpInput::CallDone(Err(GobgpError::Call {
            call: "WatchEvent",
            why: "the stream ended".to_owned(),
        })),
    }
}

/// The gobgpd at a socket, to which the driver may be connected.
struct Gobgpd {
    path: String,
    responsive: Arc<AtomicBool>,
    metrics: GobgpMetrics,
    events: mpsc::Sender<Event>,
    connection: Option<ConnectedClient>,
    /// Handover that has no response yet.
    handover: Option<ActionRequest>,
    stale_socket: StaleSocket,
    error_log: LogOnce<String>,
}

impl Gobgpd {
    /// Passes to the machine that the client of the handover has disconnected, and the latest
    /// configuration if it is new. Precedes each other input, because a decision depends on both.
    fn forward_changes(
        &mut self,
        wanted: &mut watch::Receiver<Option<BgpConfig>>,
        machine: &mut GobgpMachine,
    ) {
        if self.handover.take_if(|request| !request.is_client_waiting()).is_some() {
            machine.handle(GobgpInput::HandoverCancelled, Clock::now());
        }
        if wanted.has_changed().unwrap_or_default() {
            let config = wanted.borrow_and_update().clone();
            machine.handle(GobgpInput::Config(config), Clock::now());
        }
    }

    async fn send(&mut self, event: Event) {
        // Without a main loop, the task is about to be cancelled.
        let _ = self.events.send(event).await;
    }

    /// Performs an output of the machine. Returns the result of a call.
    async fn perform(&mut self, output: GobgpOutput) -> Option<GobgpInput> {
        match output {
            GobgpOutput::Call(call) => return Some(GobgpInput::CallDone(self.call(call).await)),
            GobgpOutput::Report(report) => self.send(Event::Bgp(report)).await,
            GobgpOutput::FirstRead(prefixes) => self.send(Event::GobgpRead(prefixes)).await,
            GobgpOutput::Counts(counts) => {
                self.metrics.usable.set(1);
                self.metrics.counts.send_replace(counts);
            }
            GobgpOutput::SessionChanged(peer, None) => info!(peer, "BGP session established"),
            GobgpOutput::SessionChanged(peer, Some(why)) => warn!(peer, why, "BGP session lost"),
            GobgpOutput::Rejected => {
                self.metrics.rejections.inc();
            }
            GobgpOutput::Unusable(error) => self.end_connection(&error).await,
            GobgpOutput::Respond(outcome) => self.respond(outcome),
            GobgpOutput::Refuse(why) => {
                info!(
                    why,
                    "gobgpd stops without graceful restart: peers are not asked to keep its routes"
                );
                self.respond(Err(why.to_owned()));
            }
        }
        None
    }

    fn respond(&mut self, outcome: Result<(), String>) {
        if let Some(request) = self.handover.take() {
            request.respond(outcome);
        }
    }

    async fn call(&mut self, call: GobgpCall) -> Result<GobgpReply, GobgpError> {
        let Some((client, _)) = &mut self.connection else { return self.connect().await };
        Ok(match call {
            GobgpCall::Read => GobgpReply::Read(client.read().await?),
            GobgpCall::CheckVersion => {
                client.check_version().await?;
                GobgpReply::VersionChecked
            }
            GobgpCall::Execute(step) => match client.execute(&step).await {
                Err(GobgpError::Rejected(why)) => GobgpReply::Rejected(step, why),
                result => result.map(|()| GobgpReply::Executed(step))?,
            },
            GobgpCall::ListSessions(bfd_sockets) => {
                let listed = client.peers().await?;
                GobgpReply::Sessions(listed, bfd_sockets.then(bfd_port::sockets))
            }
            GobgpCall::Stop => {
                client.stop().await?;
                GobgpReply::Stopped
            }
        })
    }

    /// Connects to gobgpd, and reads its whole state.
    async fn connect(&mut self) -> Result<GobgpReply, GobgpError> {
        let mut client = Client::connect(&self.path).await?;
        self.stale_socket.mark_alive(&self.path);
        let known = client.read().await?;
        self.responsive.store(true, Ordering::Relaxed);
        let (path, sessions, prefixes) = (&self.path, known.peers.len(), known.paths.len());
        info!(path, sessions, prefixes, "connected to gobgpd");
        let changes = client.changes().boxed();
        self.connection = Some((client, changes));
        Ok(GobgpReply::Read(known))
    }

    async fn end_connection(&mut self, error: &GobgpError) {
        self.connection = None;
        // A gobgpd that is too old counts as healthy, because a restart by the kubelet would not
        // help.
        self.responsive.store(matches!(error, GobgpError::TooOld(_)), Ordering::Relaxed);
        self.stale_socket.remove_if_stale(&self.path).await;
        self.metrics.usable.set(0);
        self.metrics.failures.inc();
        self.metrics.counts.send_replace(BTreeMap::new());
        let why = error.to_string();
        if self.error_log.begins(why.clone()) {
            warn!(why, "gobgpd is not available, retrying");
        }
    }
}
