//! What is encoded decodes to the same, for any message.

use muster_protocol::{
    AccumulatedProgressReport, ActionResult, Announcement, AnnouncementKind, Cancel, Command, Encoding, HostName,
    Identity, InstalledPlugin, Inventory, Message, Options, Outcome, OutputChunk, OutputStream, ProgressReport,
    ProtocolVersion, ReplyRoute, ReportState, RequestId, Target, Timestamp, decode, encode,
};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn short<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z0-9][a-z0-9_-]{0,62}".prop_map(|text| text.parse().unwrap())
}

fn host() -> impl Strategy<Value = HostName> {
    "[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9])?(\\.[a-z]{1,10}){0,3}".prop_map(|text| text.parse().unwrap())
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (0..1_i64 << 48, any::<[u8; 10]>()).prop_map(|(time, random)| RequestId::from_parts(Timestamp(time), random))
}

fn controller() -> impl Strategy<Value = Identity> {
    prop_oneof![short().prop_map(Identity::User), short().prop_map(Identity::Service)]
}

fn sender() -> impl Strategy<Value = (Identity, ReplyRoute)> {
    (controller(), "[a-z0-9][a-z0-9_-]{0,31}".prop_map(|text| text.parse().unwrap())).prop_map(|(caller, session)| {
        let route = ReplyRoute::new(caller.clone(), session).unwrap();
        (caller, route)
    })
}

