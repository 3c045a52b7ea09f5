//! The part of the D-Bus wire format that asking systemd for a job takes (D-Bus Specification, "Message Protocol").
//!
//! Calls carry texts and 32-bit numbers; answers are read only if they carry those, object paths and signatures.
//! Everything else is refused, never guessed. Pure: bytes in, data out; no length in a message is believed before it
//! is checked against what is there.

/// Longest message that is read. The ones that matter have a few hundred bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Length of the part of the header that every message has.
pub(super) const FIXED_BYTES: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const PROTOCOL_VERSION: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
    /// To be ignored, as the specification demands.
    Unknown,
}

impl Kind {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Call,
            2 => Self::Return,
            3 => Self::Error,
            4 => Self::Signal,
            _ => Self::Unknown,
        }
    }
}

/// A value of a message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    /// `s`, `o` or `g`.
    Text(String),
    /// `u`.
    Number(u32),
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The call that it answers.
    pub(super) reply_serial: Option<u32>,
    /// Who sent it; the bus writes that, not the sender.
    pub(super) sender: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) member: Option<String>,
    pub(super) error_name: Option<String>,
    signature: String,
    big_endian: bool,
    body: Vec<u8>,
}

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// Why bytes are not a message that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bus sent what is not a message: {0}")]
pub(super) struct Malformed(&'static str);

impl Method<'_> {
    /// The bytes of a call with these arguments.
    pub(super) fn encode(&self, serial: u32, arguments: &[Field]) -> Vec<u8> {
        let mut signature = String::new();
        let mut body = Vec::new();
        for argument in arguments {
            match argument {
                Field::Text(text) => {
                    signature.push('s');
                    push_text(&mut body, text);
                }
                Field::Number(number) => {
                    signature.push('u');
                    push_number(&mut body, *number);
                }
            }
        }
        let mut fields = Vec::new();
        for (code, kind, text) in [
            (1, 'o', self.path),
            (2, 's', self.interface),
            (3, 's', self.member),
            (6, 's', self.destination),
            (8, 'g', signature.as_str()),
        ] {
            if code == 8 && text.is_empty() {
                continue;
            }
            // The array begins at byte 16 of the message, so its own alignment is the message's.
            pad(&mut fields, 8);
            fields.extend([code, 1, kind as u8, 0]);
            if kind == 'g' {
                // At most one letter for each argument; ours have three.
                fields.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                fields.extend(text.as_bytes());
                fields.push(0);
            } else {
                push_text(&mut fields, text);
            }
        }
        let mut message = vec![LITTLE_ENDIAN, 1, 0, PROTOCOL_VERSION];
        push_number(&mut message, length(body.len()));
        push_number(&mut message, serial);
        push_number(&mut message, length(fields.len()));
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        message
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("calls have a few hundred bytes")
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn push_number(bytes: &mut Vec<u8>, number: u32) {
    pad(bytes, 4);
    bytes.extend(number.to_le_bytes());
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_number(bytes, length(text.len()));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// How many bytes the message that begins like this has.
pub(super) fn message_bytes(fixed: &[u8; FIXED_BYTES]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(fixed)?;
    let body = reader.length_at(4)?;
    let fields = reader.length_at(12)?;
    let total = FIXED_BYTES.saturating_add(fields).saturating_add(7) / 8 * 8;
    let total = total.saturating_add(body);
    if fields > MESSAGE_BYTES_MAX || total > MESSAGE_BYTES_MAX { Err(Malformed("it is too long")) } else { Ok(total) }
}

/// Reads a whole message.
pub(super) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    let mut reader = Reader::new(bytes)?;
    let kind = Kind::from_byte(bytes[1]);
    let fields_end = FIXED_BYTES + reader.length_at(12)?;
    let body_start = fields_end.next_multiple_of(8);
    let body_end = body_start.checked_add(reader.length_at(4)?).filter(|end| *end == bytes.len());
    let body_end = body_end.ok_or(Malformed("its length is not the one it names"))?;
    let mut message = Message {
        kind,
        reply_serial: None,
        sender: None,
        interface: None,
        member: None,
        error_name: None,
        signature: String::new(),
        big_endian: reader.big_endian,
        body: bytes[body_start..body_end].to_vec(),
    };
    reader.position = FIXED_BYTES;
    while reader.position < fields_end {
        reader.align(8);
        let code = reader.byte()?;
        let signature = reader.signature()?;
        let field = reader.field(signature.chars().next().filter(|_| signature.len() == 1))?;
        match (code, field) {
            (2, Field::Text(text)) => message.interface = Some(text),
            (3, Field::Text(text)) => message.member = Some(text),
            (4, Field::Text(text)) => message.error_name = Some(text),
            (5, Field::Number(number)) => message.reply_serial = Some(number),
            (7, Field::Text(text)) => message.sender = Some(text),
            (8, Field::Text(text)) => message.signature = text,
            // The path, the destination, and fields of a later specification.
            _ => {}
        }
    }
    Ok(message)
}

impl Message {
    /// The values of the body, if it has nothing but texts, paths and numbers.
    pub(super) fn body(&self) -> Result<Vec<Field>, Malformed> {
        let mut reader = Reader { bytes: &self.body, position: 0, big_endian: self.big_endian };
        self.signature.chars().map(|kind| reader.field(Some(kind))).collect()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    /// Over a message from its start.
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < FIXED_BYTES {
            return Err(Malformed("it is too short"));
        }
        let big_endian = match bytes[0] {
            LITTLE_ENDIAN => false,
            b'B' => true,
            _ => return Err(Malformed("it has no byte order")),
        };
        if bytes[3] != PROTOCOL_VERSION {
            return Err(Malformed("it is in another version of the protocol"));
        }
        Ok(Self { bytes, position: 0, big_endian })
    }

    fn align(&mut self, alignment: usize) {
        self.position = self.position.next_multiple_of(alignment);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(count).ok_or(Malformed("it ends too early"))?;
        let taken = self.bytes.get(self.position..end).ok_or(Malformed("it ends too early"))?;
        self.position = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed("it ends too early"))?;
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn length_at(&mut self, position: usize) -> Result<usize, Malformed> {
        self.position = position;
        Ok(self.number()? as usize)
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 {
            return Err(Malformed("a text in it does not end"));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a text in it is not UTF-8"))
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    fn field(&mut self, kind: Option<char>) -> Result<Field, Malformed> {
        match kind {
            Some('s' | 'o') => {
                let length = self.number()? as usize;
                self.text(length).map(Field::Text)
            }
            Some('g') => self.signature().map(Field::Text),
            Some('u') => self.number().map(Field::Number),
            _ => Err(Malformed("it carries a type that no answer has that was asked for")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Method<'_> = Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "StartUnit",
    };

    /// A signal `JobRemoved` as systemd 252 sends it over the bus, read from a socket.
    const JOB_REMOVED: &[u8] = include_bytes!("../../../tests/recorded/job-removed.dbus");

    fn text(text: &str) -> Field {
        Field::Text(text.to_owned())
    }

    #[test]
    fn what_is_written_is_read() {
        let arguments = [text("web.service"), text("replace"), Field::Number(7)];
        let bytes = START.encode(5, &arguments);
        assert_eq!(message_bytes(bytes[..16].try_into().unwrap()), Ok(bytes.len()));
        let message = decode(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_deref()), (Kind::Call, Some("StartUnit")));
        assert_eq!(message.signature, "ssu");
        assert_eq!(message.body().unwrap(), arguments);
    }

    #[test]
    fn a_signal_of_systemd_is_read() {
        assert_eq!(message_bytes(JOB_REMOVED[..16].try_into().unwrap()), Ok(JOB_REMOVED.len()));
        let message = decode(JOB_REMOVED).unwrap();
        assert_eq!((message.kind, message.member.as_deref()), (Kind::Signal, Some("JobRemoved")));
        assert_eq!(message.interface.as_deref(), Some("org.freedesktop.systemd1.Manager"));
        assert!(message.sender.as_deref().unwrap().starts_with(":1."));
        let body = message.body().unwrap();
        assert!(matches!(&body[0], Field::Number(_)));
        assert_eq!((&body[2], &body[3]), (&text("multi-user.target"), &text("done")));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        for length in 0..JOB_REMOVED.len() {
            assert!(decode(&JOB_REMOVED[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_message_that_claims_to_be_huge_is_refused() {
        let mut fixed: [u8; 16] = START.encode(1, &[])[..16].try_into().unwrap();
        for at in [4, 12] {
            let mut huge = fixed;
            huge[at..at + 4].fill(0xff);
            assert!(message_bytes(&huge).is_err());
        }
        fixed[0] = b'x';
        assert!(message_bytes(&fixed).is_err());
    }

    proptest! {
        #[test]
        fn any_texts_come_back(unit in "\\PC{0,300}", number: u32, serial: u32) {
            let arguments = [Field::Number(number), Field::Text(unit)];
            let bytes = START.encode(serial, &arguments);
            prop_assert_eq!(message_bytes(bytes[..16].try_into().unwrap()), Ok(bytes.len()));
            prop_assert_eq!(decode(&bytes).unwrap().body().unwrap(), arguments);
        }

        #[test]
        fn no_bytes_make_it_panic(change in proptest::collection::vec((0..JOB_REMOVED.len(), any::<u8>()), 0..12)) {
            let mut bytes = JOB_REMOVED.to_vec();
            for (at, byte) in change {
                bytes[at] = byte;
            }
            if let Ok(message) = decode(&bytes) {
                let _either_way = message.body();
            }
        }
    }
}
