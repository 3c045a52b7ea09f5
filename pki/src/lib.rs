//! The certificate authority, identities, enrolment and revocation; signing and verifying messages; TLS configuration.
