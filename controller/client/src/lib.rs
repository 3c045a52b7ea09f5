//! Ask many hosts: publish a signed command, collect, verify and aggregate the reports.
pub mod collect;
pub mod fold;
pub mod limit;
pub mod output;
pub mod sequence;
pub mod wave;
