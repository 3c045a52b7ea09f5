//! The expression language.

mod errors;
mod evaluation;
mod mco;
mod syntax;
mod trees;
