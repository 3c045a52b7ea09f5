//! Bytes to frames and back.

use crate::outlet::Output;

/// Turns the outputs of one connection into bytes, in their order. Neighbouring confirms become one.
#[derive(Debug, Default)]
pub struct Encoder {}

#[expect(unused_variables, clippy::unimplemented, reason = "the shape, before the work")]
impl Encoder {
    /// An encoder for a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an output to `into`; a confirm may wait for its neighbours until [`Encoder::finish`].
    pub fn push(&mut self, output: &Output, frame_bytes_max: u32, into: &mut Vec<u8>) {
        unimplemented!()
    }

    /// Appends what waits. To be called before the bytes are written.
    pub fn finish(&mut self, into: &mut Vec<u8>) {
        unimplemented!()
    }
}
