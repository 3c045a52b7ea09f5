//! Who gets in, and who is shown the door.

use std::sync::Arc;

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, connection};
use muster_broker::access::Members;
use muster_broker::server::{Files, Server, Settings};
use muster_daemon::{Clock as _, SystemClock, Tasks};
use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, Trust};
use muster_protocol::Timestamp;
use rustls::ClientConfig;

use crate::client::{Client, tls};
use crate::site::Site;

/// What a client hears whose certificate is not accepted: the first thing that it reads is the broker's alert.
fn alert(site: &Site, config: Arc<ClientConfig>) -> String {
    let heard = tls(site, config).and_then(|mut client| {
        // The broker hangs up, so this may be too late already.
        drop(client.try_send([AMQPFrame::ProtocolHeader(amq_protocol::frame::ProtocolVersion::amqp_0_9_1())]));
        client.next()
    });
    format!("{:?}", heard.expect_err("is refused"))
}

fn refused(site: &Site, reason: &str) -> u64 {
    site.server.status(false).connected.refused.get(reason).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_ours_get_in_and_each_refusal_is_counted() {
    tokio::task::spawn_blocking(|| {}).await.unwrap();
    let site = Site::new();
    let stranger = TestAuthority::new(Timestamp(SystemClock.now_ms())).unwrap();
    let check = |config: Arc<ClientConfig>, expected: &str, reason: &str| {
        let before = refused(&site, reason);
        let heard = alert(&site, config);
        assert!(heard.contains(expected), "{reason}: {heard}");
        site.until("the refusal is counted", |_| {
            let now = refused(&site, reason);
            if now == before + 1 { Ok(()) } else { Err(format!("{reason} {now}")) }
        });
    };
    let with = |credentials: &Credentials| muster_pki::tls::client_config(credentials, &site.trust()).unwrap();
    let plain = {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(site.trust().authorities()[0].der().to_vec().into()).unwrap();
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    };
    check(plain, "CertificateRequired", "no-certificate");
    check(with(&stranger.credentials("user/lea").unwrap()), "UnknownCA", "untrusted-certificate");
    check(with(&site.authority.expired("user/lea").unwrap()), "CertificateExpired", "expired-certificate");
    check(with(&site.authority.linked_broker("broker/mq2").unwrap()), "CertificateUnknown", "wrong-identity");
    // Revoked before the broker has heard of it: it gets in. After: it does not.
    let lea = site.member("user/lea");
    Client::open(&site, &lea);
    site.authority.revoke(&lea).unwrap();
    site.server
        .trust()
        .install_crl(site.authority.crl_pem().unwrap().as_bytes(), Timestamp(SystemClock.now_ms()))
        .unwrap();
    check(with(&lea), "CertificateRevoked", "revoked-certificate");
    // And those are the ones that do.
    for identity in ["host/web1", "user/max", "service/jobs"] {
        Client::open(&site, &site.member(identity));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_does_not_start_with_a_certificate_of_another_kind() {
    let authority = TestAuthority::new(Timestamp(SystemClock.now_ms())).unwrap();
    for (identity, words) in [("host/web1", "host/web1"), ("user/lea", "user/lea")] {
        let settings = Settings::new(authority.credentials(identity).unwrap(), authority.trust().unwrap());
        let error = Server::start(settings, &Tasks::new()).unwrap_err();
        assert_eq!(error.code(), "not-a-server-certificate");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains(words), "{error:?}");
    }
    let other = TestAuthority::new(Timestamp(SystemClock.now_ms())).unwrap();
    let settings = Settings::new(other.broker("broker/mq1").unwrap(), authority.trust().unwrap());
    assert_eq!(Server::start(settings, &Tasks::new()).unwrap_err().code(), "foreign-certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_the_watched_file_ends_open_connections() {
    let directory = tempfile::tempdir().unwrap();
    let (crl, kept) = (directory.path().join("crl.pem"), directory.path().join("kept.pem"));
    let files = Files { crl: Some(crl.clone()), crl_kept: Some(kept.clone()), members: None };
    let site = Site::with(|settings| settings.files = files);
    let (lea, max) = (site.member("user/lea"), site.member("user/max"));
    let (mut of_lea, mut of_max) = (Client::open(&site, &lea), Client::open(&site, &max));
    site.authority.revoke(&lea).unwrap();
    // Half of it first, as a copy that is not atomic leaves it for a moment.
    let list = site.authority.crl_pem().unwrap();
    std::fs::write(&crl, &list[..list.len() / 2]).unwrap();
    std::fs::write(&crl, &list).unwrap();
    let (code, words) = of_lea.closed();
    assert_eq!(code, 320);
    assert!(
        words.starts_with("CONNECTION_FORCED - certificate ") && words.ends_with("of `user/lea` is revoked"),
        "{words}"
    );
    // Nobody else notices.
    of_max.declare("reply.user/max.1", "reply", "user/max.1.#");
    site.until("one connection is left", |status| match &status.connections[..] {
        [only] if only.identity == "user/max" => Ok(()),
        others => Err(format!("{others:?}")),
    });
    // The next start knows it too, with the file gone.
    let trust = Trust::from_pem(&site.authority.ca_pem()).unwrap();
    let now = Timestamp(SystemClock.now_ms());
    muster_broker::server::upkeep::restore_lists(&trust, &kept, now).unwrap();
    assert_eq!(trust.check_client(lea.certificate().der(), now).unwrap_err().code().code, "revoked-certificate");
    std::fs::write(&kept, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    assert!(
        muster_broker::server::upkeep::restore_lists(&trust, &kept, now).unwrap_err().to_string().contains("`crl`")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_says_that_the_watched_list_is_broken_or_gone() {
    let directory = tempfile::tempdir().unwrap();
    let crl = directory.path().join("crl.pem");
    let files = Files { crl: Some(crl.clone()), ..Files::default() };
    let site = Site::with(|settings| settings.files = files);
    let good = site.authority.crl_pem().unwrap();
    let until_good = || {
        site.until("a list is in force and nothing is wrong", |status| match &status.file_troubles[..] {
            [] if !status.revocation_lists.is_empty() => Ok(()),
            others => Err(format!("{others:?}")),
        });
    };
    let until_bad = |part: &str| {
        site.until(part, |status| match &status.file_troubles[..] {
            [one] if one.why.contains(part) && one.path == crl && !status.revocation_lists.is_empty() => {
                Ok(one.since_ms)
            }
            others => Err(format!("{others:?}")),
        })
    };
    std::fs::write(&crl, &good).unwrap();
    until_good();
    std::fs::write(&crl, "garbage").unwrap();
    let broken_since = until_bad("");
    std::fs::remove_file(&crl).unwrap();
    assert_eq!(until_bad("not there"), broken_since, "the same trouble goes on");
    std::fs::write(&crl, &good).unwrap();
    until_good();
    assert_eq!(site.server.status(false).revocation_file.as_ref(), Some(&crl));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_on_no_list_does_not_log_in_and_who_is_taken_out_is_disconnected() {
    let directory = tempfile::tempdir().unwrap();
    let members = directory.path().join("members");
    let list = |text: &str| {
        let next = members.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &members).unwrap();
    };
    list("user/lea # a person\n\nhost/web1\n");
    let files = Files { members: Some(members.clone()), ..Files::default() };
    let site = Site::with(|settings| {
        settings.rules.members = Members::Listed(muster_broker::server::upkeep::read_members(&members).unwrap());
        settings.files = files;
    });
    let mut of_lea = Client::open(&site, &site.member("user/lea"));
    let mut of_max =
        tls(&site, muster_pki::tls::client_config(&site.member("user/max"), &site.trust()).unwrap()).unwrap();
    match of_max.log_in().unwrap_err() {
        AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => {
            assert_eq!(close.reply_code, 403);
            assert!(
                close.reply_text.as_str().starts_with("ACCESS_REFUSED - Login was refused"),
                "{}",
                close.reply_text
            );
        }
        other => panic!("{other:?}"),
    }
    // A list that cannot be read changes nothing.
    list("user/lea\nnobody at all\n");
    list("user/max\n");
    let (code, words) = of_lea.closed();
    assert_eq!((code, words.contains("`user/lea` is not a member")), (320, true), "{words}");
    Client::open(&site, &site.member("user/max"));
}

/// The beginning of a handshake as rustls makes it.
fn client_hello(site: &Site) -> Vec<u8> {
    let config = muster_pki::tls::client_config(&site.member("user/max"), &site.trust()).unwrap();
    let mut tls = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_a_byte_of_its_handshake_now_and_then_loses_its_place_at_the_deadline() {
    use std::io::{Read as _, Write as _};
    let site = Site::with(|settings| {
        settings.handshake_ms = 1_000;
        settings.limits.handshakes_max = 1;
    });
    let hello = client_hello(&site);
    let address = site.server.local_addr();
    let dribbler = std::thread::spawn(move || {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(10))).unwrap();
        // Never all of it, so that there is always more to wait for.
        for (sent, byte) in hello[..hello.len() - 1].iter().cycle().enumerate() {
            assert!(sent < 6_000, "it was never hung up on");
            let gone = |kind| !matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            // The length in the record's head is kept: what comes is one record that does not end.
            if sent < hello.len() - 1 && socket.write_all(&[*byte]).is_err() {
                return;
            }
            match socket.read(&mut [0; 1]) {
                Err(error) if !gone(error.kind()) => {}
                _ => return,
            }
        }
    });
    site.until("it is counted while it has the place", |status| match status.connected.handshaking {
        muster_broker::server::status::Used { count: 1, max: 1 } => Ok(()),
        other => Err(format!("{other:?}")),
    });
    dribbler.join().unwrap();
    site.until("it is refused and its place is free", |status| {
        let connected = &status.connected;
        match (connected.refused.get("handshake-timeout"), connected.handshaking.count) {
            (Some(1), 0) => Ok(()),
            _ => Err(format!("{connected:?}")),
        }
    });
    // And nobody who only waits to be accepted counts.
    Client::open(&site, &site.member("user/lea"));
    assert_eq!(site.server.status(false).connected.handshaking.count, 0);
}
