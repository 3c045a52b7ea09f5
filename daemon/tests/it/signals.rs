use muster_daemon::signals::{Request, Signals};
use nix::sys::signal::{Signal, raise};

/// One test, since signals are the whole process's.
#[tokio::test]
async fn the_first_signal_stops_and_the_second_ends() {
    let mut signals = Signals::install().unwrap();
    for (signal, expected) in [
        (Signal::SIGHUP, Request::Reload),
        (Signal::SIGTERM, Request::Stop),
        (Signal::SIGHUP, Request::Reload),
        (Signal::SIGINT, Request::EndNow),
        (Signal::SIGTERM, Request::EndNow),
    ] {
        raise(signal).unwrap();
        assert_eq!(signals.next().await, expected, "{signal}");
    }
}
