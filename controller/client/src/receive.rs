//! From a delivery to a report that a host really made for this controller.

use muster_bus::Delivery;
use muster_pki::Trust;
use muster_protocol::envelope::{EnvelopeError, parse_signatures};
use muster_protocol::{
    Code, HostName, Identity, Message as _, MessageError, PayloadType, ProgressReport, Timestamp, code, decode,
};

/// A delivery that is not a report one may believe. It is counted and shown, and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What is wrong with it.
    pub code: &'static Code,
    /// The host that the routing key names. The broker lets a host write only under its own name, so
    /// this tells where to look; it proves nothing.
    pub claimed_host: Option<HostName>,
    /// Who signed it, where the signature is right and it is what the message says that is not.
    pub signed_by: Option<Identity>,
}

impl Rejection {
    /// What rejections are counted by: code, claimed host, signer.
    pub(crate) fn key(&self) -> RejectionKey {
        (self.code.code, self.claimed_host.clone(), self.signed_by.clone())
    }
}

/// Code of a rejection, the host whose name the routing key bears, and who really signed.
pub type RejectionKey = (&'static str, Option<HostName>, Option<Identity>);

/// Checks a delivery in the order size, type, signatures, body, and signer against the host inside.
///
/// # Errors
/// Says with which of the protocol's codes it is refused.
pub fn read(delivery: &Delivery, trust: &Trust, now: Timestamp) -> Result<ProgressReport, Rejection> {
    let refuse =
        |code: &'static Code| Rejection { code, claimed_host: claimed_host(&delivery.routing_key), signed_by: None };
    if delivery.oversized.is_some() {
        return Err(refuse(&code::TOO_LARGE));
    }
    if PayloadType::from_content_type(&delivery.content_type) != Some(PayloadType::Report) {
        return Err(refuse(&code::UNKNOWN_TYPE));
    }
    let signatures = parse_signatures(&delivery.signatures).map_err(|error| match error {
        EnvelopeError::Unsigned => refuse(&code::UNSIGNED),
        _ => refuse(&code::BAD_ENVELOPE),
    })?;
    let signers = trust
        .verify(ProgressReport::TYPE.as_str(), &delivery.body, &signatures, now)
        .map_err(|error| refuse(error.code()))?;
    let report: ProgressReport = decode(&delivery.body).map_err(|error| match error {
        MessageError::TooLarge { .. } => refuse(&code::TOO_LARGE),
        MessageError::TooDeep => refuse(&code::TOO_DEEP),
        MessageError::Version { .. } => refuse(&code::UNSUPPORTED_VERSION),
        MessageError::Malformed { .. } | MessageError::Invalid { .. } => refuse(&code::MALFORMED),
    })?;
    match signers.into_iter().next().map(|signer| signer.identity) {
        Some(Identity::Host(host)) if host == report.host => Ok(report),
        signed_by => Err(Rejection { signed_by, ..refuse(&code::WRONG_IDENTITY) }),
    }
}

/// A reply key is `KIND/NAME.SESSION.HOST`.
fn claimed_host(routing_key: &str) -> Option<HostName> {
    HostName::new(routing_key.splitn(3, '.').nth(2)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_key_names_the_host() {
        let host = claimed_host("user/lea.7f3a.web1.example.com").map(String::from);
        assert_eq!(host.as_deref(), Some("web1.example.com"));
        assert_eq!(claimed_host("user/lea.7f3a"), None);
        assert_eq!(claimed_host("user/lea.7f3a.UPPER"), None);
    }
}
