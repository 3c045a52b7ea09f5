//! What is remembered of certificates between two runs, and when it is not believed.

use muster_pki::Trust;
use muster_pki::testing::TestAuthority;
use muster_protocol::Timestamp;

use crate::{DAY_MS, NOW, REPORT, authority};

/// A second program of the same user: nothing is known but what the file says.
fn fresh(authority: &TestAuthority) -> Trust {
    authority.trust().unwrap()
}

#[test]
fn a_certificate_is_checked_once_in_two_runs() {
    let authority = authority();
    let lea = authority.credentials("user/lea").unwrap();
    let hosts: Vec<_> = (0..5).map(|n| authority.credentials(&format!("host/h{n}")).unwrap()).collect();
    let first = fresh(&authority);
    assert!(first.to_memory(&lea, NOW).is_none(), "nothing was checked");
    for host in &hosts[..3] {
        first.verify(REPORT, b"body", &[host.sign(REPORT, b"body")], NOW).unwrap();
    }
    let file = first.to_memory(&lea, NOW).unwrap();

    let second = fresh(&authority);
    assert_eq!(second.recall(file.clone(), &lea), 3);
    for host in &hosts[..3] {
        let signers = second.verify(REPORT, b"body", &[host.sign(REPORT, b"body")], NOW).unwrap();
        let expected = first.verify(REPORT, b"body", &[host.sign(REPORT, b"body")], NOW).unwrap();
        assert_eq!(signers, expected);
        // The signature over the message is checked as ever.
        assert!(second.verify(REPORT, b"other", &[host.sign(REPORT, b"body")], NOW).is_err());
    }
    assert!(second.to_memory(&lea, NOW).is_none(), "nothing is new");
    second.verify(REPORT, b"body", &[hosts[4].sign(REPORT, b"body")], NOW).unwrap();
    let both = second.to_memory(&lea, NOW).unwrap();
    assert_eq!(fresh(&authority).recall(both, &lea), 4);
}

#[test]
fn only_the_users_own_file_is_believed() {
    let authority = authority();
    let (lea, max) = (authority.credentials("user/lea").unwrap(), authority.credentials("user/max").unwrap());
    let host = authority.credentials("host/h1").unwrap();
    let trust = fresh(&authority);
    trust.verify(REPORT, b"body", &[host.sign(REPORT, b"body")], NOW).unwrap();
    let file = trust.to_memory(&lea, NOW).unwrap();
    assert_eq!(fresh(&authority).recall(file.clone(), &max), 0, "somebody else's");
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert_eq!(fresh(&authority).recall(changed, &lea), 0, "byte {at}");
    }
    for length in 0..file.len() {
        assert_eq!(fresh(&authority).recall(file[..length].to_vec(), &lea), 0, "{length} bytes");
    }
    assert_eq!(fresh(&authority).recall(file, &lea), 1);
}

/// A certificate of a stranger's authority does not become ours because somebody wrote it down for it.
#[test]
fn another_authority_or_a_newer_list_makes_it_empty() {
    let (authority, other) = (authority(), authority());
    let lea = authority.credentials("user/lea").unwrap();
    let (host, revoked) = (authority.credentials("host/h1").unwrap(), authority.credentials("host/h2").unwrap());
    let trust = fresh(&authority);
    let signed = [&host, &revoked].map(|host| [host.sign(REPORT, b"body")]);
    signed.iter().for_each(|signatures| drop(trust.verify(REPORT, b"body", signatures, NOW).unwrap()));
    let file = trust.to_memory(&lea, NOW).unwrap();

    let rotated = Trust::from_pem(&other.ca_pem()).unwrap();
    assert_eq!(rotated.recall(file.clone(), &lea), 0);
    assert!(rotated.verify(REPORT, b"body", &signed[0], NOW).is_err());

    // In force already when the program starts.
    authority.revoke(&revoked).unwrap();
    let later = fresh(&authority);
    assert_eq!(later.recall(file.clone(), &lea), 0);
    assert_eq!(later.verify(REPORT, b"body", &signed[1], NOW).unwrap_err().code().code, "revoked-certificate");
    assert!(later.verify(REPORT, b"body", &signed[0], NOW).is_ok());

    // Installed while it runs.
    let running = Trust::from_pem(&authority.ca_pem()).unwrap();
    let before = Trust::from_pem(&authority.ca_pem()).unwrap();
    signed.iter().for_each(|signatures| drop(before.verify(REPORT, b"body", signatures, NOW).unwrap()));
    assert_eq!(running.recall(before.to_memory(&lea, NOW).unwrap(), &lea), 2);
    assert!(running.verify(REPORT, b"body", &signed[1], NOW).is_ok());
    running.install_crl(authority.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    assert_eq!(running.verify(REPORT, b"body", &signed[1], NOW).unwrap_err().code().code, "revoked-certificate");
}

#[test]
fn time_is_checked_at_every_use() {
    let authority = authority();
    let (lea, host) = (authority.credentials("user/lea").unwrap(), authority.credentials("host/h1").unwrap());
    let trust = fresh(&authority);
    let signed = [host.sign(REPORT, b"body")];
    trust.verify(REPORT, b"body", &signed, NOW).unwrap();
    let file = trust.to_memory(&lea, NOW).unwrap();
    let second = fresh(&authority);
    assert_eq!(second.recall(file, &lea), 1);
    let after = Timestamp(host.not_after().0 + 1_000);
    assert_eq!(second.verify(REPORT, b"body", &signed, after).unwrap_err().code().code, "expired-certificate");
    let before = Timestamp(host.not_before().0 - 1_000);
    assert_eq!(second.verify(REPORT, b"body", &signed, before).unwrap_err().code().code, "expired-certificate");
    // What has expired is not written again.
    let other = authority.credentials("host/h2").unwrap();
    second.verify(REPORT, b"body", &[other.sign(REPORT, b"body")], NOW).unwrap();
    let far = Timestamp(after.0 + 10_000 * DAY_MS);
    assert_eq!(fresh(&authority).recall(second.to_memory(&lea, far).unwrap(), &lea), 0);
}
