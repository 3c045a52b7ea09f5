//! Telling systemd how the agent is doing, sd_notify(3). Without systemd nothing happens.

use std::time::Duration;

use muster_agent::{Connection, Handle};
use muster_daemon::service_manager::{self, Notices};
use sd_notify::NotifyState;

/// How long to wait for a broker before the start counts as done all the same. An agent without a
/// broker works as it should: it tries on. systemd, which waits 90 s by default, must not take the
/// broker's absence for the agent's failure and restart it in a circle.
const READY_AT_LATEST: Duration = Duration::from_secs(60);

/// Beside the words for people: whether there is a connection, for whoever starts agents. systemd passes over names that
/// begin like this.
const CONNECTED: &str = "X_MUSTER_CONNECTED";

fn lines(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

fn tell(states: &[NotifyState<'_>]) {
    service_manager::tell(&lines(states));
}

/// Keeps systemd informed for as long as the agent runs.
pub(crate) async fn report(handle: Handle) {
    let mut connection = handle.connection();
    let mut ready = false;
    let (mut states, mut start) = (Notices::of_process(), Notices::of_process());
    let late = tokio::time::sleep(READY_AT_LATEST);
    tokio::pin!(late);
    let watchdog = sd_notify::watchdog_enabled();
    loop {
        let now = connection.borrow_and_update().clone();
        let status = match &now {
            Connection::Connecting { why } if why.is_empty() => "Connecting to the broker".to_owned(),
            Connection::Connecting { why } => format!("Not connected: {}", why.replace('\n', " ")),
            Connection::Online { broker, .. } => format!("Connected to {broker}"),
            Connection::Stopping => "Stopping".to_owned(),
        };
        let online = matches!(now, Connection::Online { .. });
        let connected = format!("{CONNECTED}={}\n", u8::from(online));
        states.say(&(lines(&[NotifyState::Status(&status)]) + &connected));
        if !ready && online {
            ready = true;
            start.say(&lines(&[NotifyState::Ready]));
        }
        loop {
            tokio::select! {
                biased;
                changed = connection.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                () = &mut late, if !ready => {
                    ready = true;
                    start.say(&lines(&[NotifyState::Ready]));
                }
                () = start.again() => {}
                () = states.again() => {}
                // Half the time that systemd gives, as it recommends. That this task gets its turn at
                // all shows that nothing blocks the agent's only thread.
                () = pause(watchdog.map(|limit| limit / 2)) => tell(&[NotifyState::Watchdog]),
            }
        }
    }
}

async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Says that the configuration is read again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Says that this is done.
pub(crate) fn reloaded(notices: &mut Notices) {
    notices.say(&lines(&[NotifyState::Ready]));
}

/// Says that the agent goes down, and how long that may take.
pub(crate) fn stopping(limit: Duration) {
    let limit_us = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(limit_us)]);
}
