//! Plugin descriptions: which actions a plugin has, what each takes and gives.
//!
//! The format is Choria's agent DDL in JSON, so that a description written for Choria parses
//! unchanged. What Muster needs beyond it stands under the key `muster`, which Choria ignores.
//!
//! # The data and how it flows
//!
//! [`Ddl::parse`] reads a file once. A controller turns typed words (`name=openssl`) into JSON with
//! [`Action::parse_arguments`] and signs the result. The host runs [`Action::validate`] over what
//! arrived: the same function, so both sides agree, and defaults are filled in on the host only.
//!
//! # Differences to Choria, all towards refusing
//!
//! - A pattern must fit the whole text, not a part of it; the lone pattern `.`, which Choria's
//!   generator writes for "anything", still means any text that is not empty.
//! - Validation also runs when no `maxlength` is given, and on each element of an array.
//! - `shellsafe` is a list of what is allowed, not of what is forbidden.
//! - A validator that this program does not know is held to `shellsafe`, and [`Ddl::warnings`] says so.

mod argument;
mod named;
mod schema;
mod validation;
mod words;

pub use argument::ArgumentError;
pub use named::Named;
pub use schema::{
    AGGREGATE_FUNCTIONS, Action, ActionExtension, Aggregate, DataQuery, Ddl, DdlError, DdlExtension, Display, Input,
    Metadata, Output, Supports, ValueType,
};
pub use validation::{PatternError, Validation, is_shellsafe};

#[cfg(test)]
mod tests;
