//! Reads the fields of a payload, one after the other.

/// What is left of a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

/// Why fields cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A field goes beyond the payload, or bytes are left over.
    Length,
    /// A short string is not UTF-8.
    Text,
    /// A table has a value of an unknown type.
    Type,
    /// A table is too deep or has too many values.
    Complexity,
}

impl Malformed {
    /// For the one who sent it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Length => "its fields are longer or shorter than the frame",
            Self::Text => "a short string is not UTF-8",
            Self::Type => "a table has a value of an unknown type",
            Self::Complexity => "a table is too deep or has too many values",
        }
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn octet(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn short(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn long(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn long_long(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn short_string(&mut self) -> Result<&'a str, Malformed> {
        let length = self.octet()?;
        std::str::from_utf8(self.take(length.into())?).map_err(|_| Malformed::Text)
    }

    /// What a length of 32 bits stands before.
    pub(crate) fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Length)?)
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Length) }
    }
}
