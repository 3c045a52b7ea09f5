//! What stands in the certificates we issue: one place for kinds, purposes, lifetimes and names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use muster_protocol::{GroupName, Identity, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};

use crate::PkiError;
use crate::certificate::{GROUP_PREFIX, GROUPS_MAX};
use crate::key::{PublicKey, hex};
use crate::time_text::{DAY_MS, date};

/// How far `not_before` lies in the past, in milliseconds, so that a clock a little behind ours does not
/// refuse a new certificate.
pub const BACKDATE_MS: i64 = 5 * 60 * 1000;
/// Lifetime of an authority, in days.
pub const AUTHORITY_DAYS_DEFAULT: u32 = 3650;
/// Lifetime of host and broker certificates, in days. They are renewed by machines and on machines that are hard to reach.
pub const MACHINE_DAYS_DEFAULT: u32 = 825;
/// Lifetime of user and service certificates, in days. They can command, so they are looked at once a year.
pub const CONTROLLER_DAYS_DEFAULT: u32 = 365;
/// Longest lifetime of anything, in days.
pub const DAYS_MAX: u32 = 36_500;
/// Longest common name (RFC 5280 appendix A, ub-common-name).
const COMMON_NAME_CHARS_MAX: usize = 64;
/// Most DNS names and IP addresses of a broker.
const SERVER_NAMES_MAX: usize = 64;

/// What the authority puts into a certificate besides the public key. Nothing of it comes from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who the certificate names.
    pub identity: Identity,
    /// Groups, for users and services.
    pub groups: BTreeSet<GroupName>,
    /// DNS names at which a broker is reached, besides its own name.
    pub dns_names: BTreeSet<String>,
    /// IP addresses at which a broker is reached.
    pub ip_addresses: BTreeSet<IpAddr>,
    /// Whether a broker also logs in at another one, as a site's does at the central broker.
    pub link: bool,
    /// Lifetime in days; `None` for the kind's default.
    pub days: Option<u32>,
    /// Whether the identity may have a certificate in force already: the two overlap.
    pub renew: bool,
}

impl Order {
    /// A certificate for `identity` with defaults.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            groups: BTreeSet::new(),
            dns_names: BTreeSet::new(),
            ip_addresses: BTreeSet::new(),
            link: false,
            days: None,
            renew: false,
        }
    }

    /// The lifetime in days.
    #[must_use]
    pub fn days(&self) -> u32 {
        self.days.unwrap_or(match self.identity {
            Identity::Host(_) | Identity::Broker(_) => MACHINE_DAYS_DEFAULT,
            Identity::User(_) | Identity::Service(_) => CONTROLLER_DAYS_DEFAULT,
        })
    }

    /// Checks what may go together.
    ///
    /// # Errors
    /// Groups on a host or broker, server names or a link on anything but a broker, a name or lifetime out of range.
    pub fn check(&self) -> Result<(), PkiError> {
        let kind = self.identity.kind();
        let is_server = matches!(self.identity, Identity::Broker(_));
        let has_server_names = !self.dns_names.is_empty() || !self.ip_addresses.is_empty();
        if !self.groups.is_empty() && !self.identity.is_controller() {
            return Err(PkiError::NotForKind { kind, what: "groups: only users and services command" });
        }
        if has_server_names && !is_server {
            return Err(PkiError::NotForKind { kind, what: "DNS names or IP addresses: only brokers are servers" });
        }
        if self.link && !is_server {
            return Err(PkiError::NotForKind { kind, what: "a link: only brokers are linked" });
        }
        if self.groups.len() > GROUPS_MAX {
            return Err(PkiError::BadValue {
                what: "number of groups",
                given: self.groups.len().to_string(),
                expected: "16 or fewer",
            });
        }
        if self.dns_names.len() + self.ip_addresses.len() > SERVER_NAMES_MAX {
            return Err(PkiError::BadValue {
                what: "number of server names",
                given: (self.dns_names.len() + self.ip_addresses.len()).to_string(),
                expected: "64 or fewer",
            });
        }
        for name in &self.dns_names {
            if muster_protocol::HostName::new(name.as_str()).is_err() {
                return Err(PkiError::BadValue {
                    what: "DNS name",
                    given: name.chars().take(80).flat_map(char::escape_default).collect(),
                    expected: "a lower-case DNS name without wildcard",
                });
            }
        }
        check_days(self.days())
    }

    /// The certificate to be signed, and the time it ends.
    pub(crate) fn parameters(
        &self,
        serial: [u8; 16],
        now: Timestamp,
        authority_ends: Timestamp,
    ) -> Result<CertificateParams, PkiError> {
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from_slice(&serial));
        parameters.not_before = date(now.plus_ms(-BACKDATE_MS));
        // A certificate that outlives its authority is useless afterwards and hides that from whoever reads its end.
        parameters.not_after = date(now.plus_ms(i64::from(self.days()) * DAY_MS).min(authority_ends));
        parameters.distinguished_name = common_name(&self.identity.short());
        parameters.subject_alt_names = self.names()?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match self.identity {
            // It still signs nothing: a broker's identity is refused as a signer.
            Identity::Broker(_) if self.link => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Identity::Broker(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Identity::Host(_) | Identity::User(_) | Identity::Service(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        parameters.use_authority_key_identifier_extension = true;
        Ok(parameters)
    }

    /// The subject alternative names in their order: the identity is the first URI.
    fn names(&self) -> Result<Vec<SanType>, PkiError> {
        let build = |source| PkiError::Build { what: "the subject alternative name", source };
        let mut names = vec![SanType::URI(self.identity.to_string().try_into().map_err(build)?)];
        for group in &self.groups {
            names.push(SanType::URI(format!("{GROUP_PREFIX}{group}").try_into().map_err(build)?));
        }
        if let Identity::Broker(name) = &self.identity {
            let own = std::iter::once(name.as_str()).filter(|name| name.parse::<IpAddr>().is_err());
            let dns: BTreeSet<&str> = own.chain(self.dns_names.iter().map(String::as_str)).collect();
            for name in dns {
                names.push(SanType::DnsName(name.to_owned().try_into().map_err(build)?));
            }
            let own = name.as_str().parse::<IpAddr>().ok();
            let addresses: BTreeSet<IpAddr> = own.into_iter().chain(self.ip_addresses.iter().copied()).collect();
            names.extend(addresses.into_iter().map(SanType::IpAddress));
        }
        Ok(names)
    }
}

/// Checks a lifetime.
pub(crate) fn check_days(days: u32) -> Result<(), PkiError> {
    if days == 0 || days > DAYS_MAX {
        return Err(PkiError::BadValue {
            what: "lifetime",
            given: format!("{days} days"),
            expected: "1 to 36500 days",
        });
    }
    Ok(())
}

/// An authority's own certificate.
pub(crate) fn authority_parameters(
    name: &str,
    key: &PublicKey,
    serial: [u8; 16],
    days: u32,
    now: Timestamp,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.not_before = date(now.plus_ms(-BACKDATE_MS));
    parameters.not_after = date(now.plus_ms(i64::from(days) * DAY_MS));
    // The key's digits make the name unique: during a rotation two authorities are trusted side by side, and
    // certificates and lists find theirs by name.
    parameters.distinguished_name = common_name(&format!("{name} {}", hex(&key.as_bytes()[..4])));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

/// Sixteen random bytes as a serial: the first bit 0, so that it is positive, the second 1, so that it never gets shorter.
pub(crate) fn random_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

pub(crate) fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text.chars().take(COMMON_NAME_CHARS_MAX).collect::<String>());
    name
}
