//! What every bus must show, on this broker with real clients over TLS.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use muster_bus::Bus;
use muster_bus::contract::{CASES, Fixture};
use muster_protocol::Identity;

use crate::site::Site;

/// A case's part of the broker: its own identities.
struct Part {
    site: Arc<Site>,
    case: usize,
}

impl Fixture for Part {
    fn identity(&self, role: &str) -> Identity {
        let suffix = if role.starts_with("host/") { ".example.com" } else { "" };
        format!("{role}-{}{suffix}", self.case).parse().unwrap()
    }

    fn bus(&self, identity: &Identity) -> Arc<dyn Bus> {
        self.site.bus(identity)
    }

    fn disconnect<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, ()> {
        async move {
            // An operator is slower than an acknowledgement that its client has sent and not written yet.
            self.site.until_quiet(identity).await;
            assert!(self.site.server.close_connections(Some(identity), "cut by the test") > 0);
        }
        .boxed()
    }

    fn delete_queue<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        async move {
            self.site.server.delete_queue(name).unwrap();
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_keeps_the_contract_of_a_bus() {
    let site = Arc::new(Site::new());
    let failed: Vec<&str> = futures_util::stream::iter(CASES.iter().enumerate())
        .map(|(case, (name, run))| {
            let fixture = Part { site: Arc::clone(&site), case };
            async move {
                let result = AssertUnwindSafe(run(&fixture)).catch_unwind().await;
                eprintln!("{name}: {}", if result.is_ok() { "ok" } else { "FAILED" });
                result.is_err().then_some(*name)
            }
        })
        .buffer_unordered(4)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "{failed:?}");
}
