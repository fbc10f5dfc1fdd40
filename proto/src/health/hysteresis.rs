//! So many answers of the other kind in a row change a verdict, and one alone does not. Pure; a state for whoever asks again and again.

/// A verdict that changes reluctantly. Whatever is not known yet passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hysteresis {
    failing: bool,
    /// How many answers in a row spoke against the verdict.
    against: u32,
}

impl Hysteresis {
    /// Whether it fails.
    #[must_use]
    pub const fn is_failing(self) -> bool {
        self.failing
    }

    /// Takes one answer and says whether the verdict has changed: after `fall` failures in a row it fails, after `rise` successes it passes.
    pub const fn take(&mut self, passed: bool, fall: u32, rise: u32) -> bool {
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

    /// The verdict after each answer: `.` passes and `x` fails, in both.
    fn verdicts(answers: &str, fall: u32, rise: u32) -> String {
        let mut state = Hysteresis::default();
        let verdict = |answer: char| {
            let before = state.is_failing();
            let changed = state.take(answer == '.', fall, rise);
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
        assert!(!state.take(false, 5, 1) && !state.take(false, 5, 1));
        assert!(state.take(false, 2, 1), "three in a row are two");
        assert!(state.take(true, 2, 1));
    }
}