fn window() -> impl Strategy<Value = (Timestamp, Timestamp)> {
    (any::<i32>(), 1..=86_400_000_i64).prop_map(|(start, length)| {
        let created = Timestamp(i64::from(start) * 1_000);
        (created, created.plus_ms(length))
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any::<String>(), json(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn target() -> impl Strategy<Value = Target> {
    let hosts = || prop::collection::btree_set(host(), 1..5);
    prop_oneof![
        Just(Target::everyone()),
        hosts().prop_map(Target::named),
        any::<String>().prop_map(Target::matching),
        (hosts(), any::<String>()).prop_map(|(hosts, filter)| Target { all: false, hosts, filter: Some(filter) }),
    ]
}

fn requires() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any::<String>(), 0..=16)
}

fn options() -> impl Strategy<Value = Options> {
    (any::<bool>(), prop::option::of("[a-zäöü0-9_-]{1,64}"), prop::option::of(1..=u64::MAX), any::<bool>())
        .prop_map(|(noop, effective_user, timeout_ms, progress)| Options { noop, effective_user, timeout_ms, progress })
}

fn command() -> impl Strategy<Value = Command> {
    ((request_id(), sender(), window(), short(), target()), (short(), short(), object(), options(), requires()))
        .prop_map(|((id, (caller, reply_to), (created_at_ms, expires_at_ms), collective, target), rest)| {
            let (plugin, action, arguments, options, requires) = rest;
            Command {
                protocol: ProtocolVersion::V1,
                id,
                caller,
                created_at_ms,
                expires_at_ms,
                collective,
                target,
                plugin,
                action,
                arguments,
                sealed: None,
                options,
                reply_to,
                requires,
            }
        })
}

fn cancel() -> impl Strategy<Value = Cancel> {
    (command(), request_id()).prop_map(|(command, request_id)| Cancel {
        protocol: command.protocol,
        id: command.id,
        request_id,
        caller: command.caller,
        created_at_ms: command.created_at_ms,
        expires_at_ms: command.expires_at_ms,
        collective: command.collective,
        target: command.target,
        reply_to: command.reply_to,
        requires: command.requires,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => prop::sample::select(vec!["succeeded", "failed", "timed_out", "refused", "invalid", "cancelled", "interrupted"]),
        1 => Just("postponed"),
    ]
    .prop_map(|word| Outcome::from(word.to_owned()))
}

fn result() -> impl Strategy<Value = ActionResult> {
    (outcome(), any::<String>(), any::<String>(), any::<Option<i32>>(), json(), any::<Option<u64>>(), any::<u64>())
        .prop_map(|(outcome, code, message, exit_code, data, truncated_from_bytes, duration_ms)| ActionResult {
            outcome,
            code,
            message,
            exit_code,
            data,
            truncated_from_bytes,
            duration_ms,
        })
}

fn output() -> impl Strategy<Value = Vec<OutputChunk>> {
    let chunk =
        (any::<bool>(), any::<u64>(), any::<bool>(), any::<String>()).prop_map(|(stdout, offset, text, data)| {
            OutputChunk {
                stream: if stdout { OutputStream::Stdout } else { OutputStream::Stderr },
                offset,
                encoding: if text { Encoding::Text } else { Encoding::Base64 },
                data,
            }
        });
    prop::collection::vec(chunk, 0..4)
}

fn report() -> impl Strategy<Value = ProgressReport> {
    (request_id(), controller(), host(), any::<u32>(), any::<i64>(), output(), prop::option::of(result())).prop_map(
        |(request_id, caller, host, sequence, created, output, result)| ProgressReport {
            protocol: ProtocolVersion::V1,
            request_id,
            caller,
            host,
            sequence,
            created_at_ms: Timestamp(created),
            state: if result.is_some() { ReportState::Finished } else { ReportState::Running },
            output,
            result,
        },
    )
}

fn accumulated() -> impl Strategy<Value = AccumulatedProgressReport> {
    (report(), any::<(u32, u32, u32)>()).prop_map(|(report, (one, other, missing_reports))| AccumulatedProgressReport {
        protocol: report.protocol,
        request_id: report.request_id,
        host: report.host,
        sequence: report.sequence,
        first_report: one.min(other),
        last_report: one.max(other),
        missing_reports,
        created_at_ms: report.created_at_ms,
        state: report.state,
        output: report.output,
        success: report.result.as_ref().map(|result| result.outcome == Outcome::Succeeded),
        result: report.result,
    })
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let plugin = (short(), any::<String>()).prop_map(|(name, version)| InstalledPlugin { name, version });
    (
        prop::collection::btree_set(short(), 0..3),
        prop::collection::btree_set(any::<String>(), 0..3),
        prop::collection::vec(plugin, 0..3),
        object(),
    )
        .prop_map(|(collectives, classes, plugins, facts)| Inventory { collectives, classes, plugins, facts })
}

fn announcement() -> impl Strategy<Value = Announcement> {
    let kind = prop::sample::select(vec!["online", "alive", "offline", "dreaming"])
        .prop_map(|word| AnnouncementKind::from(word.to_owned()));
    (host(), kind, any::<i64>(), any::<i64>(), any::<String>(), "[0-9a-f]{0,128}", prop::option::of(inventory()))
        .prop_map(|(host, kind, created, started, agent_version, inventory_digest, inventory)| Announcement {
            protocol: ProtocolVersion::V1,
            host,
            kind,
            created_at_ms: Timestamp(created),
            started_at_ms: Timestamp(started),
            agent_version,
            inventory_digest,
            inventory,
            profile: None,
        })
}

/// Decodes to the same, also when a newer program has added fields anywhere an object of ours may have them.
fn check<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let body = encode(message).unwrap();
    prop_assert_eq!(&decode::<M>(&body).unwrap(), message);

    let mut newer: Value = serde_json::from_slice(&body).unwrap();
    let fields = newer.as_object_mut().unwrap();
    fields.insert("future_field".to_owned(), serde_json::json!({"a": [1]}));
    for name in ["target", "options", "result"] {
        if let Some(inner) = fields.get_mut(name).and_then(Value::as_object_mut) {
            inner.insert("future_field".to_owned(), Value::Null);
        }
    }
    prop_assert_eq!(&decode::<M>(&serde_json::to_vec(&newer).unwrap()).unwrap(), message);
    Ok(())
}

proptest! {
    #[test]
    fn commands(message in command()) {
        check(&message)?;
    }

    #[test]
    fn cancels(message in cancel()) {
        check(&message)?;
    }

    #[test]
    fn reports(message in report()) {
        check(&message)?;
    }

    #[test]
    fn accumulated_reports(message in accumulated()) {
        check(&message)?;
    }

    #[test]
    fn announcements(message in announcement()) {
        check(&message)?;
    }

    #[test]
    fn any_bytes_end_in_a_message_or_an_error(body in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(decode::<Command>(&body).is_err());
        prop_assert!(decode::<ProgressReport>(&body).is_err());
    }

    #[test]
    fn a_damaged_message_ends_in_a_message_or_an_error(
        message in command(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut body = encode(&message).unwrap();
        let at = at.index(body.len());
        if cut {
            body.truncate(at);
            prop_assert!(decode::<Command>(&body).is_err(), "half a message is none");
        } else {
            body[at] = byte;
            if let Ok(other) = decode::<Command>(&body) {
                prop_assert!(other.check().is_ok());
            }
        }
    }
}
