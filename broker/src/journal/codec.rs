//! Records as bytes.
//!
//! A kind, then the fields in their order: numbers as LEB128, texts and bytes behind their length, tables of arguments as
//! AMQP writes them. The same record always gives the same bytes, so the bytes of a binding name it.

use std::sync::Arc;

use amq_protocol::types::FieldTable;
use amq_protocol::types::generation::gen_field_table;
use amq_protocol::types::parsing::parse_field_table;
use bytes::Bytes;

use super::record::Record;
use crate::engine::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, Overflow, QueueLimits, QueueSpec};
use crate::message::Message;

/// Deepest nesting of tables and arrays in arguments. The library that reads them recurses.
const NESTING_MAX: u32 = 32;

/// What a record is about. The numbers are on disks: none is given a second meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Commit = 1,
    ExchangeDeclared = 2,
    ExchangeDeleted = 3,
    QueueDeclared = 4,
    QueueDeleted = 5,
    Bound = 6,
    Unbound = 7,
    Enqueued = 8,
    Removed = 9,
}

/// What a frame of a segment says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    /// Everything since the last one counts, from now on.
    Commit(Commit),
    /// A change.
    Record(Record),
}

/// The end of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    /// How much of the segment was surely on the disk before this group was written.
    pub(super) synced: u64,
    /// The oldest segment that is still needed.
    pub(super) oldest: u64,
}

/// Why bytes with a right checksum are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

type Decoded<T> = Result<T, Malformed>;

/// Appends numbers, texts and bytes.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    fn kind(&mut self, kind: Kind) {
        self.0.push(kind as u8);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn flags(&mut self, flags: &[bool]) {
        self.0.push(flags.iter().rev().fold(0, |sum, flag| (sum << 1) | u8::from(*flag)));
    }

    fn optional(&mut self, number: Option<u64>) {
        // 0 is none; nothing that is counted here reaches the last number.
        self.number(number.map_or(0, |number| number.saturating_add(1)));
    }

    pub(super) fn commit(&mut self, commit: Commit) {
        self.kind(Kind::Commit);
        self.number(commit.synced);
        self.number(commit.oldest);
    }

    pub(super) fn exchange_declared(&mut self, spec: &ExchangeSpec) {
        self.kind(Kind::ExchangeDeclared);
        self.bytes(spec.name.as_bytes());
        self.0.push(match spec.kind {
            ExchangeKind::Direct => 0,
            ExchangeKind::Fanout => 1,
            ExchangeKind::Topic => 2,
        });
        self.flags(&[spec.durable, spec.auto_delete, spec.internal]);
    }

    pub(super) fn exchange_deleted(&mut self, name: &str) {
        self.kind(Kind::ExchangeDeleted);
        self.bytes(name.as_bytes());
    }

    pub(super) fn queue_declared(&mut self, spec: &QueueSpec) {
        self.kind(Kind::QueueDeclared);
        self.bytes(spec.name.as_bytes());
        self.flags(&[spec.durable, spec.exclusive, spec.auto_delete]);
        let QueueLimits { expires_ms, message_ttl_ms, length_max, bytes_max, overflow } = spec.limits;
        for limit in [expires_ms, message_ttl_ms, length_max, bytes_max] {
            self.optional(limit);
        }
        self.0.push(match overflow {
            None => 0,
            Some(Overflow::DropHead) => 1,
            Some(Overflow::RejectPublish) => 2,
        });
    }

    pub(super) fn queue_deleted(&mut self, name: &str) {
        self.kind(Kind::QueueDeleted);
        self.bytes(name.as_bytes());
    }

    /// Everything that tells one binding from another, where it leads first.
    pub(super) fn binding(&mut self, spec: &BindingSpec) {
        self.destination(&spec.destination);
        self.bytes(spec.source.as_bytes());
        self.bytes(spec.key.as_bytes());
        self.0.extend_from_slice(&table_bytes(&spec.arguments));
    }

    pub(super) fn destination(&mut self, destination: &Destination) {
        let (kind, name) = match destination {
            Destination::Queue(name) => (0, name),
            Destination::Exchange(name) => (1, name),
        };
        self.0.push(kind);
        self.bytes(name.as_bytes());
    }

    pub(super) fn bound(&mut self, binding: &[u8]) {
        self.kind(Kind::Bound);
        self.0.extend_from_slice(binding);
    }

    pub(super) fn unbound(&mut self, binding: &[u8]) {
        self.kind(Kind::Unbound);
        self.0.extend_from_slice(binding);
    }

    pub(super) fn enqueued<'q>(
        &mut self,
        message: u64,
        expires_ms: Option<i64>,
        content: &Message,
        queues: impl ExactSizeIterator<Item = &'q str>,
    ) {
        self.kind(Kind::Enqueued);
        self.number(message);
        // No time before 1970 is a time of expiry.
        self.optional(expires_ms.map(|at| u64::try_from(at).unwrap_or(0)));
        self.bytes(content.exchange.as_bytes());
        self.bytes(content.routing_key.as_bytes());
        self.bytes(&content.properties);
        self.bytes(&content.body);
        self.flags(&[content.persistent]);
        self.optional(content.expiration_ms);
        self.number(queues.len() as u64);
        for queue in queues {
            self.bytes(queue.as_bytes());
        }
    }

    pub(super) fn removed(&mut self, message: u64, queue: &str) {
        self.kind(Kind::Removed);
        self.number(message);
        self.bytes(queue.as_bytes());
    }
}

