//! Choices taken from an input's bytes.

/// Bytes that are yet to be taken; zeros follow the last.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes([self.u8(), self.u8(), self.u8(), self.u8()])
    }

    /// A number up to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        let drawn = usize::from(u16::from_be_bytes([self.u8(), self.u8()]));
        drawn % (most + 1)
    }

    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// `0..length` in ranges of at least `unit` bytes, in any order.
    pub(crate) fn pieces(&mut self, length: usize, unit: usize) -> Vec<(usize, usize)> {
        let (mut pieces, mut start) = (Vec::new(), 0);
        while start < length {
            let end = length.min(start + unit * (1 + self.up_to(300 / unit)));
            pieces.push((start, end));
            start = end;
        }
        for place in (1..pieces.len()).rev() {
            pieces.swap(place, self.up_to(place));
        }
        pieces
    }
}
