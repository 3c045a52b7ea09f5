//! The behaviours that every bus must show.
