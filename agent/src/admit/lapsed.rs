//! Telling somebody that his certificate does not count: a refusal with a reason, and nothing more.

use muster_pki::Trust;
use muster_protocol::{
    Cancel, CollectiveName, Command, Identity, PayloadType, ReplyRoute, RequestId, Signature, Target, Timestamp, code,
    decode,
};

use super::decide::remember_until;
use super::target;
use super::{Addressed, Host, Limits, Received, Refusal};

/// The envelope of a message whose signatures are right, and whose only fault is that a certificate has
/// expired, is not valid yet or is revoked.
///
/// It holds where a refusal would go and nothing of what was asked for, so there is no way from here
/// to [`Verified`](super::Verified).
#[derive(Debug, Clone, PartialEq)]
pub struct Lapsed {
    id: RequestId,
    caller: Identity,
    expires_at: Timestamp,
    collective: CollectiveName,
    target: Target,
    reply_to: ReplyRoute,
}

impl Lapsed {
    /// The message's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Who asked, and has signed first.
    #[must_use]
    pub fn caller(&self) -> &Identity {
        &self.caller
    }

    /// Where the caller reads answers.
    #[must_use]
    pub fn reply_to(&self) -> &ReplyRoute {
        &self.reply_to
    }

    /// Until when the id must be remembered, so that the message does not get through once the certificate counts.
    #[must_use]
    pub fn keep_until(&self, limits: &Limits) -> Timestamp {
        remember_until(self.expires_at, limits)
    }

    /// Whether this host tells him: only if it is meant as far as he has said by collective and names, and it has
    /// not begun the same request while the certificate still counted, whose answer is another one. What the filter
    /// of the target comes to is none of his business.
    #[must_use]
    pub fn is_answered(&self, host: &Host<'_>) -> bool {
        host.collectives.contains(&self.collective)
            && target::names(&self.target, host.name)
            && !host.running.contains_key(&self.id)
            && (host.known)(&self.id).is_none()
            && (host.seen)(&self.id, remember_until(self.expires_at, host.limits)).is_none()
    }
}

/// Reads who would have to be told about a refused message, if that is known beyond doubt.
pub(super) fn read(
    received: &Received,
    kind: PayloadType,
    signatures: &[Signature],
    refusal: &Refusal,
    trust: &Trust,
) -> Option<Box<Lapsed>> {
    if refusal.code != &code::EXPIRED_CERTIFICATE && refusal.code != &code::REVOKED_CERTIFICATE {
        return None;
    }
    // The refusal came before the signatures were looked at; here they all have to be right.
    let authors = trust.authors(kind.as_str(), &received.body, signatures).ok()?;
    let lapsed = match kind {
        PayloadType::Command => envelope(&decode::<Command>(&received.body).ok()?),
        PayloadType::Cancel => envelope(&decode::<Cancel>(&received.body).ok()?),
        PayloadType::Watch | PayloadType::Report | PayloadType::AccumulatedReport | PayloadType::Announcement => {
            return None;
        }
    };
    let is_his = authors.first() == Some(&lapsed.caller)
        && authors.iter().all(Identity::is_controller)
        && lapsed.reply_to.controller() == &lapsed.caller;
    is_his.then(|| Box::new(lapsed))
}

fn envelope(message: &impl Addressed) -> Lapsed {
    Lapsed {
        id: message.id(),
        caller: message.caller().clone(),
        expires_at: message.expires_at(),
        collective: message.collective().clone(),
        target: message.target().clone(),
        reply_to: message.reply_to().clone(),
    }
}
