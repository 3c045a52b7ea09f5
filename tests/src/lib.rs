//! The test kit (a private RabbitMQ, a throw-away PKI, agents) and the end-to-end tests.
