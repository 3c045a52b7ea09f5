//! The certificate authority, identities, enrolment and revocation; signing and verifying messages;
//! TLS configuration.
//!
//! # The data and how it flows
//!
//! An operator keeps an [`Authority`]: a directory with the CA's key, an append-only index and the
//! revocation list. A host makes a [`PrivateKey`] and a certificate request ([`request`]); the
//! authority answers with a certificate whose contents it alone decides ([`profile`]). A program
//! loads its [`Credentials`] and signs messages and TLS handshakes with them. Whoever receives a message asks
//! [`Trust::verify`], which answers with the [`Signer`]s or a [`VerifyError`] that carries the protocol's code.
//!
//! # Non-goals
//!
//! No network, no async, no clock: the time is an argument everywhere. No other algorithm than
//! Ed25519, no intermediate authorities, no certificate of anybody else's CA. Who may command what is
//! the policy's business; here is decided only who somebody is.
//!
//! # Invariants
//!
//! - A private key is created with mode 0600, never printed by `Debug`, never sent anywhere, and wiped from memory.
//! - Nothing in a certificate but its public key comes from the certificate request.
//! - No file is overwritten that somebody else may hold; every write is atomic.
//! - A [`Trust`] never accepts a lower revocation list number than the one it has, and its cache of
//!   validated certificates ends with the list it was filled under.

pub mod authority;
pub mod batch;
mod cache;
pub mod certificate;
mod codes;
mod credentials;
pub mod crl;
mod error;
mod file;
mod key;
pub mod memory;
mod pem;
pub mod profile;
pub mod request;
pub mod sealing;
pub mod testing;
pub mod time_text;
pub mod tls;
mod together;
mod trust;
mod verify;

pub use authority::Authority;
pub use certificate::{Certificate, IdentityError};
pub use codes::CODES;
pub use credentials::Credentials;
pub use crl::{CrlInfo, CrlStatus, Reason};
pub use error::PkiError;
pub use file::{create_public as create_public_file, read as read_file};
pub use key::{PrivateKey, PublicKey};
pub use together::Signed;
pub use trust::Trust;
pub use verify::{Client, Signer, VerifyError};
