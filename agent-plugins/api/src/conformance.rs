//! Tests that every plugin must pass, whoever wrote it.
