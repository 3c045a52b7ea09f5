//! End-to-end tests: the real programs and plain AMQP clients against a real RabbitMQ.

mod amqp;
mod bad_input;
mod broker;
mod bus;
mod end_to_end;
mod independent;
mod permissions;
mod wire;
