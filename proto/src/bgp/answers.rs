//! Which speakers have answered lately that they live. Pure; the speaker's task that asks them while its node drains owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Doubted;
use crate::Instant;

/// How long an answer counts.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);

/// Whose speakers have answered, and when.
#[derive(Debug, Default)]
pub struct Answers(BTreeMap<Box<str>, Instant>);

impl Answers {
    /// The speaker of a node has answered.
    pub fn take(&mut self, node: Box<str>, now: Instant) {
        self.0.insert(node, now);
    }

    /// Who of those that are asked has answered lately; all else is forgotten.
    pub fn lately(&mut self, asked: &Doubted, now: Instant) -> BTreeSet<Box<str>> {
        self.0.retain(|node, at| asked.contains_key(node) && now.since(*at) < ANSWER_AGE_MAX);
        self.0.keys().cloned().collect()
    }

    /// When the next answer is too old.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|at| *at + ANSWER_AGE_MAX).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_a_while_and_for_who_is_still_asked() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let asked = |names: &[&str]| names.iter().map(|name| ((*name).into(), Box::default())).collect::<Doubted>();
        let both = asked(&["a", "b"]);
        let mut answers = Answers::default();
        assert_eq!(answers.deadline(), None);
        answers.take("a".into(), at(0));
        answers.take("b".into(), at(2));
        let names = |found: BTreeSet<Box<str>>| found.into_iter().map(String::from).collect::<Vec<_>>().join("+");
        assert_eq!((names(answers.lately(&both, at(4))), answers.deadline()), ("a+b".into(), Some(at(5))));
        assert_eq!((names(answers.lately(&both, at(5))), answers.deadline()), ("b".into(), Some(at(7))));
        answers.take("a".into(), at(6));
        assert_eq!((names(answers.lately(&both, at(7))), answers.deadline()), ("a".into(), Some(at(11))));
        assert_eq!((names(answers.lately(&asked(&["b"]), at(8))), answers.deadline()), ("".into(), None));
        assert_eq!(names(answers.lately(&both, at(8))), "", "what was known of it is forgotten");
    }
}
