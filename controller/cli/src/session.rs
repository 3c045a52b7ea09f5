//! From a context to a live controller, with every way in which that can fail said in the error form.

use std::io;
use std::path::Path;
use std::sync::Arc;

use muster_bus::{AmqpBus, AmqpSettings, BusError, LoginProblem, PublishError, TlsProblem};
use muster_client::cache::{read_bytes, write_bytes};
use muster_client::{ClientError, Controller, FailureClass, Parts, Pending, Summary};
use muster_daemon::SystemClock;
use muster_pki::memory::FILE_BYTES_MAX;
use muster_pki::{Credentials, PkiError, Trust, VerifyError};
use muster_protocol::{Command, Message as _, Timestamp};
use rand::SeedableRng as _;

use crate::context::Context;
use crate::output::{ExitCode, Failure, time};
use crate::remembered::{self, CERTIFICATES};

/// Who asks, and whose answers are believed. Needs no network.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// Certificate and key of the operator.
    pub(crate) credentials: Credentials,
    /// The CA and what it has revoked.
    pub(crate) trust: Trust,
}

impl Login {
    /// Loads the context's files and checks what hosts and broker will check, so that the answer
    /// comes at once and in plain words.
    ///
    /// # Errors
    /// Exit code 8: a file is missing or wrong, or the certificate is not one that can command now.
    pub(crate) fn load(context: &Context, now: Timestamp) -> Result<Self, Failure> {
        let credentials = Credentials::load(&context.certificate, &context.key)
            .map_err(|error| pki_failure(&error, context, "your certificate and key cannot be used"))?;
        let trust = Trust::load(&context.ca, context.crl.as_deref())
            .map_err(|error| pki_failure(&error, context, "the CA's files cannot be used"))?;
        if !credentials.identity().is_controller() {
            let what = format!("`{}` may not command: it is not a user or a service", credentials.identity().short());
            return Err(Failure::new(ExitCode::IdentityRejected, "not-a-controller", what)
                .why("from", context.certificate.display().to_string())
                .hint("muster explain not-a-controller"));
        }
        // Our own signature, checked as a host would check it.
        let signature = credentials.sign(Command::TYPE.as_str(), b"");
        trust
            .verify(Command::TYPE.as_str(), b"", &[signature], now)
            .map_err(|error| rejected(&error, &credentials, context, now))?;
        Ok(Self { credentials, trust })
    }

    /// The bus that this identity reaches the context's brokers through.
    pub(crate) fn bus(&self, context: &Context) -> AmqpBus {
        AmqpBus::new(AmqpSettings::new(context.broker.clone(), self.credentials.clone(), self.trust.clone()))
    }
}

impl Login {
    /// What a controller is made of.
    fn parts(self, context: &Context) -> Parts {
        Parts {
            bus: Arc::new(self.bus(context)),
            credentials: self.credentials,
            trust: self.trust,
            clock: Arc::new(SystemClock),
            random: rand::rngs::StdRng::from_rng(&mut rand::rng()),
            collective: context.collective.clone(),
        }
    }
}

/// An open session: a connected controller and the context it belongs to.
#[derive(Debug)]
pub(crate) struct Session {
    /// Asks the hosts.
    pub(crate) controller: Controller,
    /// Where it is connected to.
    pub(crate) context: Context,
}

impl Session {
    /// Logs in and connects.
    ///
    /// # Errors
    /// As [`Login::load`]; no broker answers (exit code 7) or it refuses this identity (8).
    pub(crate) async fn open(context: Context, now: Timestamp) -> Result<Self, Failure> {
        let login = Login::load(&context, now)?;
        match Controller::connect(login.parts(&context)).await {
            Ok(controller) => Ok(Self { controller, context }),
            Err(error) => Err(client_failure(&error, &context)),
        }
    }

    /// Connects as the session that a pending command names.
    ///
    /// # Errors
    /// The command is another caller's (exit code 8); otherwise as [`Self::open`].
    pub(crate) async fn open_for(context: Context, login: Login, pending: &Pending) -> Result<Self, Failure> {
        match Controller::connect_for(login.parts(&context), pending).await {
            Ok(controller) => Ok(Self { controller, context }),
            Err(error) => Err(client_failure(&error, &context)),
        }
    }