/// AMQP's bytes of a table.
fn table_bytes(table: &FieldTable) -> Vec<u8> {
    const EMPTY: usize = 4;
    if table.inner().is_empty() {
        return vec![0; EMPTY];
    }
    // It writes into what there is, and says so where that is too little.
    let mut room = 256;
    loop {
        let mut bytes = vec![0; room];
        let written = gen_field_table(table)(std::io::Cursor::new(bytes.as_mut_slice()).into());
        if let Ok(length) = written.map(|written| written.into_inner().1) {
            bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            return bytes;
        }
        room *= 2;
    }
}

/// The bytes of a record, as in a segment.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer(&mut bytes);
    match record {
        Record::ExchangeDeclared(spec) => writer.exchange_declared(spec),
        Record::ExchangeDeleted { name } => writer.exchange_deleted(name),
        Record::QueueDeclared(spec) => writer.queue_declared(spec),
        Record::QueueDeleted { name } => writer.queue_deleted(name),
        Record::Bound(spec) => {
            writer.kind(Kind::Bound);
            writer.binding(spec);
        }
        Record::Unbound(spec) => {
            writer.kind(Kind::Unbound);
            writer.binding(spec);
        }
        Record::Enqueued { message, expires_ms, content, queues } => {
            writer.enqueued(*message, *expires_ms, content, queues.iter().map(|queue| &**queue));
        }
        Record::Removed { message, queue } => writer.removed(*message, queue),
    }
    bytes
}

