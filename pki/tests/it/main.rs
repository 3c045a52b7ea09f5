//! The crate from outside: every refusal, the CA directory, TLS, and OpenSSL's opinion.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod authority;
mod enrolment;
mod openssl;
mod property;
mod revocation;
mod tls;
mod verify;

use muster_pki::testing::TestAuthority;
use muster_protocol::Timestamp;

/// 2026-11-21T00:47:17Z: the present of most tests.
const NOW: Timestamp = Timestamp(1_795_222_037_000);
const SECOND_MS: i64 = 1000;
const DAY_MS: i64 = 24 * 60 * 60 * SECOND_MS;

const COMMAND: &str = "application/vnd.muster.command.v1+json";
const REPORT: &str = "application/vnd.muster.report.v1+json";

fn authority() -> TestAuthority {
    TestAuthority::new(NOW).unwrap()
}