    /// Takes over the certificates that an earlier run has checked.
    pub(crate) fn recall(&self) {
        let path = remembered::directory(&self.context).map(|directory| directory.join(CERTIFICATES));
        if let Some(file) = path.and_then(|path| read_bytes(&path, FILE_BYTES_MAX)) {
            self.controller.recall(file);
        }
    }

    /// Keeps the certificates that were checked for the next run.
    ///
    /// # Errors
    /// They cannot be written. The file is dispensable, so callers only mention it.
    pub(crate) fn remember(&self) -> io::Result<()> {
        let Some(directory) = remembered::directory(&self.context) else { return Ok(()) };
        self.controller.to_memory().map_or(Ok(()), |file| write_bytes(&directory, CERTIFICATES, &file))
    }

    /// Closes the connection politely.
    pub(crate) async fn close(self) {
        self.controller.close().await;
    }
}

/// Exit 8: the context's certificate, key, CA or list cannot be used.
pub(crate) fn pki_failure(error: &PkiError, context: &Context, what: &str) -> Failure {
    if let PkiError::Read { path, source } = error
        && source.kind() == std::io::ErrorKind::NotFound
    {
        let what = format!("not logged in: context `{}` needs a file that is not there", context.name);
        return Failure::new(ExitCode::IdentityRejected, "not-logged-in", what)
            .why("missing", path.display().to_string())
            .why("need", "what `muster pki issue user/YOU --out DIR` wrote, from whoever keeps the CA")
            .hint(format!("muster context show {} --origin", context.name));
    }
    let what = format!("context `{}`: {what}", context.name);
    let failure = Failure::new(ExitCode::IdentityRejected, error.code(), what).because(error).hint("muster doctor");
    error.remedies().into_iter().rev().fold(failure, Failure::hint)
}

/// Exit 8: hosts would not believe this certificate.
fn rejected(error: &VerifyError, credentials: &Credentials, context: &Context, now: Timestamp) -> Failure {
    let who = credentials.identity().short();
    let code = error.code().code;
    let (not_before, not_after) = (credentials.not_before(), credentials.not_after());
    let what = match code {
        "expired-certificate" if now < not_before => format!("the certificate of `{who}` is not valid yet"),
        "expired-certificate" => format!("the certificate of `{who}` expired {}", time::ago(not_after, now)),
        "revoked-certificate" => format!("the certificate of `{who}` is revoked"),
        "untrusted-certificate" => {
            format!("the certificate of `{who}` does not come from the CA of context `{}`", context.name)
        }
        _ => format!("hosts would not believe the certificate of `{who}`"),
    };
    let path = |path: &Path| path.display().to_string();
    let failure = Failure::new(ExitCode::IdentityRejected, code, what)
        .why("why", error.to_string())
        .why("cert", path(&context.certificate))
        .why("valid", format!("{} to {}", time::rfc3339(not_before), time::rfc3339(not_after)));
    let failure = match code {
        "untrusted-certificate" => failure.why("ca", path(&context.ca)),
        _ => failure,
    };
    match code {
        "expired-certificate" if now >= not_after => failure.hint(format!("muster pki issue {who} --renew --out DIR")),
        _ => failure.hint(format!("muster explain {code}")),
    }
}

/// What is true of an error before anything could be sent.
const NOTHING_SENT: &str = "; nothing was sent";

