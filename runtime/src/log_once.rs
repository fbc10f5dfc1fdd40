//! A problem that lasts is logged once. The task that tries again owns the value.

/// The problem that was logged most recently, until it has ended.
#[derive(Debug)]
pub struct LogOnce<P>(Option<P>);

impl<P> Default for LogOnce<P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P: PartialEq> LogOnce<P> {
    /// Records a problem. Returns whether it must be logged: it is not the recorded one.
    pub fn begins(&mut self, problem: P) -> bool {
        let is_new = self.0.as_ref() != Some(&problem);
        self.0 = Some(problem);
        is_new
    }

    /// Records that there is no problem. Returns whether there was one.
    pub fn ends(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_logged_again_after_its_end_or_another_one() {
        let mut log = LogOnce::default();
        let begins = ["a", "a", "b", "a", "a"].map(|problem| log.begins(problem));
        assert_eq!(begins, [true, false, true, true, false]);
        assert_eq!([log.ends(), log.ends()], [true, false]);
        assert!(log.begins("a"));
    }
}
