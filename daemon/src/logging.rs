//! Logs: one line per event on standard error, for people or for machines.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let filter = filter(config)?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => registry.with(layer.with_ansi(colours).with_filter(filter)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_ansi(false).with_filter(filter)).try_init()
        }
    }
    .map_err(|_| LogError::AlreadySet)
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
    use super::*;

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
