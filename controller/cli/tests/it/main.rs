//! Whole commands of the real binary.
