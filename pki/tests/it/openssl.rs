//! OpenSSL's opinion on everything we make, and ours on what it makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_pki::request::{self, Request};
use muster_pki::testing::{Files, TestAuthority};
use muster_pki::{Certificate, Credentials, PrivateKey};
use muster_protocol::envelope::pre_authentication_encoding;

use crate::{COMMAND, DAY_MS, NOW};

struct Desk {
    directory: tempfile::TempDir,
    authority: TestAuthority,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), authority: crate::authority() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, credentials: &Credentials) -> Files {
        self.authority.write(credentials, &self.path("out")).unwrap()
    }
}

/// Runs `openssl`, which Debian installs with its base system.
fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().unwrap_or_else(|error| {
        panic!("the tests need the program `openssl` (Debian: apt-get install openssl): {error}")
    })
}

#[track_caller]
fn good(arguments: &[&str]) -> String {
    let output = openssl(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "openssl {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
fn bad(arguments: &[&str], expected: &str) {
    let output = openssl(arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && text.contains(expected), "openssl {arguments:?}: {text}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn verify<'a>(files: &'a Files, purpose: &'a str, at: &'a str) -> Vec<&'a str> {
    vec![
        "verify",
        "-x509_strict",
        "-purpose",
        purpose,
        "-attime",
        at,
        "-crl_check",
        "-CAfile",
        text(&files.ca),
        "-CRLfile",
        text(&files.crl),
        text(&files.certificate),
    ]
}

#[test]
fn openssl_accepts_our_certificates_for_their_purpose_only() {
    let desk = Desk::new();
    let now = (NOW.as_millis() / 1000).to_string();
    let late = (NOW.as_millis() / 1000 + 826 * DAY_MS / 1000).to_string();
    for identity in ["host/web1.example.com", "user/lea", "service/jobs"] {
        let files = desk.write(&desk.authority.credentials(identity).unwrap());
        good(&verify(&files, "sslclient", &now));
        bad(&verify(&files, "sslserver", &now), "purpose");
    }
    let files = desk.write(&desk.authority.broker("broker/mq1.example.com").unwrap());
    good(&verify(&files, "sslserver", &now));
    bad(&verify(&files, "sslclient", &now), "purpose");
    bad(&verify(&files, "sslserver", &late), "expired");
    good(&[
        "verify",
        "-attime",
        &now,
        "-CAfile",
        text(&files.ca),
        "-verify_hostname",
        "localhost",
        text(&files.certificate),
    ]);
    good(&["verify", "-attime", &now, "-CAfile", text(&files.ca), "-verify_ip", "127.0.0.1", text(&files.certificate)]);
    bad(
        &["verify", "-attime", &now, "-CAfile", text(&files.ca), "-verify_hostname", "mq2", text(&files.certificate)],
        "hostname mismatch",
    );
}

#[test]
fn openssl_reads_the_profile_as_we_describe_it() {
    let desk = Desk::new();
    let lea = desk.authority.credentials_with_groups("user/lea", &["ops", "dba"]).unwrap();
    let files = desk.write(&lea);
    let seen = good(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", text(&files.certificate)]);
    for line in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ED25519",
        "Subject: CN=user/lea",
        "Public Key Algorithm: ED25519",
        "URI:muster:user/lea, URI:muster:group/dba, URI:muster:group/ops",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
        "Not Before: Nov 21 00:42:17 2026 GMT",
        "Not After : Nov 21 00:47:17 2027 GMT",
    ] {
        assert!(seen.contains(line), "{line:?} is missing in:\n{seen}");
    }
    let broker = desk.write(&desk.authority.broker("broker/mq1.example.com").unwrap());
    let seen = good(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", text(&broker.certificate)]);
    let names = "URI:muster:broker/mq1.example.com, DNS:localhost, DNS:mq1.example.com, \
                 IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1";
    assert!(seen.contains(names), "{seen}");
    assert!(seen.contains("TLS Web Server Authentication"), "{seen}");
    let seen = good(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", text(&files.ca)]);
    for line in ["CA:TRUE, pathlen:0", "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n"] {
        assert!(seen.contains(line), "{line:?} is missing in:\n{seen}");
    }
    let fingerprint = good(&["x509", "-noout", "-fingerprint", "-sha256", "-in", text(&files.certificate)]);
    let fingerprint = fingerprint.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(fingerprint, lea.fingerprint());
    let serial = good(&["x509", "-noout", "-serial", "-in", text(&files.certificate)]);
    assert_eq!(serial.trim().to_lowercase(), format!("serial={}", lea.certificate().serial()));
}

#[test]
fn openssl_sees_a_revocation() {
    let desk = Desk::new();
    let now = (NOW.as_millis() / 1000).to_string();
    let lea = desk.authority.credentials("user/lea").unwrap();
    let max = desk.authority.credentials("user/max").unwrap();
    desk.authority.revoke(&lea).unwrap();
    let lea = desk.write(&lea);
    let max = desk.write(&max);
    bad(&verify(&lea, "sslclient", &now), "certificate revoked");
    good(&verify(&max, "sslclient", &now));
    let seen = good(&["crl", "-noout", "-text", "-in", text(&lea.crl), "-CAfile", text(&lea.ca)]);
    for line in
        ["Version 2", "Signature Algorithm: ED25519", "X509v3 CRL Number: \n                2", "Key Compromise"]
    {
        assert!(seen.contains(line), "{line:?} is missing in:\n{seen}");
    }
    let output = openssl(&["crl", "-noout", "-verify", "-in", text(&lea.crl), "-CAfile", text(&lea.ca)]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("verify OK"), "{output:?}");
}

#[test]
fn openssl_reads_our_keys_and_requests_and_we_its() {
    let desk = Desk::new();
    let key = PrivateKey::generate();
    key.save(&desk.path("ours.key")).unwrap();
    let seen = good(&["pkey", "-in", text(&desk.path("ours.key")), "-noout", "-text_pub"]);
    assert!(seen.contains("ED25519 Public-Key"), "{seen}");
    std::fs::write(desk.path("ours.csr"), request::create(&"host/web1".parse().unwrap(), &key).unwrap()).unwrap();
    good(&["req", "-verify", "-noout", "-in", text(&desk.path("ours.csr"))]);

    good(&["genpkey", "-algorithm", "ed25519", "-out", text(&desk.path("theirs.key"))]);
    let private = PrivateKey::load(&desk.path("theirs.key")).unwrap();
    good(&[
        "req",
        "-new",
        "-key",
        text(&desk.path("theirs.key")),
        "-subj",
        "/CN=whatever",
        "-addext",
        "subjectAltName=URI:muster:host/web2.example.com,DNS:x",
        "-out",
        text(&desk.path("theirs.csr")),
    ]);
    let csr = std::fs::read_to_string(desk.path("theirs.csr")).unwrap();
    let request = Request::read(csr.as_bytes(), "theirs").unwrap();
    assert_eq!(request.identity().unwrap().short(), "host/web2.example.com");
    assert_eq!(request.public_key(), &private.public());
    let certificate = desk.authority.sign(&csr).unwrap();
    Credentials::new(certificate, private, "theirs").unwrap();

    good(&["genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&desk.path("p256.key"))]);
    good(&[
        "req",
        "-new",
        "-key",
        text(&desk.path("p256.key")),
        "-subj",
        "/CN=x",
        "-out",
        text(&desk.path("p256.csr")),
    ]);
    let error = Request::read(&std::fs::read(desk.path("p256.csr")).unwrap(), "p256").unwrap_err();
    assert!(error.to_string().contains("not Ed25519"), "{error}");
}

#[test]
fn openssl_checks_our_signatures_and_we_check_its() {
    let desk = Desk::new();
    let lea = desk.authority.credentials("user/lea").unwrap();
    let files = desk.write(&lea);
    let body = br#"{"request":"018f0000-0000-7000-8000-000000000000"}"#;
    let ours = lea.sign(COMMAND, body);
    let message = pre_authentication_encoding(COMMAND, body);
    std::fs::write(desk.path("message"), &message).unwrap();
    std::fs::write(desk.path("signature"), BASE64.decode(&ours.sig).unwrap()).unwrap();
    let public = good(&["x509", "-noout", "-pubkey", "-in", text(&files.certificate)]);
    std::fs::write(desk.path("public.pem"), public).unwrap();
    let (key, data, signature) = (desk.path("public.pem"), desk.path("message"), desk.path("signature"));
    let check = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-rawin",
        "-inkey",
        text(&key),
        "-in",
        text(&data),
        "-sigfile",
        text(&signature),
    ];
    assert!(good(&check).contains("Signature Verified Successfully"));
    std::fs::write(&data, pre_authentication_encoding(crate::REPORT, body)).unwrap();
    assert!(!openssl(&check).status.success());

    std::fs::write(&data, &message).unwrap();
    let theirs = desk.path("theirs.sig");
    good(&["pkeyutl", "-sign", "-rawin", "-inkey", text(&files.key), "-in", text(&data), "-out", text(&theirs)]);
    let bytes = std::fs::read(&theirs).unwrap();
    let signature = muster_protocol::Signature { sig: BASE64.encode(&bytes), ..ours.clone() };
    desk.authority.trust().unwrap().verify(COMMAND, body, &[signature], NOW).unwrap();
    assert_eq!(BASE64.encode(bytes), ours.sig, "Ed25519 is deterministic");
}

#[test]
fn a_certificate_that_openssl_issues_after_the_profile_is_believed() {
    // The description in the book is enough to issue by other means.
    let desk = Desk::new();
    let ca = desk.authority.ca_directory();
    good(&["genpkey", "-algorithm", "ed25519", "-out", text(&desk.path("k"))]);
    good(&["req", "-new", "-key", text(&desk.path("k")), "-subj", "/CN=user\\/lea", "-out", text(&desk.path("r"))]);
    let extensions = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n\
                      subjectAltName=URI:muster:user/lea,URI:muster:group/ops\n";
    std::fs::write(desk.path("ext"), extensions).unwrap();
    good(&[
        "x509",
        "-req",
        "-in",
        text(&desk.path("r")),
        "-CA",
        text(&ca.join("ca.pem")),
        "-CAkey",
        text(&ca.join("ca.key")),
        "-set_serial",
        "0x4123456789abcdef0123456789abcdef",
        "-days",
        "30",
        "-extfile",
        text(&desk.path("ext")),
        "-out",
        text(&desk.path("c")),
    ]);
    let certificate = Certificate::load(&desk.path("c")).unwrap();
    let now = certificate.not_before();
    // The test's authority begins in the tests' present; OpenSSL dates by the system's clock.
    let now = now.max(NOW);
    let credentials = Credentials::load(&desk.path("c"), &desk.path("k")).unwrap();
    let signers =
        desk.authority.trust().unwrap().verify(COMMAND, b"{}", &[credentials.sign(COMMAND, b"{}")], now).unwrap();
    assert_eq!(signers[0].identity.short(), "user/lea");
    assert!(signers[0].groups.contains("ops"));
}
