//! Secret arguments go out sealed, to hosts that gave a key, and to nobody else.

use std::sync::{Arc, Mutex};

use muster_client::secrets::{self, Secrets};
use muster_client::testing::{Fleet, Say, behaving};
use muster_client::{Audience, ClientError};
use muster_pki::sealing::SealingKey;
use muster_protocol::{Command, HostName, Outcome, SealingContext};
use serde_json::{Value, json};

use crate::asking::{names, question};

fn secret(value: &str) -> Secrets {
    let Value::Object(values) = json!({"password": value}) else { unreachable!() };
    Secrets::new(values)
}

#[tokio::test(start_paused = true)]
async fn only_the_host_opens_what_was_sealed_to_it() {
    let fleet = Fleet::new();
    let (one, other) = (Arc::new(SealingKey::generate().unwrap()), SealingKey::generate().unwrap());
    let seen: Arc<Mutex<Vec<Command>>> = Arc::default();
    let (key, note) = (Arc::clone(&one), Arc::clone(&seen));
    let behaviour = behaving(move |host, command| {
        if command.action.as_str() == "run" {
            note.lock().unwrap().push(command.clone());
        }
        vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, json!(null)))]
    });
    fleet.hosts(&["old1"], json!({}), behaviour.clone()).await;
    let with_key = Arc::new(move |host: &muster_client::testing::FakeHost, command: &Command| {
        if command.action.as_str() == "sealing_key" {
            let data = json!({"sealing_key": key.public().to_string()});
            return vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, data))];
        }
        behaviour(host, command)
    });
    fleet.hosts(&["web1", "web2"], json!({}), with_key).await;
    let mut controller = fleet.controller().await;
    let hosts = names(&["web1", "web2", "old1", "gone"]);
    let (keys, without) = secrets::keys(controller.ask(&secrets::question(hosts)).unwrap().finish().await);
    assert_eq!(keys.keys().map(HostName::as_str).collect::<Vec<_>>(), ["web1", "web2"]);
    assert_eq!(without.keys().map(HostName::as_str).collect::<Vec<_>>(), ["gone", "old1"]);

    let mut question = question(&["web1", "web2"]);
    question.secrets = secret("hunter2");
    question.sealing_keys = keys;
    let summary = controller.ask(&question).unwrap().finish().await;
    assert_eq!(summary.counts.succeeded, 2);
    let seen = seen.lock().unwrap();
    for command in seen.iter() {
        assert!(!serde_json::to_string(command).unwrap().contains("hunter2"));
        assert!(command.arguments.is_empty());
        assert_eq!(command.requires, ["sealed"]);
        let sealed = command.sealed.as_ref().unwrap();
        let context = SealingContext {
            request_id: command.id,
            caller: &command.caller,
            plugin: &command.plugin,
            action: &command.action,
        };
        let host = HostName::new("web1").unwrap();
        assert_eq!(Value::Object(one.open(sealed, &host, &context).unwrap().clone()), json!({"password": "hunter2"}));
        assert!(other.open(sealed, &host, &context).is_err());
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_or_without_names_nothing_is_sent() {
    let fleet = Fleet::new();
    let mut controller = fleet.controller().await;
    let mut asked = question(&["web1"]);
    asked.secrets = secret("x");
    let error = controller.ask(&asked).unwrap_err();
    assert!(matches!(&error, ClientError::NoSealingKey { host: Some(host) } if host.as_str() == "web1"), "{error:?}");
    asked.audience = Audience::Everyone;
    let error = controller.ask(&asked).unwrap_err();
    assert!(matches!(error, ClientError::NoSealingKey { host: None }), "{error:?}");
}
