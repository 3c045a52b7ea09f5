//! The message bus: AMQP sessions with confirms and recovery, and an in-memory bus for tests and simulation.
