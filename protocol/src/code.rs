//! Every stable code with which a host answers or a controller ends, in one table.
//!
//! Agents put the code into reports, the command line prints it as `error[code]` and
//! `muster explain CODE` prints [`Code::explanation`]. A code is never renamed or reused.

use crate::report::Outcome;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The code: lower case, words joined by dashes.
    pub code: &'static str,
    /// What it means, in a few words, lower case.
    pub summary: &'static str,
    /// Why it happens and what to do, in whole sentences.
    pub explanation: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $summary:literal, $explanation:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code { code: $code, summary: $summary, explanation: $explanation };)*
        /// All codes of the protocol, in the order of the checks.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    /// Too many bytes.
    TOO_LARGE = "too-large", "the message is larger than the limit",
        "A message body may have 1 MiB and its signatures 12 KiB. Give the action less at once, or several commands.";
    /// Too much nesting.
    TOO_DEEP = "too-deep", "the message nests deeper than the limit",
        "JSON in a message may nest 32 levels. Flatten the arguments.";
    /// Not a content type we know.
    UNKNOWN_TYPE = "unknown-type", "the message has an unknown content type",
        "Something on the bus is not Muster's, or a newer controller sent a kind of message this agent does not know. Nothing was done.";
    /// No signature.
    UNSIGNED = "unsigned", "the message carries no signature",
        "Every message is signed. A message without a signature does nothing. Look at who may publish to the exchange `cmd`: `muster broker check`.";
    /// A signature that cannot be read.
    BAD_ENVELOPE = "bad-envelope", "the signatures cannot be read",
        "The header `muster-signatures` is not the JSON list that the protocol describes. See the chapter on the protocol.";
    /// The signature is wrong.
    BAD_SIGNATURE = "bad-signature", "the signature does not fit the message",
        "The body, its type or the signature was changed on the way, or another key signed. Nothing was done. Treat it as an attack until you know better.";
    /// The certificate does not come from our CA.
    UNTRUSTED_CERTIFICATE = "untrusted-certificate", "the signer's certificate does not come from this CA",
        "The certificate was issued by another CA, or the agent trusts another. Compare `muster pki show` with the agent's `pki.ca` file.";
    /// The certificate is not valid now.
    EXPIRED_CERTIFICATE = "expired-certificate", "the signer's certificate is not valid at this time",
        "It has expired or is not valid yet. Renew it with `muster pki issue` or `muster pki sign`; if it looks valid, compare the clocks.";
    /// The certificate was revoked.
    REVOKED_CERTIFICATE = "revoked-certificate", "the signer's certificate is revoked",
        "The CA has put the certificate on its revocation list. Get a new one; find out why the old one was revoked.";
    /// The certificate carries no identity, or one of the wrong kind.
    WRONG_IDENTITY = "wrong-identity", "the signer is not who the message says",
        "The identity inside the message and the one in the certificate differ, or the kind of identity may not send such a message: only users and services command, only hosts report.";
    /// Another protocol version.
    UNSUPPORTED_VERSION = "unsupported-version", "the message is in a protocol version this program does not speak",
        "One side is much newer than the other. Upgrade the older one; `muster run host.status` shows the agents' versions.";
    /// Verified, but not a message.
    MALFORMED = "malformed", "the message breaks the rules of its type",
        "The signature is right but the content is not a message of the protocol. The text says which field. A controller that is not ours should be checked against the JSON Schemas.";
    /// An unknown entry in `requires`.
    UNSUPPORTED_FEATURE = "unsupported-feature", "the command needs a feature this agent does not have",
        "The controller marked an option as one that must not be ignored, and this agent does not know it. Upgrade the agent, or leave the option out.";
    /// After `expires_at_ms`.
    EXPIRED = "expired", "the command came after its expiry",
        "It waited too long on the way, or the clocks differ: the message gives the measured difference. Check time synchronisation on both sides; a longer life is `--ttl`.";
    /// `created_at_ms` lies in the future.
    FROM_THE_FUTURE = "from-the-future", "the command was made in this host's future",
        "The clocks of controller and host differ by more than the allowed skew (60 s by default); the message gives the measured difference. Check time synchronisation on both sides.";
    /// The window is wider than this host allows.
    WINDOW_TOO_LONG = "window-too-long", "the command lives longer than this host allows",
        "A host keeps request ids for the whole window, so it bounds the window (`limits.command_window_s` in the agent's configuration). Use a shorter `--ttl`.";
    /// The target's expression does not parse on the host.
    BAD_TARGET = "bad-target", "the target expression is not valid",
        "The expression does not parse on the host, so nothing was done. The message points at the column.";
    /// The id was seen before.
    REPLAYED = "replayed", "the command was seen before",
        "A request id runs at most once. Somebody sent the same bytes again, or the broker delivered twice. Nothing was done this time; the first answer stands.";
    /// The policy says no.
    POLICY_DENIED = "policy-denied", "this host's policy does not allow it",
        "The host decides last. The message names the rule, or says that no rule allows it. Change the policy on the host, or ask somebody whom it allows.";
    /// The policy wants more people to sign.
    NEEDS_APPROVAL = "needs-approval", "this host's policy asks for more signatures",
        "The host's policy allows it only if other people have signed the same command. The message says who is missing. Make the command with `muster run ... --pending`, let them sign it with `muster approve`, then send it with `muster send`. Nothing was started, and the same command may be sent again once it has more signatures.";
    /// No such plugin.
    UNKNOWN_PLUGIN = "unknown-plugin", "this host has no such plugin",
        "`muster plugin list` shows what exists, `muster find -t 'plugin = NAME'` which hosts have it.";
    /// No such action.
    UNKNOWN_ACTION = "unknown-action", "the plugin has no such action",
        "`muster plugin show PLUGIN` lists its actions. The host may have an older version of the plugin.";
    /// An argument that the action does not take.
    UNKNOWN_ARGUMENT = "unknown-argument", "the action takes no such argument",
        "`muster plugin show PLUGIN.ACTION` lists its arguments.";
    /// An argument that the action needs.
    MISSING_ARGUMENT = "missing-argument", "the action needs an argument that is not there",
        "`muster plugin show PLUGIN.ACTION` lists its arguments and which of them are required.";
    /// An argument against its DDL.
    INVALID_ARGUMENT = "invalid-argument", "an argument has a wrong value",
        "The value has the wrong type, is too long, or fails the validation in the action's DDL. `muster plugin show PLUGIN.ACTION` lists what is allowed.";
    /// noop, effective user or the like on an action without it.
    UNSUPPORTED_OPTION = "unsupported-option", "the action does not support this option",
        "Not every action can be tried without effect (`--noop`) or run as another user. Ignoring the option would do something else than asked, so nothing was done.";
    /// No such user.
    UNKNOWN_USER = "unknown-user", "the host has no such user",
        "The effective user of a command must exist on the host. `getent passwd NAME` on the host shows what it knows.";
    /// A secret in the open.
    SECRET_NOT_SEALED = "secret-not-sealed", "a secret argument came in the open",
        "The action's description marks the argument as secret, so it is taken only when it is sealed to this host. `muster run` does that; what came in the open should be changed, since the broker has seen it.";
    /// Sealed to another key, or to another command.
    CANNOT_UNSEAL = "cannot-unseal", "the host cannot open the secret arguments",
        "They were sealed to a key this host does not have any more, or not for this command. Send the command again: the host is then asked for its present key.";
    /// Nothing is known about the request.
    UNKNOWN_REQUEST = "unknown-request", "the host knows nothing about the request",
        "It never came, only read something, or ended so long ago that its results were removed (`limits.results_keep_s` of the agent).";
    /// The plugin is there but cannot work here.
    NOT_ACTIVATED = "not-activated", "the plugin cannot work on this host",
        "What it needs is missing, such as a package manager or a service manager it knows. The message says what.";
    /// Too many actions at once.
    BUSY = "busy", "the host already runs as many actions as it may",
        "The limit is `limits.concurrent_actions` in the agent's configuration. Try again later.";
    /// The agent is going down.
    SHUTTING_DOWN = "shutting-down", "the agent is stopping",
        "It takes no new commands while it stops. Try again when it is back.";
    /// The request id cannot be recorded.
    JOURNAL_FAILED = "journal-failed", "the host cannot record the request, so it does not run it",
        "Without a record it could not keep the promise to run a command at most once. Usually the disk is full or not writable: look at `state_dir` of the agent.";
    /// Good.
    OK = "ok", "done", "The action did what it was asked.";
    /// The answer to a watch that does not follow.
    STILL_RUNNING = "still-running", "the request runs",
        "The answer to a watch that asked only how the request stands now. It has not ended; watch it again, or follow it.";
    /// The action says it failed.
    FAILED = "failed", "the action failed", "The message and the data say what the action reported.";
    /// Something else is at work.
    CONFLICT = "conflict", "something else is at work on the host",
        "Another program holds a lock that the action needs, such as the package manager's or a Puppet run's, and did not let go in time. The message says who. Try again later, or give it more time.";
    /// No such service.
    UNKNOWN_SERVICE = "unknown-service", "the host has no such service",
        "No service manager of the host knows the name. `muster run service.list match=PART` shows what it has.";
    /// Masked.
    SERVICE_MASKED = "service-masked", "the service is masked",
        "Somebody has masked the unit so that nothing may start it. Find out why; `systemctl unmask` on the host takes it back.";
    /// No way to reload.
    CANNOT_RELOAD = "cannot-reload", "the service has no way to reload",
        "Its unit or init script offers no reload, so nothing was done. Restart it if an interruption is acceptable.";
    /// The bytes are not those that were announced.
    CHECKSUM_MISMATCH = "checksum-mismatch", "the content does not have the checksum it should have",
        "The content that came, or the content that was there, is not what the command says. Nothing was changed.";
    /// A plugin's archive that nobody known has signed.
    UNTRUSTED_PACK = "untrusted-pack", "the plugin's archive is not signed by somebody this host trusts with that",
        "The archive has no signature, a wrong one, or one of somebody who is in none of the groups of `plugins.signers`. Pack it again with `muster plugin pack` as somebody who may.";
    /// More than a bound allows.
    LIMIT_EXCEEDED = "limit-exceeded", "more than the host allows",
        "The action would have gone beyond a bound of the host, such as the size of a file. The message says which.";
    /// A path that the plugin `file` may not touch.
    OUTSIDE_ROOTS = "outside-roots", "the path is not below a directory that the host has opened",
        "The host's administrator names the directories in `plugins.file.read_roots` and `plugins.file.write_roots`. Links that lead out of them are not followed.";
    /// Switched off by an administrator.
    DISABLED = "disabled", "it is switched off on the host",
        "An administrator of the host has disabled what the action needs, such as Puppet's runs; the message gives their reason. It can be enabled again, as with `muster run puppet.enable`, by somebody who knows that the reason is gone.";
    /// The plugin broke.
    PLUGIN_ERROR = "plugin-error", "the plugin itself broke",
        "The plugin crashed, panicked or answered what is not an answer. This is a bug of the plugin; the agent's log has more.";
    /// The program could not be started.
    START_FAILED = "start-failed", "the action's program could not be started",
        "It is missing, not executable, or the system had no room for it. Nothing ran.";
    /// The program was killed by a signal.
    SIGNALLED = "signalled", "the action's program was ended by a signal",
        "Something killed it: somebody, or the kernel for lack of memory. The message gives the signal.";
    /// The time limit passed.
    TIMED_OUT = "timed-out", "the action did not end within its time limit",
        "It was stopped together with everything it started. The limit is the DDL's, or `--timeout`.";
    /// Somebody cancelled it.
    CANCELLED = "cancelled", "somebody cancelled it", "The message says who. What was done until then stays done.";
    /// Nothing to cancel.
    NOT_RUNNING = "not-running", "the request does not run here",
        "It has ended, never came, or its id is wrong.";
    /// The agent went down in between.
    INTERRUPTED = "interrupted", "the agent or the host stopped while the action ran",
        "What the action did until then is not known. It is never run again by itself: look at the host, then decide.";
}

