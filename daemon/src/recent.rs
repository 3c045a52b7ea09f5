//! The last warnings and errors of the log, kept in memory for whoever asks a running program how it is.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock::{Clock as _, SystemClock};

/// Lines that are kept.
const LINES_MAX: usize = 20;

/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 500;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// How bad.
    pub level: Level,
    /// What it says, then its fields.
    pub text: String,
}

/// The last warnings and errors. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Remembered>>>);

impl Recent {
    /// What is remembered, the newest last.
    #[must_use]
    pub fn lines(&self) -> Vec<Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, line: Remembered) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Puts what is logged into a [`Recent`].
pub(crate) struct Remember(pub(crate) Recent);

impl<S: Subscriber> Layer<S> for Remember {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let Text { mut message, fields } = text;
        message.push_str(&fields);
        let mut end = LINE_BYTES_MAX.min(message.len());
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        self.0.push(Remembered { at_ms: SystemClock.now_ms(), level, text: message });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message.push_str(&format!("{value:?}")),
            name => self.fields.push_str(&format!(" {name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_last_warnings_stay_and_nothing_grows() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(Remember(recent.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not kept");
            for number in 0..100 {
                tracing::warn!(number, why = "because", "It did not work");
            }
            tracing::error!("{}", "ü".repeat(10_000));
        });
        let lines = recent.lines();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[LINES_MAX - 2].text, "It did not work number=99 why=\"because\"");
        let last = &lines[LINES_MAX - 1];
        assert_eq!((last.level, last.text.len()), (Level::ERROR, LINE_BYTES_MAX));
        assert!(last.at_ms > 0);
    }
}
