//! Says of each object that cannot be read so, once. A plain table in a program's main loop.

use std::collections::BTreeMap;

use ferrolb_proto::facts::Key;
use tracing::{debug, warn};

/// Unreadable objects that are spoken of; of more than so many the log says nothing at its usual level.
pub const COMPLAINTS_MAX: usize = 1_024;

/// What was said of which object.
#[derive(Debug, Default)]
pub struct Complaints {
    said: BTreeMap<(&'static str, Key), String>,
}

impl Complaints {
    /// An object of this kind cannot be read, and `why`. Said again only with another reason.
    pub fn hear(&mut self, kind: &'static str, object: &Key, why: &str) {
        let known = (kind, object.clone());
        if self.said.get(&known).is_some_and(|said| said == why) {
            return;
        }
        if self.said.len() >= COMPLAINTS_MAX && !self.said.contains_key(&known) {
            debug!(kind, %object, why, "one more object cannot be read");
            return;
        }
        self.said.insert(known, why.to_owned());
        warn!(kind, %object, why, "an object cannot be read; all others are not affected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::captured::logged;

    #[test]
    fn each_object_is_spoken_of_once_for_each_reason_and_no_more_than_there_is_room_for() {
        let lines = logged(|| {
            let mut complaints = Complaints::default();
            for why in ["a", "a", "b"] {
                complaints.hear("Service", &Key::new("default", "web"), why);
            }
            for n in 0..2 * COMPLAINTS_MAX {
                complaints.hear("Node", &Key::new("", &n.to_string()), "c");
            }
        });
        assert_eq!(lines.len(), 2 + COMPLAINTS_MAX - 1, "{}", lines[0]);
        assert!(lines[0].starts_with("WARN"), "{}", lines[0]);
    }
}
