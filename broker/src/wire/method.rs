//! Methods that a client may send.

use amq_protocol::protocol::{AMQPClass, basic, parse_class};

use super::fields::{Fields, Malformed};
use super::table;
use crate::fault::Fault;

/// Class and method by their numbers.
pub(crate) type MethodId = (u16, u16);

/// Most bytes of a binding's arguments, since bindings stay.
pub(crate) const BINDING_ARGUMENTS_BYTES_MAX: usize = 128;

/// A method that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Method {
    pub(crate) id: MethodId,
    pub(crate) class: AMQPClass,
    /// Bytes of its table, if it has one.
    pub(crate) table_bytes: usize,
    /// `prefetch-size` of `basic.qos`, which the library drops.
    pub(crate) prefetch_bytes: u32,
}

/// Where the table of a method stands.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// There is none.
    NoTable,
    /// Behind so many octets, so many short strings, and so many octets.
    Table(usize, usize, usize),
}

/// The methods that a client sends, with their tables' places.
fn known(id: MethodId) -> Option<Before> {
    use Before::{NoTable, Table};
    Some(match id {
        // connection: start-ok, secure-ok, tune-ok, open, close, close-ok, blocked, unblocked, update-secret
        (10, 11) => Table(0, 0, 0),
        (10, 21 | 31 | 40 | 50 | 51 | 60 | 61 | 70) => NoTable,
        // channel: open, flow, flow-ok, close, close-ok
        (20, 10 | 20 | 21 | 40 | 41) => NoTable,
        // access: request
        (30, 10) => NoTable,
        // exchange: declare, delete, bind, unbind
        (40, 10) => Table(2, 2, 1),
        (40, 20) => NoTable,
        (40, 30 | 40) => Table(2, 3, 1),
        // queue: declare, bind, purge, delete, unbind
        (50, 10) => Table(2, 1, 1),
        (50, 20) => Table(2, 3, 1),
        (50, 30 | 40) => NoTable,
        (50, 50) => Table(2, 3, 0),
        // basic: qos, consume, cancel, publish, get, ack, reject, recover-async, recover, nack
        (60, 20) => Table(2, 2, 1),
        (60, 10 | 30 | 40 | 70 | 80 | 90 | 100 | 110 | 120) => NoTable,
        // confirm: select; tx: select, commit, rollback
        (85, 10) | (90, 10 | 20 | 30) => NoTable,
        _ => return None,
    })
}

/// The methods that only a broker sends, of classes that clients know.
fn is_brokers(id: MethodId) -> bool {
    matches!(
        id,
        (10, 10 | 20 | 30 | 41 | 71)
            | (20, 11)
            | (30, 11)
            | (40, 11 | 21 | 31 | 51)
            | (50, 11 | 21 | 31 | 41 | 51)
            | (60, 11 | 21 | 31 | 50 | 60 | 71 | 72 | 111)
            | (85, 11)
            | (90, 11 | 21 | 31)
    )
}

/// Class and method of a method frame's payload.
pub(crate) fn id(payload: &[u8]) -> Result<MethodId, Malformed> {
    let mut fields = Fields(payload);
    Ok((fields.short()?, fields.short()?))
}

/// Reads a method frame's payload.
///
/// # Errors
/// 502 if it cannot be read, 503 for a broker's method, 540 for one that is not known here.
pub(crate) fn read(payload: &[u8]) -> Result<Method, Fault> {
    let malformed = |id: MethodId, why: Malformed| {
        Fault::syntax_error(format_args!("method {},{} cannot be read: {}", id.0, id.1, why.what()))
    };
    let id = id(payload).map_err(|why| malformed((0, 0), why))?;
    let Some(before) = known(id) else {
        return Err(if is_brokers(id) {
            Fault::command_invalid("unimplemented method")
        } else {
            Fault::not_implemented(format_args!("method {},{}", id.0, id.1))
        });
    };
    let arguments = Fields(&payload[4..]);
    // The two that make up nearly all traffic; the library's flags cost more than the rest of the method.
    match id {
        (60, 40) => return publish(arguments).map_err(|why| malformed(id, why)),
        (60, 80) => return acknowledge(arguments).map_err(|why| malformed(id, why)),
        _ => {}
    }
    let table_bytes = table_bytes(arguments, before).map_err(|why| malformed(id, why))?;
    let prefetch_bytes = match id {
        (60, 10) => Fields(&payload[4..]).long().map_err(|why| malformed(id, why))?,
        _ => 0,
    };
    match parse_class(payload) {
        Ok(([], class)) => Ok(Method { id, class, table_bytes, prefetch_bytes }),
        Ok(_) => Err(malformed(id, Malformed::Length)),
        // What else can be wrong, a short string aside, has been looked at.
        Err(error) => Err(malformed(id, if error.is_incomplete() { Malformed::Length } else { Malformed::Text })),
    }
}

fn table_bytes(mut fields: Fields<'_>, before: Before) -> Result<usize, Malformed> {
    let Before::Table(octets, strings, flags) = before else { return Ok(0) };
    fields.take(octets)?;
    for _ in 0..strings {
        fields.short_string()?;
    }
    fields.take(flags)?;
    Ok(table::checked(&mut fields)?.bytes())
}

fn publish(mut fields: Fields<'_>) -> Result<Method, Malformed> {
    fields.short()?;
    let (exchange, routing_key) = (fields.short_string()?, fields.short_string()?);
    let flags = fields.octet()?;
    fields.end()?;
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        mandatory: flags & 1 != 0,
        immediate: flags & 2 != 0,
    };
    Ok(Method {
        id: (60, 40),
        class: AMQPClass::Basic(basic::AMQPMethod::Publish(publish)),
        table_bytes: 0,
        prefetch_bytes: 0,
    })
}

fn acknowledge(mut fields: Fields<'_>) -> Result<Method, Malformed> {
    let (delivery_tag, flags) = (fields.long_long()?, fields.octet()?);
    fields.end()?;
    let ack = basic::Ack { delivery_tag, multiple: flags & 1 != 0 };
    Ok(Method { id: (60, 80), class: AMQPClass::Basic(basic::AMQPMethod::Ack(ack)), table_bytes: 0, prefetch_bytes: 0 })
}
