//! From the errors of lapin, rustls and the system to ours.

use std::io;

use lapin::ErrorKind;
use muster_protocol::Identity;
use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerMisbehaved};

use crate::error::{BusError, CloseReason, LoginProblem, Operation, TlsProblem};
use crate::url::BrokerUrl;

/// How an attempt to connect failed.
pub(super) enum Attempt {
    /// Nobody answered, or not as a broker; another address may do better.
    Network(String),
    /// A broker answered and refused, or cannot be trusted.
    Telling(BusError),
}

/// A failure of TCP.
pub(super) fn network(error: &io::Error) -> Attempt {
    Attempt::Network(match error.kind() {
        io::ErrorKind::ConnectionRefused => "refuses connections (nothing listens there)".to_owned(),
        io::ErrorKind::TimedOut => "does not answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "cannot be reached (no route)".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
            "hung up during the handshake".to_owned()
        }
        _ => error.to_string(),
    })
}

/// A failure of the TLS handshake.
pub(super) fn secure(error: &io::Error, url: &BrokerUrl) -> Attempt {
    match tls_error(error) {
        Some(tls) => Attempt::Telling(BusError::Tls { address: url.address(), problem: tls_problem(tls, url) }),
        None => network(error),
    }
}

/// A failure of the AMQP handshake. The broker checks our certificate only now, in TLS 1.3.
pub(super) fn connecting(error: &lapin::Error, url: &BrokerUrl, identity: &Identity) -> Attempt {
    match error.kind() {
        ErrorKind::IOError(error) => secure(error, url),
        ErrorKind::ProtocolError(error) => {
            let (code, why) = (error.get_id(), error.get_message().to_string());
            let problem = match code {
                403 => LoginProblem::Login { user: identity.to_string(), why },
                // RabbitMQ answers 503 to a mechanism it does not have.
                503 => LoginProblem::Login { user: identity.to_string(), why },
                402 | 530 => LoginProblem::Vhost { vhost: url.vhost().to_owned(), why },
                _ => LoginProblem::Session { why },
            };
            Attempt::Telling(BusError::Rejected { address: url.address(), problem })
        }
        ErrorKind::InvalidProtocolVersion(version) => {
            let why = format!("it speaks AMQP {version}, not 0-9-1");
            Attempt::Telling(BusError::Rejected { address: url.address(), problem: LoginProblem::Session { why } })
        }
        _ => Attempt::Network(error.to_string()),
    }
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn tls_problem(error: &TlsError, url: &BrokerUrl) -> TlsProblem {
    let handshake = |why: &str| TlsProblem::Handshake(why.to_owned());
    match error {
        TlsError::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsProblem::UnknownCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsProblem::NotYetValid,
            CertificateError::Revoked => TlsProblem::Revoked,
            CertificateError::NotValidForName => {
                TlsProblem::WrongName { expected: url.host().to_owned(), presented: Vec::new() }
            }
            CertificateError::NotValidForNameContext { presented, .. } => TlsProblem::WrongName {
                expected: url.host().to_owned(),
                presented: presented.iter().filter_map(|name| host_name(name)).collect(),
            },
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                TlsProblem::BadCertificate("it is not a broker's".to_owned())
            }
            other => TlsProblem::BadCertificate(other.to_string()),
        },
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA => {
                TlsProblem::OursRefused("it comes from a CA that the broker does not trust".to_owned())
            }
            AlertDescription::CertificateExpired => TlsProblem::OursRefused("it has expired".to_owned()),
            AlertDescription::CertificateRevoked => TlsProblem::OursRefused("it is revoked".to_owned()),
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => TlsProblem::OursRefused(format!("alert {alert:?}")),
            AlertDescription::ProtocolVersion => handshake("it does not offer TLS 1.3"),
            other => TlsProblem::Handshake(format!("it ended the TLS handshake with the alert {other:?}")),
        },
        TlsError::InvalidMessage(_) => handshake("it does not speak TLS on this port"),
        TlsError::PeerIncompatible(why) => TlsProblem::Handshake(format!("it offers no TLS that we accept ({why:?})")),
        TlsError::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
            handshake("it is no AMQP broker")
        }
        other => TlsProblem::Handshake(other.to_string()),
    }
}