/// What is left to read.
struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Decoded<u8> {
        let (first, left) = self.left.split_first().ok_or(Malformed("it ends in the middle of a field"))?;
        self.left = left;
        Ok(*first)
    }

    fn number(&mut self) -> Decoded<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(Malformed("a number is too large"));
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                // One form only: otherwise two different records would be the same binding.
                return if byte == 0 && shift > 0 {
                    Err(Malformed("a number is longer than need be"))
                } else {
                    Ok(number)
                };
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn optional(&mut self) -> Decoded<Option<u64>> {
        Ok(self.number()?.checked_sub(1))
    }

    fn slice(&mut self) -> Decoded<&'a [u8]> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (slice, left) = self.left.split_at_checked(length).ok_or(Malformed("a field is longer than its record"))?;
        self.left = left;
        Ok(slice)
    }

    /// A copy: a small message must not hold all of a segment in memory.
    fn copied(&mut self) -> Decoded<Bytes> {
        self.slice().map(Bytes::copy_from_slice)
    }

    fn text(&mut self) -> Decoded<&'a str> {
        std::str::from_utf8(self.slice()?).map_err(|_| Malformed("a name is not UTF-8"))
    }

    fn flags<const N: usize>(&mut self) -> Decoded<[bool; N]> {
        let byte = self.byte()?;
        if u32::from(byte) >> N != 0 {
            return Err(Malformed("a flag has no meaning"));
        }
        Ok(std::array::from_fn(|index| byte >> index & 1 == 1))
    }

    fn commit(&mut self) -> Decoded<Commit> {
        Ok(Commit { synced: self.number()?, oldest: self.number()? })
    }

    fn exchange(&mut self) -> Decoded<ExchangeSpec> {
        let name = self.text()?.into();
        let kind = match self.byte()? {
            0 => ExchangeKind::Direct,
            1 => ExchangeKind::Fanout,
            2 => ExchangeKind::Topic,
            _ => return Err(Malformed("an exchange is of no known kind")),
        };
        let [durable, auto_delete, internal] = self.flags()?;
        Ok(ExchangeSpec { name, kind, durable, auto_delete, internal })
    }

    fn queue(&mut self) -> Decoded<QueueSpec> {
        let name = self.text()?.into();
        let [durable, exclusive, auto_delete] = self.flags()?;
        let limits = QueueLimits {
            expires_ms: self.optional()?,
            message_ttl_ms: self.optional()?,
            length_max: self.optional()?,
            bytes_max: self.optional()?,
            overflow: match self.byte()? {
                0 => None,
                1 => Some(Overflow::DropHead),
                2 => Some(Overflow::RejectPublish),
                _ => return Err(Malformed("a queue does something unknown when it is full")),
            },
        };
        Ok(QueueSpec { name, durable, exclusive, auto_delete, limits })
    }

    fn binding(&mut self) -> Decoded<BindingSpec> {
        let destination = match self.byte()? {
            0 => Destination::Queue(self.text()?.into()),
            1 => Destination::Exchange(self.text()?.into()),
            _ => return Err(Malformed("a binding leads to something unknown")),
        };
        let source = self.text()?.into();
        let key = self.text()?.into();
        let table = std::mem::take(&mut self.left);
        if !nests_at_most(table, NESTING_MAX) {
            return Err(Malformed("the arguments are no table, or nest too deep"));
        }
        let arguments = match parse_field_table(table) {
            Ok(([], arguments)) => arguments,
            _ => return Err(Malformed("the arguments cannot be read")),
        };
        Ok(BindingSpec { source, destination, key, arguments })
    }

    fn enqueued(&mut self) -> Decoded<Record> {
        let message = self.number()?;
        let expires_ms = self.optional()?.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let exchange = self.text()?.to_owned();
        let routing_key = self.text()?.to_owned();
        let properties = self.copied()?;
        let body = self.copied()?;
        let [persistent] = self.flags()?;
        let expiration_ms = self.optional()?;
        let content = Message { exchange, routing_key, properties, body, persistent, expiration_ms };
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        // Each name takes a byte at least, so a wrong number asks for no memory.
        let mut queues = Vec::with_capacity(count.min(self.left.len()));
        for _ in 0..count {
            queues.push(Arc::from(self.text()?));
        }
        Ok(Record::Enqueued { message, expires_ms, content: Arc::new(content), queues })
    }
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// It is no entry. With a right checksum this means that something else than this broker wrote it.
pub(super) fn decode(bytes: &[u8]) -> Result<Entry, Malformed> {
    let mut reader = Reader { left: bytes };
    let kind = reader.byte()?;
    let record = match kind {
        kind if kind == Kind::Commit as u8 => {
            let commit = reader.commit()?;
            return if reader.left.is_empty() { Ok(Entry::Commit(commit)) } else { Err(TOO_LONG) };
        }
        kind if kind == Kind::ExchangeDeclared as u8 => Record::ExchangeDeclared(Arc::new(reader.exchange()?)),
        kind if kind == Kind::ExchangeDeleted as u8 => Record::ExchangeDeleted { name: reader.text()?.into() },
        kind if kind == Kind::QueueDeclared as u8 => Record::QueueDeclared(Arc::new(reader.queue()?)),
        kind if kind == Kind::QueueDeleted as u8 => Record::QueueDeleted { name: reader.text()?.into() },
        kind if kind == Kind::Bound as u8 => Record::Bound(Arc::new(reader.binding()?)),
        kind if kind == Kind::Unbound as u8 => Record::Unbound(Arc::new(reader.binding()?)),
        kind if kind == Kind::Enqueued as u8 => reader.enqueued()?,
        kind if kind == Kind::Removed as u8 => {
            Record::Removed { message: reader.number()?, queue: reader.text()?.into() }
        }
        _ => return Err(Malformed("it is of no known kind")),
    };
    if reader.left.is_empty() { Ok(Entry::Record(record)) } else { Err(TOO_LONG) }
}

