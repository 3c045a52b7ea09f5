//! The contract's own tests: the conformance kit must notice what it promises to notice.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod kit;
mod output;
