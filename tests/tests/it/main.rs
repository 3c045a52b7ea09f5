//! End-to-end tests: the real programs and plain AMQP clients against a real RabbitMQ.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod amqp;
mod approvals;
mod attack;
mod bad_input;
mod broker;
mod bus;
mod detached;
mod end_to_end;
mod external;
mod faults;
mod federation;
mod flood;
mod independent;
mod permissions;
mod requests;
mod secrets;
mod wire;
