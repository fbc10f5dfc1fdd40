//! Receiving end of the channel through which the main loop sends the desired BGP configuration.
//! The BGP driver's task owns the one [`ConfigReceiver`], which translates each configuration once.

use ferrolb_speaker_core::plan::BgpConfig;
use tokio::sync::watch;

use super::gobgp_config::{GobgpConfig, Translation};

/// Receiver of the desired configuration of gobgpd.
pub(super) struct ConfigReceiver {
    received: watch::Receiver<Option<BgpConfig>>,
    /// Second receiver of the channel, because [`Self::latest`] marks the values of the first one
    /// as seen.
    changes: watch::Receiver<Option<BgpConfig>>,
    /// Translation of the most recent value. None: not known yet.
    translation: Option<Translation>,
}

impl ConfigReceiver {
    pub(super) fn new(mut received: watch::Receiver<Option<BgpConfig>>) -> Self {
        received.mark_changed();
        Self { changes: received.clone(), received, translation: None }
    }

    /// Returns the latest desired configuration, and translates it if it is new. None: not known
    /// yet.
    pub(super) fn latest(&mut self) -> Option<&GobgpConfig> {
        let latest = self.received.borrow_and_update();
        let changed = latest.has_changed().then(|| latest.clone());
        drop(latest);
        match changed {
            Some(Some(config)) => self.translation.get_or_insert_default().update(config),
            Some(None) => self.translation = None,
            None => {}
        }
        self.translation.as_ref().map(Translation::config)
    }

    /// Waits until the main loop has sent a value since the last call of this method or of
    /// [`Self::mark_unchanged`].
    ///
    /// # Errors
    ///
    /// The main loop has ended.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.changes.changed().await
    }

    /// Marks the latest value as seen by [`Self::changed`].
    pub(super) fn mark_unchanged(&mut self) {
        self.changes.mark_unchanged();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferrolb_core::bgp::Prefix;
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_configuration_is_translated_once() {
        let (sender, receiver) = watch::channel(None);
        let mut receiver = ConfigReceiver::new(receiver);
        assert_eq!(receiver.latest(), None);
        let routes = [(Prefix::of([10, 0, 0, 7].into(), 32), Arc::default())];
        let routes = routes.into_iter().collect();
        sender.send_replace(Some(BgpConfig { routes, ..BgpConfig::default() }));
        let policies = |receiver: &mut ConfigReceiver| {
            let config = receiver.latest().expect("a configuration");
            config.policies.values().cloned().collect::<Vec<_>>()
        };
        let [first, second] = [policies(&mut receiver), policies(&mut receiver)];
        assert!(first.len() == 1 && Arc::ptr_eq(&first[0], &second[0]));
        sender.send_replace(Some(BgpConfig::default()));
        assert_eq!(policies(&mut receiver), []);
        sender.send_replace(None);
        assert_eq!(receiver.latest(), None);
    }

    #[test]
    fn a_change_is_reported_until_it_is_marked_or_awaited() {
        let (sender, receiver) = watch::channel(None);
        let mut receiver = ConfigReceiver::new(receiver);
        let changed = |receiver: &mut ConfigReceiver| receiver.changed().now_or_never().is_some();
        receiver.mark_unchanged();
        assert!(!changed(&mut receiver));
        sender.send_replace(Some(BgpConfig::default()));
        assert!(receiver.latest().is_some() && changed(&mut receiver) && !changed(&mut receiver));
        sender.send_replace(Some(BgpConfig::default()));
        receiver.mark_unchanged();
        assert!(!changed(&mut receiver));
    }
}
