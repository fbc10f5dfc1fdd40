//! The state of a periodic check, which changes only after several contrary results in a row. Pure;
//! part of the state machine [`Prober`](super::prober::Prober).

/// The state of a check: passing or failing. A new check is passing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hysteresis {
    failing: bool,
    /// The number of consecutive results, up to the latest one, that contradict the state.
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

    /// Returns the state after each of `results`. In `results` and in the returned text, `.` means
    /// passing, and `x` means failing.
    fn states(results: &str, fall: u32, rise: u32) -> String {
        let mut state = Hysteresis::default();
        let next_state = |result: char| {
            let before = state.is_failing();
            let changed = state.count(result == '.', fall, rise);
            assert_eq!(changed, state.is_failing() != before);
            if state.is_failing() { 'x' } else { '.' }
        };
        results.chars().map(next_state).collect()
    }

    #[test]
    fn fall_or_rise_contrary_results_in_a_row_change_the_state() {
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
        for (fall, rise, results, expect) in cases {
            assert_eq!(
                states(results, fall, rise),
                expect,
                "fall is {fall}, rise is {rise}, and the results are {results}"
            );
        }
    }

    #[test]
    fn changed_thresholds_apply_from_the_next_result() {
        let mut state = Hysteresis::default();
        assert!(!state.count(false, 5, 1) && !state.count(false, 5, 1));
        assert!(
            state.count(false, 2, 1),
            "three failures in a row exceed the new value of fall, 2"
        );
        assert!(state.count(true, 2, 1));
    }
}
