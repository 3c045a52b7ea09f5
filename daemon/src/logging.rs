//! Logs: one line per event on standard error, for people or for machines.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::terminal::{acts, push_escaped};

use crate::recent::{Recent, Remember};

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Which events: a level, or directives such as `info,muster_agent=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Directives that hold unless `filter` says otherwise, for libraries that talk too much.
    pub base: &'static str,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error(
        "log filter `{filter}` is not valid; write a level (error, warn, info, debug, trace, off) or TARGET=LEVEL, separated by commas"
    )]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// The parser's words.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody started it before.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Starts logging to standard error, for the whole process. Colours appear on a terminal only.
///
/// # Errors
/// The filter does not parse, or logging has been started before.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    init_with(config, None)
}

/// As [`init`], and remembers the last warnings and errors.
///
/// # Errors
/// As [`init`].
pub fn init_remembering(config: &LogConfig) -> Result<Recent, LogError> {
    let recent = Recent::default();
    init_with(config, Some(recent.clone()))?;
    Ok(recent)
}

fn init_with(config: &LogConfig, recent: Option<Recent>) -> Result<(), LogError> {
    let filter = filter(config)?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry =
        tracing_subscriber::registry().with(recent.map(|recent| Remember(recent).with_filter(filter.clone())));
    let layer = tracing_subscriber::fmt::layer().with_writer(move || OneLine { inner: std::io::stderr(), colours });
    match config.format {
        LogFormat::Text => registry.with(layer.with_ansi(colours).with_filter(filter)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_ansi(false).with_filter(filter)).try_init()
        }
    }
    .map_err(|_| LogError::AlreadySet)
}

/// Lets an event out as one line of text and nothing else. Messages hold words of others, such as a request's names or
/// the last words of a program: none of them may begin a line that looks like one of ours, or act on a terminal.
struct OneLine<W> {
    inner: W,
    /// Whether our own colours are in it.
    colours: bool,
}

impl<W: std::io::Write> std::io::Write for OneLine<W> {
    /// Takes a whole event, which is how they come.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut shown = String::with_capacity(line.len() + 1);
        let mut rest = line;
        while let Some(character) = rest.chars().next() {
            let colour = if self.colours { colour(rest) } else { 0 };
            if colour > 0 {
                shown.push_str(&rest[..colour]);
                rest = &rest[colour..];
                continue;
            }
            // As in JSON, so that a line that is JSON stays it.
            if acts(character) && character != '\t' {
                push_escaped(&mut shown, character);
            } else {
                shown.push(character);
            }
            rest = &rest[character.len_utf8()..];
        }
        shown.push('\n');
        self.inner.write_all(shown.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// How many bytes of a sequence that sets colours (ECMA-48, SGR) a text begins with. The formatter writes its own
/// so, and makes those of messages harmless itself.
fn colour(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let digits = parameters.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if parameters.as_bytes().get(digits) == Some(&b'm') { 2 + digits + 1 } else { 0 }
}

/// Says whether a filter can be used, without starting anything.
///
/// # Errors
/// The filter does not parse.
pub fn check_filter(filter_text: &str) -> Result<(), LogError> {
    filter(&LogConfig { filter: filter_text.to_owned(), format: LogFormat::Text, base: "" }).map(drop)
}

/// The configured directives over the base ones. Levels by target and nothing more: filters over fields and
/// spans would bring a regular expression engine into every agent.
fn filter(config: &LogConfig) -> Result<Targets, LogError> {
    let parse = |text: &str| {
        let fail = |source| LogError::Filter { filter: config.filter.clone(), source };
        let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        words.join(",").parse::<Targets>().map_err(fail)
    };
    let given = parse(&config.filter)?;
    let level = given.default_level().unwrap_or(LevelFilter::ERROR);
    Ok(parse(config.base)?.with_targets(given).with_default(level))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_event_is_one_line_that_acts_on_nothing() {
        let check = |colours: bool, event: &str, expected: &str| {
            let mut inner = Vec::new();
            OneLine { inner: &mut inner, colours }.write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(inner).unwrap(), expected);
        };
        check(false, "INFO a plain line\tü\n", "INFO a plain line\tü\n");
        check(false, "said a\n2026 INFO forged\r\n", "said a\\u000a2026 INFO forged\\u000d\n");
        check(
            false,
            "\u{1b}]0;t\u{7}\u{9b}2J\u{202e}\u{e0041}\n",
            "\\u001b]0;t\\u0007\\u009b2J\\u202e\\udb40\\udc41\n",
        );
        check(false, "\u{1b}[32mINFO\u{1b}[0m\n", "\\u001b[32mINFO\\u001b[0m\n");
        check(
            true,
            "\u{1b}[32mINFO\u{1b}[0m a\n\u{1b}[2Jb\u{1b}[1;31m\n",
            "\u{1b}[32mINFO\u{1b}[0m a\\u000a\\u001b[2Jb\u{1b}[1;31m\n",
        );
        // JSON stays JSON.
        let json = serde_json::json!({ "message": "a\u{9b}\u{202e}b" }).to_string();
        let mut inner = Vec::new();
        OneLine { inner: &mut inner, colours: false }.write_all(format!("{json}\n").as_bytes()).unwrap();
        let text = String::from_utf8(inner).unwrap();
        assert!(text.is_ascii(), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["message"], "a\u{9b}\u{202e}b");
    }

    #[test]
    fn filters_are_levels_and_directives() {
        for good in ["info", "", "warn,muster_agent=debug", " off , a::b=trace"] {
            check_filter(good).unwrap();
        }
        let error = check_filter("info,muster=loud").unwrap_err().to_string();
        assert!(error.contains("`info,muster=loud`") && error.contains("debug"), "{error}");
    }

    #[test]
    fn the_base_holds_unless_overridden() {
        let config =
            LogConfig { filter: "info,library=trace".to_owned(), format: LogFormat::Text, base: "library=off,b=warn" };
        let text = filter(&config).unwrap().to_string();
        assert!(text.contains("library=trace") && text.contains("b=warn") && !text.contains("off"), "{text}");
    }
}