const TOO_LONG: Malformed = Malformed("it is longer than what it says");

/// Reads the end of a group, if it is one.
pub(super) fn decode_commit(bytes: &[u8]) -> Option<Commit> {
    let is_commit = bytes.first() == Some(&(Kind::Commit as u8));
    match is_commit.then(|| decode(bytes))? {
        Ok(Entry::Commit(commit)) => Some(commit),
        Ok(Entry::Record(_)) | Err(_) => None,
    }
}

/// Reads the bytes of one binding, as [`Writer::binding`] writes them.
pub(super) fn decode_binding(bytes: &[u8]) -> Result<BindingSpec, Malformed> {
    Reader { left: bytes }.binding()
}

/// The queue to which the binding with these bytes leads, if it is one.
pub(super) fn binding_queue(binding: &[u8]) -> Option<&str> {
    let mut reader = Reader { left: binding };
    let kind = reader.byte().ok()?;
    reader.text().ok().filter(|_| kind == 0)
}

/// The exchange from which the binding with these bytes comes.
pub(super) fn binding_source(binding: &[u8]) -> Option<&str> {
    let mut reader = Reader { left: binding };
    reader.byte().ok()?;
    reader.text().ok()?;
    reader.text().ok()
}

/// Whether bytes have the form of a table, as AMQP writes it, that nests at most so deep. Looks at them without recursion.
fn nests_at_most(table: &[u8], levels_max: u32) -> bool {
    /// Bytes of a value of this type before which nothing nests, if it has a fixed length.
    fn fixed(kind: u8) -> Option<usize> {
        Some(match kind {
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'V' => 0,
            _ => return None,
        })
    }
    fn length(bytes: &[u8], at: usize) -> Option<usize> {
        let four = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]) as usize)
    }
    fn look(table: &[u8], levels_max: u32) -> Option<()> {
        // For each level the place behind its end, and whether its values have names.
        let mut levels = vec![(4 + length(table, 0)?, true)];
        let mut at = 4;
        while let Some(&(end, has_names)) = levels.last() {
            if at >= end {
                levels.pop();
                continue;
            }
            if has_names {
                at += 1 + usize::from(*table.get(at)?);
            }
            let kind = *table.get(at)?;
            at += 1;
            match (fixed(kind), kind) {
                (Some(bytes), _) => at += bytes,
                (None, b'F' | b'A') => {
                    let inner_end = at + 4 + length(table, at)?;
                    at += 4;
                    if inner_end > end || levels.len() >= levels_max as usize {
                        return None;
                    }
                    levels.push((inner_end, kind == b'F'));
                }
                (None, b'S' | b'x') => at += 4 + length(table, at)?,
                (None, _) => return None,
            }
        }
        Some(())
    }
    look(table, levels_max).is_some()
}
