//! Everything the program says, and how it ends. Commands build plain values; this turns them into
//! tables or JSON, and errors into the one error form.

mod command;
mod escape;
mod exit_code;
mod failure;
pub(crate) mod fold;
pub(crate) mod fuzzing;
pub(crate) mod json;
pub(crate) mod number;
mod printer;
mod progress;
mod settings;
mod table;
mod text;
pub(crate) mod time;

pub(crate) use command::{Surely, word};
pub(crate) use escape::neutral_lines;
pub(crate) use exit_code::{ExitCode, Tolerated};
pub(crate) use failure::Failure;
#[cfg(test)]
pub(crate) use printer::capture;
pub(crate) use printer::{Printer, Progress};
#[cfg(test)]
pub(crate) use settings::Surroundings;
pub(crate) use settings::{ColorChoice, Format, Settings};
pub(crate) use table::{Column, Table};
pub(crate) use text::{Style, Text};
