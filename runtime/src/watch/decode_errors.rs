//! Logs each object that cannot be read, once per reason. The table of logged objects belongs to a
//! program's main loop.

use std::collections::BTreeMap;

use ferrolb_proto::facts::Key;
use tracing::{debug, warn};

/// The maximum number of unreadable objects in the table. Further ones are logged only at DEBUG.
pub const DECODE_ERRORS_MAX: usize = 1_024;

/// The reason that was logged most recently for each unreadable object.
#[derive(Debug, Default)]
pub struct DecodeErrorLog {
    logged: BTreeMap<(&'static str, Key), String>,
}

impl DecodeErrorLog {
    /// Logs that an object of this kind cannot be read, and `why`. If the object's previous reason
    /// was the same, nothing is logged.
    pub fn report(&mut self, kind: &'static str, object: &Key, why: &str) {
        let known = (kind, object.clone());
        if self.logged.get(&known).is_some_and(|logged_why| logged_why == why) {
            return;
        }
        if self.logged.len() >= DECODE_ERRORS_MAX && !self.logged.contains_key(&known) {
            debug!(kind, %object, why, "another object cannot be read");
            return;
        }
        self.logged.insert(known, why.to_owned());
        warn!(kind, %object, why, "object cannot be read; other objects are not affected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::captured::logged;

    #[test]
    fn an_unreadable_object_is_logged_once_for_each_reason() {
        let lines = logged(|| {
            let mut log = DecodeErrorLog::default();
            for why in ["a", "a", "b"] {
                log.report("Service", &Key::new("default", "web"), why);
            }
            for n in 0..2 * DECODE_ERRORS_MAX {
                log.report("Node", &Key::new("", &n.to_string()), "c");
            }
        });
        assert_eq!(lines.len(), 2 + DECODE_ERRORS_MAX - 1, "the first log line is {}", lines[0]);
        assert!(lines[0].starts_with("WARN"), "the first log line is {}", lines[0]);
    }
}
