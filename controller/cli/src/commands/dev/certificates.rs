//! The certificate authority of `muster dev`, and certificates for everybody: made once, renewed before they expire.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use muster_pki::authority::{Authority, InitOptions, file_stem};
use muster_pki::crl::CRL_DAYS_DEFAULT;
use muster_pki::profile::Order;
use muster_pki::{Certificate, Credentials};
use muster_protocol::{GroupName, HostName, Identity, Timestamp};

use super::place::Place;
use crate::commands::pki;
use crate::output::Failure;

/// Certificates with less time left are made anew, so that none expires while a program runs for days.
const RENEW_BELOW_MS: i64 = 14 * 24 * 3_600 * 1_000;

/// Who the broker is. It listens on loopback only.
pub(super) const BROKER: &str = "broker/localhost";

/// Who the user of this machine is.
pub(super) const USER: &str = "user/dev";

/// Somebody else, who can sign what takes two.
pub(super) const COLLEAGUE: &str = "user/colleague";

/// The files of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Where the files of an identity are.
///
/// # Errors
/// It is none.
pub(super) fn files(place: &Place, identity: &str) -> Result<Files, Failure> {
    let stem = file_stem(&parse(identity)?);
    let pki = place.pki();
    Ok(Files { certificate: pki.join(format!("{stem}.pem")), key: pki.join(format!("{stem}.key")) })
}

fn parse(identity: &str) -> Result<Identity, Failure> {
    identity.parse().map_err(|error| Failure::unexpected(format!("`{identity}` is no identity"), &error))
}

/// Makes sure that there is an authority, and for everybody a certificate that it vouches for and that lasts.
///
/// # Errors
/// A file cannot be read or written, or does not fit to the others.
pub(super) fn provide(place: &Place, hosts: &[HostName], now: Timestamp) -> Result<(), Failure> {
    let directory = place.authority();
    let failed = |error| pki::failure(error).hint(place.reset_command());
    let mut authority = if directory.join("ca.pem").exists() {
        Authority::open(&directory, now).map_err(failed)?
    } else {
        let options = InitOptions { name: "Muster dev CA".to_owned(), ..InitOptions::default() };
        Authority::init(&directory, &options, now).map_err(failed)?
    };
    let mut orders = vec![Order::new(parse(BROKER)?), member(USER, "admins")?, member(COLLEAGUE, "sre")?];
    if let Some(broker) = orders.first_mut() {
        broker.dns_names.insert("localhost".to_owned());
        broker.ip_addresses.insert(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    for host in hosts {
        orders.push(Order::new(parse(&format!("host/{host}"))?));
    }
    for mut order in orders {
        let files = files(place, &order.identity.short())?;
        if lasts(&files, &authority, now) {
            continue;
        }
        for path in [&files.certificate, &files.key] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::file("remove", path, &error));
                }
                _ => {}
            }
        }
        order.renew = true;
        authority.issue_into(&order, &place.pki(), now).map_err(failed)?;
    }
    authority.renew_crl(CRL_DAYS_DEFAULT, now).map_err(failed)?;
    authority.write_crl(&place.pki().join("crl.pem")).map_err(failed)?;
    Ok(())
}

fn member(identity: &str, group: &str) -> Result<Order, Failure> {
    let mut order = Order::new(parse(identity)?);
    let group: GroupName = group.parse().map_err(|error| Failure::unexpected("a group has a bad name", &error))?;
    order.groups.insert(group);
    Ok(order)
}

/// Whether key and certificate are there, belong together, are this authority's, not taken back, and last.
fn lasts(files: &Files, authority: &Authority, now: Timestamp) -> bool {
    let Ok(credentials) = Credentials::load(&files.certificate, &files.key) else { return false };
    let Ok(certificate) = Certificate::load(&files.certificate) else { return false };
    let known = authority.list().iter().find(|record| record.fingerprint == certificate.fingerprint());
    known.is_some_and(|record| record.revoked.is_none()) && credentials.not_after().0 > now.0 + RENEW_BELOW_MS
}

/// The authority's certificate and its revocation list, where agents and users find them.
pub(super) fn trust(place: &Place) -> (PathBuf, PathBuf) {
    let pki: &Path = &place.pki();
    (pki.join("ca.pem"), pki.join("crl.pem"))
}
