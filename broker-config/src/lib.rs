//! The broker as code: topology, users, permissions and configuration of RabbitMQ, generated from the routing names.
