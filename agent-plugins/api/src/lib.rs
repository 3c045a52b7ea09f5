//! The plugin contract and its conformance tests.
