//! Ask many hosts: publish a signed command, collect, verify and aggregate the reports.
