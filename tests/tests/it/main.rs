//! End-to-end tests: the real programs and plain AMQP clients against real brokers.
//!
//! What is about Muster is tested on both brokers: the same files are a part of [`rabbitmq`] and of [`embedded`], and find
//! in `BROKER` which one they are to use. What only one broker has stands in its module alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod amqp;
mod asked_broker;
mod dev;
mod no_broker;

/// On RabbitMQ.
#[path = "."]
mod rabbitmq {
    use muster_tests::broker::Kind;

    const BROKER: Kind = Kind::RabbitMq;

    mod approvals;
    mod attack;
    mod bad_input;
    mod bus;
    mod detached;
    mod durability;
    mod end_to_end;
    mod external;
    mod faults;
    mod flood;
    mod foreign;
    mod independent;
    mod permissions;
    mod requests;
    mod secrets;
    mod wire;

    // RabbitMQ's generated files, what `muster broker check` finds, and the test kit's own node.
    mod broker;
    // Links between brokers, which only RabbitMQ has.
    mod federation;
}

/// On the embedded broker.
#[path = "."]
#[expect(clippy::duplicate_mod, reason = "the same tests on another broker")]
mod embedded {
    use muster_tests::broker::Kind;

    const BROKER: Kind = Kind::Embedded;

    mod approvals;
    mod attack;
    mod bad_input;
    mod bus;
    mod detached;
    mod durability;
    mod end_to_end;
    mod external;
    mod faults;
    mod flood;
    mod foreign;
    mod independent;
    mod permissions;
    mod requests;
    mod secrets;
    mod wire;

    // What it keeps over a restart, and the test kit's own process.
    mod embedded_broker;
}
