//! Reads a message from start to end.

use super::steps;

/// A position in a message, with the end of the part that may be read.
///
/// A cursor on the RDATA of one record ends with that RDATA and still contains everything before
/// it, because compressed names point there (RFC 1035 §4.1.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    /// The message, up to the end of the part.
    message: &'a [u8],
    at: usize,
}

/// All reads return `None` and leave the cursor unchanged if the part is too short.
impl<'a> Cursor<'a> {
    /// Creates a cursor at the start of a whole message.
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// Returns the message from its start to the end of the part.
    pub(super) const fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Returns the offset of the next byte from the start of the message.
    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    /// Returns the offset after the last byte of the part.
    pub(super) const fn end(&self) -> usize {
        self.message.len()
    }

    /// Returns true if nothing is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.at == self.message.len()
    }

    /// Moves to `offset`, which a reader of names has found within the part.
    pub(super) fn seek(&mut self, offset: usize) {
        self.at = offset.min(self.message.len());
    }

    /// Reads the next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let octets = self.peek(length)?;
        self.at += length;
        Some(octets)
    }

    /// Returns a cursor on the next `length` bytes, and skips them.
    pub(super) fn part(&mut self, length: usize) -> Option<Self> {
        let start = self.at;
        self.take(length)?;
        Some(Self { message: self.message.get(..self.at)?, at: start })
    }

    /// Returns the next bytes without moving.
    pub(super) fn peek(&self, length: usize) -> Option<&'a [u8]> {
        steps::count(1);
        self.message.get(self.at..)?.get(..length)
    }

    /// Returns all remaining bytes without moving.
    pub(super) fn left(&self) -> &'a [u8] {
        self.message.get(self.at..).unwrap_or_default()
    }

    /// Reads all remaining bytes.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.left();
        self.at = self.message.len();
        rest
    }

    /// Reads the next `N` bytes.
    pub(super) fn octets<const N: usize>(&mut self) -> Option<[u8; N]> {
        steps::count(1);
        let octets = *self.message.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(octets)
    }

    /// Returns all remaining bytes if they are `N`, without moving.
    pub(super) fn whole<const N: usize>(&self) -> Option<[u8; N]> {
        self.left().try_into().ok()
    }

    /// Reads one byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.octets().map(u8::from_be_bytes)
    }

    /// Reads a 16-bit integer.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.octets().map(u16::from_be_bytes)
    }

    /// Reads a 32-bit integer.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.octets().map(u32::from_be_bytes)
    }

    /// Reads data with a length prefix of one byte: a character string (RFC 1035 §3.3), a salt.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.peek(1)?.first()?);
        let octets = self.peek(1 + length)?.get(1..)?;
        self.at += 1 + length;
        Some(octets)
    }

    /// Reads data with a length prefix of two bytes: an EDNS option's data, a MAC.
    pub(super) fn counted_u16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(*self.peek(2)?.first_chunk()?));
        let octets = self.peek(2 + length)?.get(2..)?;
        self.at += 2 + length;
        Some(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_where_it_was_cut() {
        let mut whole = Cursor::new(b"\x01\x02\x03abcdef");
        assert_eq!(whole.u16(), Some(0x0102));
        let mut part = whole.part(4).unwrap();
        assert_eq!((part.offset(), part.end()), (2, 6));
        assert_eq!(part.counted(), Some(&b"abc"[..]));
        assert!(part.is_empty());
        assert_eq!(part.u8(), None);
        assert_eq!(whole.rest(), b"def");
        assert!(whole.part(1).is_none());
    }

    #[test]
    fn a_length_beyond_the_end_reads_nothing() {
        let mut cursor = Cursor::new(b"\x02a");
        assert_eq!(cursor.counted(), None);
        assert_eq!(cursor.counted_u16(), None);
        assert_eq!(cursor.u32(), None);
        assert_eq!(cursor.offset(), 0);
    }
}
