//! Records as bytes.

use std::sync::Arc;

use amq_protocol::types::{AMQPValue, FieldArray, FieldTable};
use bytes::Bytes;
use proptest::prelude::*;

use crate::engine::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, Overflow, QueueLimits, QueueSpec};
use crate::journal::codec::{self, Entry};
use crate::journal::{Record, encode};
use crate::message::Message;

pub(super) fn enqueued(message: u64, expires_ms: Option<i64>, queues: &[&str], body: &[u8]) -> Record {
    let content = Message {
        exchange: "cmd".to_owned(),
        routing_key: "host.web1".to_owned(),
        properties: Bytes::from_static(b"\x90\x00\x04text\x02"),
        body: Bytes::copy_from_slice(body),
        persistent: true,
        expiration_ms: Some(60_000),
    };
    let queues = queues.iter().map(|queue| Arc::from(*queue)).collect();
    Record::Enqueued { message, expires_ms, content: Arc::new(content), queues }
}

pub(super) fn queue(name: &str) -> Record {
    let limits =
        QueueLimits { expires_ms: Some(86_400_000), overflow: Some(Overflow::DropHead), ..QueueLimits::default() };
    let (durable, exclusive, auto_delete) = (true, false, false);
    Record::QueueDeclared(Arc::new(QueueSpec { name: name.into(), durable, exclusive, auto_delete, limits }))
}

pub(super) fn bound(source: &str, name: &str, key: &str, arguments: FieldTable) -> Record {
    let destination = Destination::Queue(name.into());
    Record::Bound(Arc::new(BindingSpec { source: source.into(), destination, key: key.into(), arguments }))
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,40}".prop_map(Arc::from)
}

/// Values as a client can send them; the library writes other numbers of eight bytes as signed ones.
fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        Just(AMQPValue::Void),
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        "\\PC{0,600}".prop_map(|text| AMQPValue::LongString(text.into())),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let array = |values: Vec<AMQPValue>| {
            let mut array = FieldArray::default();
            values.into_iter().for_each(|value| array.push(value));
            AMQPValue::FieldArray(array)
        };
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(array),
            prop::collection::vec(("[a-z]{1,8}", inner), 0..4).prop_map(|pairs| AMQPValue::FieldTable(table(pairs))),
        ]
    })
}