/// A client's error in the error form. After something was to be sent it is [`failure_after`].
pub(crate) fn client_failure(error: &ClientError, context: &Context) -> Failure {
    if let ClientError::Pending(error) = error {
        return crate::pending::failure(error, None);
    }
    let exit = match error.class() {
        FailureClass::Usage => ExitCode::Usage,
        FailureClass::NoMatch => ExitCode::NoMatch,
        FailureClass::Unreachable => ExitCode::Unreachable,
        FailureClass::IdentityRejected => ExitCode::IdentityRejected,
    };
    let name = &context.name;
    let bus = match error {
        ClientError::Bus(error) | ClientError::Publish(PublishError::Bus(error)) => Some(error),
        _ => None,
    };
    let what = match bus {
        Some(BusError::Unreachable { .. }) => format!("no broker of context `{name}` answers; nothing was sent"),
        Some(BusError::Tls { problem: TlsProblem::OursRefused(_), .. }) => {
            format!("the broker of context `{name}` does not accept your certificate; nothing was sent")
        }
        Some(BusError::Tls { .. }) => format!("no secure session with a broker of context `{name}`; nothing was sent"),
        Some(BusError::Rejected { problem: LoginProblem::Vhost { vhost, .. }, .. }) => {
            format!(
                "the broker of context `{name}` lets nobody into its virtual host `{vhost}` like this; nothing was sent"
            )
        }
        Some(BusError::Rejected { .. }) => {
            format!("the broker of context `{name}` refuses your login; nothing was sent")
        }
        _ => error.to_string(),
    };
    let failure = Failure::new(exit, error.code(), what);
    let failure = match bus {
        Some(BusError::Unreachable { tries }) => {
            tries.iter().fold(failure, |failure, one| failure.why(one.address.clone(), one.why.clone()))
        }
        Some(BusError::Tls { address, problem }) => failure.why(address.clone(), problem.to_string()),
        Some(BusError::Rejected { address, problem }) => failure.why(address.clone(), problem.to_string()),
        _ => std::error::Error::source(error).map_or(failure.clone(), |source| failure.because(source)),
    };
    let failure = match bus {
        Some(BusError::Tls { problem: TlsProblem::UnknownCa, .. }) => expected_authorities(failure, &context.ca),
        _ => failure,
    };
    let note = match bus {
        // Who was pruned reads this too, and an import would not help.
        Some(BusError::Rejected { problem: LoginProblem::Login { .. }, .. }) => {
            format!("{} Or it was removed, for example because its certificate was revoked.", error.hint())
        }
        _ => error.hint().to_owned(),
    };
    let failure = failure.why("note", note);
    match crate::commands::dev::start_command(&context.ca) {
        Some(command) if matches!(bus, Some(BusError::Unreachable { .. })) => {
            failure.hint("muster doctor").hint(command)
        }
        _ => failure.hint("muster doctor"),
    }
}

/// The same for an error that came after something was to be sent: what is known of it is said, and no more.
pub(crate) fn failure_after(error: &ClientError, summary: &Summary, context: &Context) -> Failure {
    let mut failure = client_failure(error, context);
    let Some(what) = failure.what.strip_suffix(NOTHING_SENT) else { return failure };
    let known = known(summary.accepted, summary.counts.not_started, summary.counts.total());
    failure.what = format!("{what}{known}");
    failure
}

/// What is known of a request whose connection is gone. `not_sent` of its hosts were surely not sent anything.
fn known(accepted: bool, not_sent: usize, hosts: usize) -> &'static str {
    match accepted {
        true => "; what was sent goes on",
        false if hosts > 0 && not_sent == hosts => NOTHING_SENT,
        false => "; it is not known what was sent",
    }
}

/// Whose certificate was expected, so that it can be compared with what the broker says at its start.
fn expected_authorities(failure: Failure, ca: &Path) -> Failure {
    let failure = failure.why("ca", ca.display().to_string());
    let authorities = Trust::load(ca, None).map(|trust| trust.authorities()).unwrap_or_default();
    authorities.iter().fold(failure, |failure, authority| {
        failure.why("expected", format!("{}, fingerprint {}", authority.subject(), authority.fingerprint()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_said_of_a_request_that_lost_its_broker() {
        assert_eq!(known(true, 0, 3), "; what was sent goes on");
        assert_eq!(known(false, 3, 3), NOTHING_SENT);
        // The broker may have taken some of it, or all.
        assert_eq!(known(false, 2, 3), "; it is not known what was sent");
        assert_eq!(known(false, 0, 0), "; it is not known what was sent");
        // The words that are replaced are those of an error.
        let failure = client_failure(
            &ClientError::Bus(BusError::Unreachable { tries: Vec::new() }),
            &crate::context::sample("lab"),
        );
        assert!(failure.what.ends_with(NOTHING_SENT), "{}", failure.what);
    }
}
