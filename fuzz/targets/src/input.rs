//! Cuts an input into the parts that a target needs.

/// The rest of an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 where there is none.
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// One of `choices`, by the next byte. A letter or digit in text seeds is as good as any byte.
    pub(crate) fn choice<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A number of 16 bits.
    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// What comes up to the next zero byte, which is taken too.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let piece = &self.0[..end];
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        piece
    }

    /// A [`piece`](Self::piece) as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    /// The pieces that are left, as texts.
    pub(crate) fn texts(mut self) -> Vec<String> {
        let mut texts = Vec::new();
        while !self.is_empty() {
            texts.push(self.text());
        }
        texts
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// All that is left, as text.
    pub(crate) fn rest_text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}
