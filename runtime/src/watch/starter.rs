//! Starts the watches of a program, which share a client, an event queue and a task set. Used by
//! each program's main loop; owns nothing.

use std::sync::Arc;

use ferrolb_core::watched::KindVisitor;
use ferrolb_proto::facts::{Kind, ReadContext};
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Change, Watch};
use crate::watchdog::Watchdog;

/// The client, the event queue and the task set of the watches that a program starts. A visit of a
/// kind starts its watch.
pub struct WatchStarter<'a, E> {
    /// Client of the API server.
    pub client: &'a Client,
    /// The installation whose objects the program reads.
    pub context: ReadContext,
    /// Queue that receives the changes of all watches.
    pub events: &'a mpsc::Sender<E>,
    /// Task set that owns the watches.
    pub tasks: &'a mut JoinSet<()>,
    /// Receives the rejections of watches, for `/readyz`.
    pub watchdog: &'a Arc<Watchdog>,
}

impl<E: Send + 'static> KindVisitor<E> for WatchStarter<'_, E> {
    fn visit<F: Kind>(&mut self)
    where
        E: From<Change<F>>,
    {
        let watch = Watch::<F>::of(self.client.clone(), self.context.clone());
        self.tasks.spawn(watch.run(self.events.clone(), E::from, Arc::clone(self.watchdog)));
    }
}
