//! Who am I: every way in which certificate and key can be wrong ends with exit code 8 before anything is sent.

use std::os::unix::fs::PermissionsExt as _;

use muster_pki::testing::TestAuthority;

use crate::site::{Site, assert_screen, closed_port, now};

fn address() -> String {
    format!("amqps://localhost:{}", closed_port())
}

#[test]
fn files_that_are_not_there() {
    let site = Site::new();
    site.with_context(&address(), "user/lea");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[not-logged-in]: not logged in: context `lab` needs a file that is not there
      missing  [HOME]/.config/muster/files/user-lea.pem
      need     what `muster pki issue user/YOU --out DIR` wrote, from whoever keeps the CA
      try      muster context show lab --origin
    ");
}

#[test]
fn a_key_that_others_can_read() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("user/lea").unwrap());
    site.with_context(&address(), "user/lea");
    let key = site.files().join("user-lea.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_screen!(site.run(&["find", "--all"]), @"
    exit 8
    --- stderr
    error[key-exposed]: context `lab`: your certificate and key cannot be used
      why     key file `[HOME]/.config/muster/files/user-lea.key` is accessible by group or others (mode 0644)
      or      muster doctor
      try     chmod 600 [HOME]/.config/muster/files/user-lea.key
    ");
    assert_screen!(site.run(&["doctor"]), @"
    exit 8
    --- stdout
    ✓ config       context `lab`, chosen by the only context
    ✗ key          context `lab`: your certificate and key cannot be used
                   why: key file `[HOME]/.config/muster/files/user-lea.key` is accessible by group or others (mode 0644)
                   do: chmod 600 [HOME]/.config/muster/files/user-lea.key
    · not checked: certificate, revocation, names, network, login, permissions, agents, clocks, backlog, crls, policies
    ");
}

#[test]
fn a_certificate_that_is_over_or_not_yet() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.expired("user/old").unwrap());
    site.with_context(&address(), "user/old");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[expired-certificate]: the certificate of `user/old` expired 1 d ago
      why     the certificate of `user/old` expired at [TIME]; here it is [TIME]
      cert    [HOME]/.config/muster/files/user-old.pem
      valid   [TIME] to [TIME]
      try     muster pki issue user/old --renew --out DIR
    ");
    site.install(&authority, &authority.not_yet_valid("user/new").unwrap());
    site.with_context(&address(), "user/new");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[expired-certificate]: the certificate of `user/new` is not valid yet
      why     the certificate of `user/new` is not valid before [TIME]; here it is [TIME]
      cert    [HOME]/.config/muster/files/user-new.pem
      valid   [TIME] to [TIME]
      try     muster explain expired-certificate
    ");
}

#[test]
fn a_certificate_that_is_revoked() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.revoked("user/lea").unwrap());
    site.with_context(&address(), "user/lea");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[revoked-certificate]: the certificate of `user/lea` is revoked
      why     certificate [HEX] of `user/lea` is revoked
      cert    [HOME]/.config/muster/files/user-lea.pem
      valid   [TIME] to [TIME]
      try     muster explain revoked-certificate
    ");
}

#[test]
fn a_certificate_of_another_authority() {
    let site = Site::new();
    let (ours, theirs) = (TestAuthority::new(now()).unwrap(), TestAuthority::new(now()).unwrap());
    site.install(&theirs, &theirs.credentials("user/lea").unwrap());
    for file in ["ca.pem", "crl.pem"] {
        std::fs::copy(ours.ca_directory().join(file), site.files().join(file)).unwrap();
    }
    site.with_context(&address(), "user/lea");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[untrusted-certificate]: the certificate of `user/lea` does not come from the CA of context `lab`
      why     certificate [HEX] is not trusted: its issuer `CN=Muster CA [HEX]` is unknown here
      cert    [HOME]/.config/muster/files/user-lea.pem
      valid   [TIME] to [TIME]
      ca      [HOME]/.config/muster/files/ca.pem
      try     muster explain untrusted-certificate
    ");
}

#[test]
fn a_host_cannot_command() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("host/web1.example.com").unwrap());
    site.with_context(&address(), "host/web1.example.com");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[not-a-controller]: `host/web1.example.com` may not command: it is not a user or a service
      from    [HOME]/.config/muster/files/host-web1.example.com.pem
      try     muster explain not-a-controller
    ");
}

#[test]
fn a_key_of_another_certificate() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("user/lea").unwrap());
    site.install(&authority, &authority.credentials("user/max").unwrap());
    std::fs::copy(site.files().join("user-max.key"), site.files().join("user-lea.key")).unwrap();
    site.with_context(&address(), "user/lea");
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 8
    --- stderr
    error[key-mismatch]: context `lab`: your certificate and key cannot be used
      why     key `[HOME]/.config/muster/files/user-lea.key` does not belong to certificate `[HOME]/.config/muster/files/user-lea.pem`
      or      muster doctor
      try     use the key that was made with it; `muster pki show [HOME]/.config/muster/files/user-lea.pem` says whose certificate it is
    ");
}

#[test]
fn a_key_that_cannot_be_read_is_no_good_key() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("user/lea").unwrap());
    site.with_context(&address(), "user/lea");
    let (certificate, key) = (site.files().join("user-lea.pem"), site.files().join("user-lea.key"));
    // As another user would find them: neither can be read. Root reads everything, but no directory.
    for path in [&certificate, &key] {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }
    let output = site.command(&["doctor"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(8), "{shown}");
    for check in ["key", "certificate"] {
        let (_, rest) = shown.split_once(&format!("✗ {check:<13}")).unwrap_or_else(|| panic!("{check}: {shown}"));
        let own = rest.split(['✗', '✓', '·']).next().unwrap();
        assert!(own.contains("do: "), "{check}: {own}");
    }
}