impl Code {
    /// The row with this code.
    #[must_use]
    pub fn find(code: &str) -> Option<&'static Self> {
        ALL.iter().find(|row| row.code == code)
    }

    /// Which outcome an agent that stops a command with this code reports.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match *self {
            OK | STILL_RUNNING => Outcome::Succeeded,
            FAILED | CONFLICT | UNKNOWN_SERVICE | SERVICE_MASKED | CANNOT_RELOAD | CHECKSUM_MISMATCH
            | LIMIT_EXCEEDED | DISABLED | PLUGIN_ERROR | START_FAILED | SIGNALLED => Outcome::Failed,
            TIMED_OUT => Outcome::TimedOut,
            CANCELLED => Outcome::Cancelled,
            INTERRUPTED => Outcome::Interrupted,
            UNSUPPORTED_VERSION | MALFORMED | UNSUPPORTED_FEATURE | BAD_TARGET | UNKNOWN_PLUGIN | UNKNOWN_ACTION
            | UNKNOWN_ARGUMENT | MISSING_ARGUMENT | INVALID_ARGUMENT | UNSUPPORTED_OPTION | UNKNOWN_USER
            | SECRET_NOT_SEALED | CANNOT_UNSEAL | UNKNOWN_REQUEST | NOT_ACTIVATED | NOT_RUNNING => Outcome::Invalid,
            _ => Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut seen = std::collections::BTreeSet::new();
        for row in ALL {
            assert!(seen.insert(row.code), "{} twice", row.code);
            assert!(row.code.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", row.code);
            assert!(!row.summary.ends_with('.') && row.explanation.ends_with('.'), "{}", row.code);
            assert_eq!(Code::find(row.code), Some(row));
        }
    }
}
