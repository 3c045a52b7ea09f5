//! What the protocol promises, tested through its public interface.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod book;
mod expression;
mod golden;
mod roundtrip;
mod schemas;
