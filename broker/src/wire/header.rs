//! Content headers (AMQP 0-9-1 section 4.2.6): what the broker acts on, and the properties as they came.

use super::fields::{Fields, Malformed};
use super::table;

/// A content header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentHeader<'a> {
    pub(crate) class: u16,
    pub(crate) weight: u16,
    pub(crate) body_bytes: u64,
    /// Flags and list, not looked at yet.
    pub(crate) properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    pub(crate) fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(payload);
        let (class, weight, body_bytes) = (fields.short()?, fields.short()?, fields.long_long()?);
        Ok(Self { class, weight, body_bytes, properties: fields.0 })
    }
}

/// The properties that the broker acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Properties<'a> {
    pub(crate) persistent: bool,
    pub(crate) reply_to: Option<&'a str>,
    pub(crate) expiration: Option<&'a str>,
    pub(crate) user_id: Option<&'a str>,
    /// A header that asks for more receivers (RabbitMQ's sender-selected distribution).
    pub(crate) copies: Option<&'static str>,
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;

/// Flags that the class does not define; the last would announce further flags.
const UNKNOWN: u16 = 0b11;

const PERSISTENT: u8 = 2;

impl<'a> Properties<'a> {
    /// Reads all properties, since they are handed on as they are: a client must be able to read what it gets.
    pub(crate) fn read(properties: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(properties);
        let flags = fields.short()?;
        if flags & UNKNOWN != 0 {
            return Err(Malformed::Length);
        }
        let mut read = Self::default();
        let text = |flag: u16, fields: &mut Fields<'a>| -> Result<Option<&'a str>, Malformed> {
            if flags & flag == 0 { Ok(None) } else { fields.short_string().map(Some) }
        };
        text(CONTENT_TYPE, &mut fields)?;
        text(CONTENT_ENCODING, &mut fields)?;
        if flags & HEADERS != 0 {
            let headers = table::checked(&mut fields)?;
            read.copies = headers.names().find_map(|name| match name {
                "CC" => Some("CC"),
                "BCC" => Some("BCC"),
                _ => None,
            });
        }
        if flags & DELIVERY_MODE != 0 {
            read.persistent = fields.octet()? == PERSISTENT;
        }
        if flags & PRIORITY != 0 {
            fields.octet()?;
        }
        text(CORRELATION_ID, &mut fields)?;
        read.reply_to = text(REPLY_TO, &mut fields)?;
        read.expiration = text(EXPIRATION, &mut fields)?;
        text(MESSAGE_ID, &mut fields)?;
        if flags & TIMESTAMP != 0 {
            fields.long_long()?;
        }
        text(KIND, &mut fields)?;
        read.user_id = text(USER_ID, &mut fields)?;
        text(APP_ID, &mut fields)?;
        text(CLUSTER_ID, &mut fields)?;
        fields.end()?;
        Ok(read)
    }
}
