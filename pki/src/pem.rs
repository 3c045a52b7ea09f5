//! PEM texts. Reading is the library's (RFC 7468); writing is 64 columns of base64.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer};

use crate::PkiError;

/// Labels of RFC 7468.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const CRL: &str = "X509 CRL";
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";

/// One PEM block.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so every index is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// All certificates in `bytes`: PEM blocks, or one DER certificate.
pub(crate) fn certificates(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let object = || format!("certificate `{}`", path.display());
    let found = match bytes.first() {
        Some(0x30) => vec![CertificateDer::from(bytes.to_vec())],
        _ => CertificateDer::pem_slice_iter(bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| PkiError::malformed(object(), error))?,
    };
    if found.is_empty() {
        return Err(PkiError::malformed(object(), "no PEM block `CERTIFICATE` in it"));
    }
    Ok(found)
}

/// All revocation lists in `bytes`: PEM blocks, or one DER list.
pub(crate) fn crls(bytes: &[u8], object: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, PkiError> {
    let found = match bytes.first() {
        Some(0x30) => vec![CertificateRevocationListDer::from(bytes.to_vec())],
        _ => CertificateRevocationListDer::pem_slice_iter(bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| PkiError::malformed(object, error))?,
    };
    if found.is_empty() {
        return Err(PkiError::malformed(object, "no PEM block `X509 CRL` in it"));
    }
    Ok(found)
}

/// The certificate request in `bytes`: one PEM block or DER.
pub(crate) fn request(bytes: &[u8], object: &str) -> Result<CertificateSigningRequestDer<'static>, PkiError> {
    match bytes.first() {
        Some(0x30) => Ok(CertificateSigningRequestDer::from(bytes.to_vec())),
        _ => CertificateSigningRequestDer::from_pem_slice(bytes).map_err(|error| {
            let why = match other_kind(bytes) {
                Some(kind) => format!("it holds {kind}, not a request"),
                None if bytes.windows(5).any(|window| window == b"-----") => error.to_string(),
                None => format!("no PEM block `{REQUEST}` in it"),
            };
            PkiError::malformed(object, why)
        }),
    }
}

/// What a file without a request holds instead, if its PEM labels tell.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let has = |label: &str| bytes.windows(label.len()).any(|window| window == label.as_bytes());
    let kinds = [
        ("PRIVATE KEY-----", "a private key"),
        ("-----BEGIN CERTIFICATE-----", "a certificate"),
        ("-----BEGIN X509 CRL-----", "a revocation list"),
    ];
    let requests = has("-----BEGIN CERTIFICATE REQUEST-----") || has("-----BEGIN NEW CERTIFICATE REQUEST-----");
    kinds.into_iter().find(|(label, _)| !requests && has(label)).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for length in [1, 47, 48, 49, 500] {
            let der: Vec<u8> =
                std::iter::once(0x31).chain((1..length).map(|n| u8::try_from(n % 251).unwrap())).collect();
            let text = encode(CERTIFICATE, &der) + &encode(CERTIFICATE, &[0x30, 0x00]);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            let read = certificates(text.as_bytes(), Path::new("x")).unwrap();
            assert_eq!(read.len(), 2);
            assert_eq!(read[0].as_ref(), der);
        }
    }
}
