//! What survives a restart: durable queues, their bindings, and the persistent messages in them.

mod record;

pub use record::Record;
