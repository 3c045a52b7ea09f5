//! The plugin `fleet`, which does what a test asks of it, and the ledger of everything it did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, Plugin};
use muster_protocol::ddl::Ddl;
use muster_protocol::{HostName, OutputStream, RequestId};
use serde_json::json;

/// How often each request started on each host. All plugins of a fleet write into one.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<(HostName, RequestId), u32>>>);

impl Ledger {
    /// How many actions were started.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.lock().values().map(|count| usize::try_from(*count).unwrap_or(usize::MAX)).sum()
    }

    /// Requests that started more than once on a host. There must be none.
    #[must_use]
    pub fn twice(&self) -> Vec<(HostName, RequestId)> {
        self.lock().iter().filter(|(_, count)| **count > 1).map(|(key, _)| key.clone()).collect()
    }

    fn note(&self, host: &HostName, id: RequestId) {
        *self.lock().entry((host.clone(), id)).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(HostName, RequestId), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plugin.
///
/// | action | what it does |
/// |---|---|
/// | `change`, `read` | waits `ms` milliseconds |
/// | `talk` | writes `bytes` bytes in pieces of at most 64 KiB |
#[derive(Debug)]
pub struct FleetPlugin {
    ddl: Ddl,
    ledger: Ledger,
}

impl FleetPlugin {
    /// A plugin that writes into this ledger.
    ///
    /// # Panics
    /// Never: its description is valid.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ddl: Ddl::parse(&description()).expect("the description is valid"), ledger }
    }
}

/// The plugin's description, for command lines that are to know it.
#[must_use]
pub fn description() -> String {
    let number = json!({ "type": "integer", "prompt": "", "description": "", "optional": true, "default": 0 });
    let action = |name: &str, read_only: bool, input: serde_json::Value| {
        json!({
            "action": name, "description": "For tests of fleets", "display": "always", "input": input, "output": {},
            "muster": {
                "read_only": read_only, "timeout_s": 600,
                "supports": { "noop": false, "effective_user": false, "cancel": true, "stream": true }
            }
        })
    };
    json!({
        "metadata": {
            "name": "fleet", "description": "Does what a test asks of it", "version": "1.0.0",
            "author": "The Muster authors", "license": "Apache-2.0 OR MIT", "url": "", "timeout": 600
        },
        "actions": [
            action("change", false, json!({ "ms": number })),
            action("read", true, json!({ "ms": number })),
            action("talk", true, json!({ "bytes": number })),
        ],
    })
    .to_string()
}

/// Bytes of one piece of output.
const PIECE_BYTES: u64 = 64 * 1024;

impl Plugin for FleetPlugin {
    fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            self.ledger.note(context.host.host(), request.request_id);
            let number = |name: &str| request.arguments.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
            match request.action.as_str() {
                "change" | "read" => tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(number("ms"))) => {}
                    () = context.cancel.cancelled() => return Err(ActionFailure::failed("told to stop")),
                },
                "talk" => {
                    let mut left = number("bytes");
                    while left > 0 && !context.cancel.is_cancelled() {
                        let piece = left.min(PIECE_BYTES);
                        let bytes = vec![b'x'; usize::try_from(piece).unwrap_or_default()];
                        context.output.write(OutputStream::Stdout, bytes).await;
                        left -= piece;
                    }
                }
                _ => return Err(ActionFailure::unknown_action(&request.action)),
            }
            Ok(ActionOk::data(json!({ "done": true })))
        })
    }
}