/// The library writes names as `DnsName("web1")` or `IpAddress(127.0.0.1)`; other kinds name no host.
fn host_name(name: &str) -> Option<String> {
    let (kind, rest) = name.split_once('(').unwrap_or(("DnsName", name));
    let inner = rest.strip_suffix(')').unwrap_or(rest).trim_matches('"');
    matches!(kind, "DnsName" | "IpAddress").then(|| inner.to_owned())
}

/// Why a connection ended, from the error that ended it.
pub(super) fn close_reason(error: &lapin::Error) -> CloseReason {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            CloseReason::ByBroker { code: error.get_id(), text: error.get_message().to_string() }
        }
        ErrorKind::MissingHeartbeatError => CloseReason::HeartbeatMissed,
        ErrorKind::IOError(error) => CloseReason::Lost {
            why: match error.kind() {
                io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => "the broker hung up".to_owned(),
                _ => error.to_string(),
            },
        },
        _ => CloseReason::Lost { why: error.to_string() },
    }
}

/// What a failed operation means, if the broker refused it and the connection lives on.
pub(super) fn refusal(error: &lapin::Error, operation: Operation, resource: &str) -> Option<BusError> {
    let ErrorKind::ProtocolError(amqp) = error.kind() else { return None };
    if !error.is_amqp_soft_error() {
        return None;
    }
    let (resource, why) = (resource.to_owned(), amqp.get_message().to_string());
    Some(match amqp.get_id() {
        404 => BusError::NotFound { operation, resource, why },
        403 if why.contains("in exclusive use") => BusError::Conflict { operation, resource, why },
        403 => BusError::Denied { operation, resource, why },
        405 | 406 if operation != Operation::Publish => BusError::Conflict { operation, resource, why },
        405 | 406 => BusError::Denied { operation, resource, why },
        _ => BusError::Unexpected { operation, resource, why },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(error: CertificateError) -> TlsProblem {
        let url = "amqps://broker.example.com".parse().unwrap();
        let error = io::Error::new(io::ErrorKind::InvalidData, TlsError::InvalidCertificate(error));
        match secure(&error, &url) {
            Attempt::Telling(BusError::Tls { problem, .. }) => problem,
            _ => panic!("not a TLS problem"),
        }
    }

    #[test]
    fn certificate_errors_keep_their_meaning() {
        assert_eq!(certificate(CertificateError::UnknownIssuer), TlsProblem::UnknownCa);
        assert_eq!(certificate(CertificateError::Expired), TlsProblem::Expired);
        assert_eq!(certificate(CertificateError::NotValidYet), TlsProblem::NotYetValid);
        assert_eq!(certificate(CertificateError::Revoked), TlsProblem::Revoked);
        let wrong = certificate(CertificateError::NotValidForNameContext {
            expected: "broker.example.com".try_into().unwrap(),
            presented: [
                "UniformResourceIdentifier(\"muster:broker/b\")",
                "DnsName(\"other.example.com\")",
                "IpAddress(127.0.0.1)",
            ]
            .map(ToOwned::to_owned)
            .to_vec(),
        });
        assert_eq!(
            wrong.to_string(),
            "its certificate is not for `broker.example.com` but for `other.example.com`, `127.0.0.1`"
        );
    }

    #[test]
    fn alerts_are_about_our_certificate() {
        let url = "amqps://b".parse().unwrap();
        let error =
            io::Error::new(io::ErrorKind::InvalidData, TlsError::AlertReceived(AlertDescription::CertificateExpired));
        let Attempt::Telling(error) = secure(&error, &url) else { panic!("not telling") };
        assert_eq!(error.code(), "certificate-refused");
        assert_eq!(
            error.to_string(),
            "no secure session with the broker at `b:5671`: it does not accept our certificate: it has expired"
        );
    }
}