fn table(pairs: Vec<(String, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

fn binding() -> impl Strategy<Value = Arc<BindingSpec>> {
    let arguments = prop::collection::vec(("[a-z-]{1,8}", value()), 0..4).prop_map(table);
    (name(), name(), name(), any::<bool>(), arguments).prop_map(|(source, to, key, is_queue, arguments)| {
        let destination = if is_queue { Destination::Queue(to) } else { Destination::Exchange(to) };
        Arc::new(BindingSpec { source, destination, key, arguments })
    })
}

fn record() -> impl Strategy<Value = Record> {
    let number = || prop::option::of(0..=u64::MAX - 1);
    let kind = prop_oneof![Just(ExchangeKind::Direct), Just(ExchangeKind::Fanout), Just(ExchangeKind::Topic)];
    let exchange = (name(), kind, any::<[bool; 3]>()).prop_map(|(name, kind, [durable, auto_delete, internal])| {
        Record::ExchangeDeclared(Arc::new(ExchangeSpec { name, kind, durable, auto_delete, internal }))
    });
    let overflow = prop::option::of(prop_oneof![Just(Overflow::DropHead), Just(Overflow::RejectPublish)]);
    let limits = (number(), number(), number(), number(), overflow);
    let limits = limits.prop_map(|(expires_ms, message_ttl_ms, length_max, bytes_max, overflow)| QueueLimits {
        expires_ms,
        message_ttl_ms,
        length_max,
        bytes_max,
        overflow,
    });
    let queue = (name(), any::<[bool; 3]>(), limits).prop_map(|(name, [durable, exclusive, auto_delete], limits)| {
        Record::QueueDeclared(Arc::new(QueueSpec { name, durable, exclusive, auto_delete, limits }))
    });
    let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let content = ("\\PC{0,20}", "\\PC{0,20}", bytes(), bytes(), any::<bool>(), number());
    let content = content.prop_map(|(exchange, routing_key, properties, body, persistent, expiration_ms)| {
        Arc::new(Message { exchange, routing_key, properties, body, persistent, expiration_ms })
    });
    let queues = prop::collection::vec(name(), 0..5);
    let enqueued = (any::<u64>(), prop::option::of(0..=i64::MAX), content, queues);
    let enqueued = enqueued.prop_map(|(message, expires_ms, content, queues)| Record::Enqueued {
        message,
        expires_ms,
        content,
        queues,
    });
    prop_oneof![
        exchange,
        name().prop_map(|name| Record::ExchangeDeleted { name }),
        queue,
        name().prop_map(|name| Record::QueueDeleted { name }),
        binding().prop_map(Record::Bound),
        binding().prop_map(Record::Unbound),
        enqueued,
        (any::<u64>(), name()).prop_map(|(message, queue)| Record::Removed { message, queue }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(record in record()) {
        prop_assert_eq!(codec::decode(&encode(&record)), Ok(Entry::Record(record)));
    }

    #[test]
    fn no_bytes_are_two_records_and_none_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Entry::Record(record)) = codec::decode(&bytes) {
            // Flags and numbers have one form; only AMQP's tables have several.
            if !matches!(record, Record::Bound(_) | Record::Unbound(_)) {
                prop_assert_eq!(encode(&record), bytes);
            }
        }
    }

    #[test]
    fn a_record_that_is_cut_or_longer_is_none(record in record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encode(&record);
        prop_assert!(codec::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(codec::decode(&bytes).is_err());
    }
}

#[test]
fn arguments_that_nest_too_deep_are_refused_and_not_recursed_into() {
    // Arrays in arrays: five bytes a level, far more than a thread's stack has room for.
    let mut inner = vec![];
    for _ in 0..50_000 {
        let mut outer = vec![b'A'];
        outer.extend_from_slice(&u32::try_from(inner.len()).unwrap().to_be_bytes());
        outer.append(&mut inner);
        inner = outer;
    }
    let mut arguments = vec![1, b'a'];
    arguments.append(&mut inner);
    let empty = BindingSpec {
        source: "cmd".into(),
        destination: Destination::Queue("agent.web1".into()),
        key: "all".into(),
        arguments: FieldTable::default(),
    };
    let mut bytes = encode(&Record::Bound(Arc::new(empty)));
    bytes.truncate(bytes.len() - 4);
    bytes.extend_from_slice(&u32::try_from(arguments.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&arguments);
    assert!(codec::decode(&bytes).unwrap_err().0.contains("nest"));
}

#[test]
fn the_bytes_of_each_kind_of_record_stay_as_they_are() {
    let hex = |record: &Record| encode(record).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let name: Arc<str> = "agent.web1".into();
    let exchange =
        ExchangeSpec { name: "x".into(), kind: ExchangeKind::Topic, durable: true, auto_delete: false, internal: true };
    let arguments = table(vec![("a".to_owned(), AMQPValue::LongInt(-1))]);
    for (record, expected) in [
        (Record::ExchangeDeclared(Arc::new(exchange)), "0201780205"),
        (Record::ExchangeDeleted { name: "x".into() }, "030178"),
        (queue("agent.web1"), "040a6167656e742e776562310181b8992900000001"),
        (Record::QueueDeleted { name: name.clone() }, "050a6167656e742e77656231"),
        (
            bound("cmd", "agent.web1", "all", arguments),
            "06000a6167656e742e7765623103636d6403616c6c00000007016149ffffffff",
        ),
        (
            enqueued(300, Some(1_000), &["agent.web1"], b"body"),
            "08ac02e90703636d6409686f73742e7765623108900004746578740204626f647901e1d403010a6167656e742e77656231",
        ),
        (Record::Removed { message: 300, queue: name }, "09ac020a6167656e742e77656231"),
    ] {
        assert_eq!(hex(&record), expected, "{record:?}");
    }
}
