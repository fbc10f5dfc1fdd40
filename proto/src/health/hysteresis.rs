//! The state of a periodic check, which changes only after several contrary results in a row. Pure;
//! part of the machines that check periodically.

/// The state of a check: passing or failing. A new check is passing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hysteresis {
    failing: bool,
    /// The number of latest results in a row that contradict the state.
    against: u32,
}

impl Hysteresis {
    /// Returns whether the check is failing.
    #[must_use]
    pub const fn is_failing(self) -> bool {
        self.failing
    }

    /// Records one result, and returns whether the state has changed. A passing check fails after
    /// `fall` failures in a row, and a failing check passes after `rise` successes in a row.
    pub const fn count(&mut self, passed: bool, fall: u32, rise: u32) -> bool {
        if passed != self.failing {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.failing { rise } else { fall };
        if self.against < needed {
            return false;
        }
        *self = Self { failing: !self.failing, against: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the verdict after each result: `.` passes and `x` fails, in both texts.
    fn verdicts(answers: &str, fall: u32, rise: u32) -> String {
        let mut state = Hysteresis::default();
        let verdict = |answer: char| {
            let before = state.is_failing();
            let changed = state.count(answer == '.', fall, rise);
            assert_eq!(changed, state.is_failing() != before);
            if state.is_failing() { 'x' } else { '.' }
        };
        answers.chars().map(verdict).collect()
    }

    #[test]
    fn so_many_in_a_row_change_the_verdict_and_one_of_the_other_kind_starts_anew() {
        let cases = [
            (2, 3, "", ""),
            (2, 3, "x", "."),
            (2, 3, "xx", ".x"),
            (2, 3, "x.x.x.", "......"),
            (2, 3, "xx..x..x...", ".xxxxxxxxx."),
            (2, 3, "xx...xx", ".xxx..x"),
            (1, 1, "x.x.", "x.x."),
            (3, 1, "xxx.xx.", "..x...."),
        ];
        for (fall, rise, answers, expect) in cases {
            assert_eq!(verdicts(answers, fall, rise), expect, "{fall}/{rise}: {answers}");
        }
    }

    #[test]
    fn other_numbers_count_from_the_next_answer_on() {
        let mut state = Hysteresis::default();
        assert!(!state.count(false, 5, 1) && !state.count(false, 5, 1));
        assert!(state.count(false, 2, 1), "three in a row are two");
        assert!(state.count(true, 2, 1));
    }
}
