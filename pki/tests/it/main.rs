//! The crate from outside: every refusal, the CA directory, TLS, and OpenSSL's opinion.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod authority;
mod enrolment;
mod memory;
mod openssl;
mod property;
mod revocation;
mod sealing;
mod tls;
mod together;
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

/// A revocation list in DER with these serials, number 7, signed by the authority past its index.
fn list(authority: &TestAuthority, serials: &[Vec<u8>], now: Timestamp) -> Vec<u8> {
    let directory = authority.ca_directory();
    let key = muster_pki::PrivateKey::load(&directory.join("ca.key")).unwrap();
    let ca = muster_pki::Certificate::load(&directory.join("ca.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&ca.der().to_vec().into(), &key).unwrap();
    let date = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.0 / 1000).unwrap();
    let entry = |serial: &Vec<u8>| rcgen::RevokedCertParams {
        serial_number: rcgen::SerialNumber::from_slice(serial),
        revocation_time: date(now),
        reason_code: None,
        invalidity_date: None,
    };
    let parameters = rcgen::CertificateRevocationListParams {
        this_update: date(now),
        next_update: date(now.plus_ms(DAY_MS)),
        crl_number: rcgen::SerialNumber::from(7),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(entry).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    parameters.signed_by(&issuer).unwrap().der().to_vec()
}
