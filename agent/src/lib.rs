//! musterd, the agent on every host.
