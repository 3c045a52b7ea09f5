//! The way to the brokers: names, connections, TLS, login, permissions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_bus::{AmqpBus, AmqpSettings, BrokerUrl, Bus as _, BusError};
use muster_client::{ClientError, Controller, Parts};
use muster_daemon::SystemClock;
use rand::SeedableRng as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Check, Report};
use crate::context::Context;
use crate::output::number::counted;
use crate::output::{ExitCode, Failure};
use crate::session::{Login, Session, client_failure};

/// How long a name or a connection may take: far more than either needs where it works.
const PATIENCE: Duration = Duration::from_secs(5);

/// Resolves every broker's name and connects to every address. Whether at least one answers.
pub(super) async fn reach(context: &Context, report: &mut Report<'_>) -> bool {
    let mut addresses: Vec<(&BrokerUrl, SocketAddr)> = Vec::new();
    let mut unknown = Vec::new();
    for url in &context.broker {
        match resolve(url).await {
            Ok(found) => addresses.extend(found.into_iter().map(|address| (url, address))),
            Err(why) => unknown.push((url.host().to_owned(), why)),
        }
    }
    report.add(names(&addresses, unknown));
    if addresses.is_empty() {
        return false;
    }
    let mut refused = Vec::new();
    for (url, address) in &addresses {
        if let Err(why) = connect(*address).await {
            refused.push((shown(url, *address), why));
        }
    }
    let answering = addresses.len() - refused.len();
    let what = match (answering, addresses.len()) {
        (0, _) => "no address answers".to_owned(),
        (all, total) if all == total => format!("{} answering", counted(total, "address", "addresses")),
        (some, total) => format!("{some} of {total} addresses answer"),
    };
    let failure = refused
        .into_iter()
        .fold(Failure::new(ExitCode::Unreachable, "broker-unreachable", &what), |failure, (label, why)| {
            failure.why(label, why)
        })
        .hint("start the broker, or open its port in the firewall");
    report.add(match (answering, answering == addresses.len()) {
        (_, true) => Check::ok("network", what),
        (0, _) => Check::failed("network", &failure),
        // The others do the work, but one day they will not.
        _ => Check { exit: ExitCode::Success, status: super::Status::Warning, ..Check::failed("network", &failure) },
    });
    answering > 0
}

async fn resolve(url: &BrokerUrl) -> Result<Vec<SocketAddr>, String> {
    match timeout(PATIENCE, lookup_host((url.host(), url.port()))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer from the name service within {} s", PATIENCE.as_secs())),
    }
}

fn names(addresses: &[(&BrokerUrl, SocketAddr)], unknown: Vec<(String, String)>) -> Check {
    if unknown.is_empty() {
        let shown: Vec<String> = addresses.iter().map(|(url, address)| shown(url, *address)).collect();
        return Check::ok("names", shown.join(", "));
    }
    let what = format!("{} cannot be resolved", counted(unknown.len(), "broker name", "broker names"));
    let failure = unknown
        .into_iter()
        .fold(Failure::new(ExitCode::Unreachable, "broker-unreachable", what), |failure, (host, why)| {
            failure.why(host, why)
        });
    let check = Check::failed("names", &failure.hint("correct `broker` in the context, or the name service"));
    match addresses.is_empty() {
        true => check,
        false => Check { exit: ExitCode::Success, status: super::Status::Warning, ..check },
    }
}

fn shown(url: &BrokerUrl, address: SocketAddr) -> String {
    match url.host() == address.ip().to_string() {
        true => address.to_string(),
        false => format!("{} is {address}", url.host()),
    }
}

async fn connect(address: SocketAddr) -> Result<(), String> {
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Logs in to each broker, then opens a session. `None` where that fails.
pub(super) async fn log_in(context: &Context, login: Login, report: &mut Report<'_>) -> Option<Session> {
    let mut good = Vec::new();
    let mut wrong: Vec<(BrokerUrl, BusError)> = Vec::new();
    for url in &context.broker {
        let settings = AmqpSettings::new(vec![url.clone()], login.credentials.clone(), login.trust.clone());
        match AmqpBus::new(settings).connect().await {
            Ok(link) => {
                link.close().await;
                good.push(url.address());
            }
            Err(error) => wrong.push((url.clone(), error)),
        }
    }
    let who = login.credentials.identity().short();
    match (good.is_empty(), wrong.into_iter().next()) {
        (true, Some((_, error))) => {
            report.add(Check::failed("login", &client_failure(&ClientError::Bus(error), context)));
            return None;
        }
        (false, Some((url, error))) => {
            let what = format!("{who} at {}, but not at {}", good.join(", "), url.address());
            let mut check = Check::warning("login", what, error.hint());
            check.why = vec![error.to_string()];
            report.add(check);
        }
        (_, None) => report.add(Check::ok("login", format!("{who} at {}, TLS 1.3 both ways", good.join(", ")))),
    }
    let parts = Parts {
        bus: Arc::new(login.bus(context)),
        credentials: login.credentials,
        trust: login.trust,
        clock: Arc::new(SystemClock),
        random: rand::rngs::StdRng::from_rng(&mut rand::rng()),
        collective: context.collective.clone(),
    };
    match Controller::connect(parts).await {
        Ok(controller) => Some(Session { controller, context: context.clone() }),
        Err(error) => {
            report.add(Check::failed("permissions", &client_failure(&error, context).hint("muster broker check")));
            None
        }
    }
}
