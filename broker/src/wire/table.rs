//! Looks a table over before anybody builds it: the library reads tables by recursion and without a bound, so a peer could
//! use up a thread's stack with a few kilobytes, here or at the client that gets the message.

use super::fields::{Fields, Malformed};

/// Deepest nesting of tables and arrays.
const DEPTH_MAX: usize = 16;

/// Most values in a table with all that is in it. A client's properties are two dozen.
const VALUES_MAX: usize = 1_024;

/// Reads a table with its length and gives what is in it, when it is well-formed and within bounds.
pub(crate) fn checked<'a>(fields: &mut Fields<'a>) -> Result<Table<'a>, Malformed> {
    let entries = fields.long_bytes()?;
    let mut left = VALUES_MAX;
    pairs(Fields(entries), DEPTH_MAX, &mut left)?;
    Ok(Table(entries))
}

/// A table that was looked over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// Bytes of its entries.
    pub(crate) fn bytes(self) -> usize {
        self.0.len()
    }

    /// The names of its own entries.
    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        let mut fields = Fields(self.0);
        std::iter::from_fn(move || {
            let name = fields.short_string().ok()?;
            value(&mut fields, DEPTH_MAX, &mut { VALUES_MAX }).ok()?;
            Some(name)
        })
    }
}

fn pairs(mut fields: Fields<'_>, depth: usize, left: &mut usize) -> Result<(), Malformed> {
    while !fields.0.is_empty() {
        fields.short_string()?;
        value(&mut fields, depth, left)?;
    }
    Ok(())
}

fn values(mut fields: Fields<'_>, depth: usize, left: &mut usize) -> Result<(), Malformed> {
    while !fields.0.is_empty() {
        value(&mut fields, depth, left)?;
    }
    Ok(())
}

/// The types are RabbitMQ's, with those that only the library writes (`U`).
fn value(fields: &mut Fields<'_>, depth: usize, left: &mut usize) -> Result<(), Malformed> {
    *left = left.checked_sub(1).ok_or(Malformed::Complexity)?;
    let deeper = || depth.checked_sub(1).ok_or(Malformed::Complexity);
    match fields.octet()? {
        b'V' => {}
        b't' | b'b' | b'B' => drop(fields.take(1)?),
        b's' | b'U' | b'u' => drop(fields.take(2)?),
        b'I' | b'i' | b'f' => drop(fields.take(4)?),
        b'D' => drop(fields.take(5)?),
        b'l' | b'L' | b'd' | b'T' => drop(fields.take(8)?),
        b'S' | b'x' => drop(fields.long_bytes()?),
        b'F' => pairs(Fields(fields.long_bytes()?), deeper()?, left)?,
        b'A' => values(Fields(fields.long_bytes()?), deeper()?, left)?,
        _ => return Err(Malformed::Type),
    }
    Ok(())
}
