//! From a delivery to a report that a host really made for this controller.

use muster_bus::Delivery;
use muster_pki::{Signed, Signer, Trust, VerifyError};
use muster_protocol::envelope::{EnvelopeError, parse_signatures};
use muster_protocol::{
    Code, HostName, Identity, Message as _, MessageError, PayloadType, ProgressReport, Signature, Timestamp, code,
    decode,
};
use rand::Rng;

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
    let signatures = signatures_of(delivery)?;
    let signers = trust.verify(ProgressReport::TYPE.as_str(), &delivery.body, &signatures, now);
    report_of(delivery, signers)
}

/// Checks deliveries as [`read`] does each, at less cost where they are as they should be. `random` must be one that nobody
/// can foresee.
pub fn read_many(
    deliveries: &[Delivery],
    trust: &Trust,
    now: Timestamp,
    random: &mut impl Rng,
) -> Vec<Result<ProgressReport, Rejection>> {
    let signatures: Vec<_> = deliveries.iter().map(signatures_of).collect();
    let payload_type = ProgressReport::TYPE.as_str();
    let messages: Vec<Signed<'_>> = deliveries
        .iter()
        .zip(&signatures)
        .filter_map(|(delivery, signatures)| {
            let signatures = signatures.as_ref().ok()?;
            Some(Signed { payload_type, body: &delivery.body, signatures })
        })
        .collect();
    let mut verified = trust.verify_many(&messages, now, random).into_iter();
    let judge = |(delivery, signatures): (&Delivery, Result<Vec<Signature>, Rejection>)| {
        signatures.and_then(|_| match verified.next() {
            Some(signers) => report_of(delivery, signers),
            None => Err(refusal(delivery, &code::UNSIGNED)),
        })
    };
    deliveries.iter().zip(signatures).map(judge).collect()
}

fn refusal(delivery: &Delivery, code: &'static Code) -> Rejection {
    Rejection { code, claimed_host: claimed_host(&delivery.routing_key), signed_by: None }
}

/// The signatures of a delivery that could be a report.
fn signatures_of(delivery: &Delivery) -> Result<Vec<Signature>, Rejection> {
    if delivery.oversized.is_some() {
        return Err(refusal(delivery, &code::TOO_LARGE));
    }
    if PayloadType::from_content_type(&delivery.content_type) != Some(PayloadType::Report) {
        return Err(refusal(delivery, &code::UNKNOWN_TYPE));
    }
    parse_signatures(&delivery.signatures).map_err(|error| match error {
        EnvelopeError::Unsigned => refusal(delivery, &code::UNSIGNED),
        _ => refusal(delivery, &code::BAD_ENVELOPE),
    })
}

/// The report in a delivery whose signatures were checked.
fn report_of(delivery: &Delivery, signers: Result<Vec<Signer>, VerifyError>) -> Result<ProgressReport, Rejection> {
    let signers = signers.map_err(|error| refusal(delivery, error.code()))?;
    let report: ProgressReport = decode(&delivery.body).map_err(|error| match error {
        MessageError::TooLarge { .. } => refusal(delivery, &code::TOO_LARGE),
        MessageError::TooDeep => refusal(delivery, &code::TOO_DEEP),
        MessageError::Version { .. } => refusal(delivery, &code::UNSUPPORTED_VERSION),
        MessageError::Malformed { .. } | MessageError::Invalid { .. } => refusal(delivery, &code::MALFORMED),
    })?;
    match signers.into_iter().next().map(|signer| signer.identity) {
        Some(Identity::Host(host)) if host == report.host => Ok(report),
        signed_by => Err(Rejection { signed_by, ..refusal(delivery, &code::WRONG_IDENTITY) }),
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
