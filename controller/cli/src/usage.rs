//! Words that do not fit the command line, in the one error form; and help and version.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::output::{ExitCode, Failure, Format, Printer, Settings, word};

/// The output settings as far as they can be seen in words that do not parse.
pub(crate) fn settings(words: &[OsString]) -> Settings {
    let has = |flag: &str| words.iter().take_while(|word| *word != "--").any(|word| word == flag);
    let after = |flag: &str, value: &str| {
        has(&format!("{flag}={value}")) || words.windows(2).any(|pair| pair[0] == flag && pair[1] == value)
    };
    let format = match () {
        () if has("--json") || after("--format", "json") => Format::Json,
        () if has("--jsonl") || after("--format", "jsonl") => Format::Jsonl,
        () => Format::Table,
    };
    let color = match () {
        () if after("--color", "always") => crate::output::ColorChoice::Always,
        () if after("--color", "never") => crate::output::ColorChoice::Never,
        () => crate::output::ColorChoice::Auto,
    };
    Settings { format, color, ascii: has("--ascii"), ..Settings::default() }
}

/// Prints help and version as data; turns everything else into a failure.
pub(crate) fn explain(error: &clap::Error, typed: &[OsString], printer: &Printer) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            printer.verbatim(&error.render().to_string());
            Ok(ExitCode::Success)
        }
        // Asked for nothing: help, but not as data and not as a success.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            for line in error.render().to_string().lines() {
                printer.note(line);
            }
            Ok(ExitCode::Usage)
        }
        _ => Err(failure(error, typed)),
    }
}

fn words(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(word)) => vec![word.clone()],
        Some(ContextValue::Strings(words)) => words.clone(),
        Some(ContextValue::StyledStr(word)) => vec![word.to_string()],
        Some(ContextValue::StyledStrs(words)) => words.iter().map(ToString::to_string).collect(),
        Some(ContextValue::Number(number)) => vec![number.to_string()],
        _ => Vec::new(),
    }
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn failure(error: &clap::Error, typed: &[OsString]) -> Failure {
    let command = command_of(typed);
    let first = |kind| words(error, kind).into_iter().next().unwrap_or_default();
    let argument = first(ContextKind::InvalidArg);
    let value = first(ContextKind::InvalidValue);
    let what = match error.kind() {
        ErrorKind::InvalidSubcommand => format!("there is no command `{}`", first(ContextKind::InvalidSubcommand)),
        ErrorKind::MissingSubcommand => "a command is missing".to_owned(),
        ErrorKind::UnknownArgument => format!("there is no flag or argument `{argument}` here"),
        ErrorKind::MissingRequiredArgument => {
            format!("missing: {}", quoted(&words(error, ContextKind::InvalidArg)))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("`{argument}` needs a value"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => format!("`{argument}` cannot be `{value}`"),
        ErrorKind::ArgumentConflict if argument.is_empty() => format!(
            "{} cannot stand before `{}`",
            quoted(&words(error, ContextKind::PriorArg)),
            first(ContextKind::InvalidSubcommand)
        ),
        ErrorKind::ArgumentConflict => {
            format!("`{argument}` cannot be used with {}", quoted(&words(error, ContextKind::PriorArg)))
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            format!("`{argument}` has a wrong number of values")
        }
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let mut failure = Failure::usage(what);
    if error.kind() == ErrorKind::ValueValidation
        && let Some(source) = std::error::Error::source(error)
    {
        failure = failure.because(source);
    }
    let allowed = words(error, ContextKind::ValidValue);
    if !allowed.is_empty() {
        failure = failure.why("takes", allowed.join(", "));
    }
    // The parser proposes the least alike first.
    let nearest = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let nearest = nearest.into_iter().find_map(|kind| words(error, kind).pop());
    if let Some(nearest) = &nearest {
        failure = failure.why("nearest", format!("`{nearest}`"));
    }
    let usage = first(ContextKind::Usage);
    if let Some(usage) = usage.lines().next().map(|line| line.trim_start_matches("Usage:").trim())
        && !usage.is_empty()
    {
        failure = failure.why("usage", usage);
    }
    if error.kind() == ErrorKind::ArgumentConflict
        && let Some(verb) = words(error, ContextKind::InvalidSubcommand).first()
        && let Some(moved) = behind(typed, verb, &words(error, ContextKind::PriorArg))
    {
        return failure.hint(moved);
    }
    if error.kind() == ErrorKind::InvalidSubcommand
        && command == "muster dev"
        && first(ContextKind::InvalidSubcommand) == "stop"
    {
        return failure
            .why("note", "Ctrl-C stops it where it runs, and so does SIGTERM to the process that the status names")
            .hint("muster dev status");
    }
    match (error.kind(), nearest) {
        (ErrorKind::InvalidSubcommand, Some(nearest)) => failure.hint(format!("{command} {nearest} --help")),
        _ => failure.hint(format!("{command} --help")),
    }
}

/// The same words with the flags behind the verb that they were typed before, if the verb knows all of `flags`.
fn behind(typed: &[OsString], verb: &str, flags: &[String]) -> Option<String> {
    let words: Vec<&str> = typed.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
    let tree = crate::cli::command();
    let parent = words.iter().position(|word| tree.find_subcommand(word).is_some_and(|it| it.has_subcommands()))?;
    let at = words.iter().rposition(|word| *word == verb).filter(|at| *at > parent)?;
    let known = tree.find_subcommand(words[parent])?.find_subcommand(verb)?;
    let knows = |flag: &str| {
        let name = flag.split([' ', '=']).next().and_then(|name| name.strip_prefix("--"));
        name.is_some_and(|name| known.get_arguments().any(|it| it.get_long() == Some(name)))
    };
    if flags.is_empty() || !flags.iter().all(|flag| knows(flag)) {
        return None;
    }
    let (before, flags, after) = (&words[..=parent], &words[parent + 1..at], &words[at + 1..]);
    let all = before.iter().chain([&verb]).chain(flags).chain(after);
    Some(format!("muster {}", all.map(|text| word(text)).collect::<Vec<_>>().join(" ")))
}

/// The command that was meant, as far as its words are right: `muster host list`.
fn command_of(typed: &[OsString]) -> String {
    let tree = crate::cli::command();
    let (mut path, mut place) = ("muster".to_owned(), &tree);
    for word in typed.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = place.find_subcommand(word) {
            path = format!("{path} {word}");
            place = below;
        }
    }
    path
}
