//! How often progress is shown: a footer ten times a second in a terminal, else a plain line at
//! each tenth of the work or every 30 s. A decision over data; the printer draws.

use super::number::count;

/// Least time between two drawings of the footer.
const FOOTER_INTERVAL_MS: u64 = 100;

/// Longest silence of the plain lines.
const LINE_INTERVAL_MS: u64 = 30_000;

/// Decides when to show progress.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    terminal: bool,
    shown_at_ms: Option<u64>,
    shown_tenth: usize,
}

impl Pace {
    /// A pace that starts at `now_ms`, in milliseconds of any clock that only goes forward.
    pub(crate) fn new(terminal: bool, now_ms: u64) -> Self {
        // In a terminal the first footer is due at once; plain lines start with the first tenth.
        Self { terminal, shown_at_ms: (!terminal).then_some(now_ms), shown_tenth: 0 }
    }

    /// Whether `done` of `total` should be shown now; if so, it counts as shown.
    pub(crate) fn due(&mut self, done: usize, total: usize, now_ms: u64) -> bool {
        let since_ms = self.shown_at_ms.map(|shown| now_ms.saturating_sub(shown));
        let tenth = (done * 10).checked_div(total).unwrap_or(0);
        let due = match self.terminal {
            true => since_ms.is_none_or(|since| since >= FOOTER_INTERVAL_MS),
            false => tenth > self.shown_tenth || since_ms.is_some_and(|since| since >= LINE_INTERVAL_MS),
        };
        if due {
            self.shown_at_ms = Some(now_ms);
            self.shown_tenth = tenth;
        }
        due
    }
}

/// `7,412 / 9,071  81%`, or `7,412` where the total is not known.
pub(crate) fn fraction(done: usize, total: usize) -> String {
    match (done * 100).checked_div(total) {
        Some(percent) => format!("{} / {}  {percent}%", count(done), count(total)),
        None => count(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool, total: usize, events: &[(u64, usize)]) -> Vec<usize> {
        let mut pace = Pace::new(terminal, 0);
        events.iter().filter(|(now, done)| pace.due(*done, total, *now)).map(|(_, done)| *done).collect()
    }

    #[test]
    fn a_terminal_is_redrawn_ten_times_a_second_at_most() {
        assert_eq!(shown(true, 100, &[(0, 1), (50, 2), (99, 3), (100, 4), (150, 5), (250, 6)]), [1, 4, 6]);
    }

    #[test]
    fn a_log_gets_a_line_at_each_tenth_or_half_a_minute() {
        let events = [(0, 1), (10, 9), (20, 10), (30, 11), (40, 35), (30_039, 36), (30_040, 37), (30_050, 40)];
        assert_eq!(shown(false, 100, &events), [10, 35, 37, 40]);
    }

    #[test]
    fn nothing_to_do_is_no_division_by_zero() {
        assert_eq!(shown(false, 0, &[(0, 0), (29_999, 0), (30_000, 0)]), [0]);
        assert_eq!(fraction(5, 0), "5");
        assert_eq!(fraction(7_412, 9_071), "7,412 / 9,071  81%");
    }
}
