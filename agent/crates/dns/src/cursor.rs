//! Reads a message from front to back.

use super::steps;

/// A place in a message, and where the part that may be read from here ends.
///
/// A cursor on the RDATA of one record ends with that RDATA and still sees all that is before it,
/// because that is where compressed names point to (RFC 1035 §4.1.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    /// The message, up to the end of the part.
    message: &'a [u8],
    at: usize,
}

/// All reads return `None`, and the cursor stays where it is, when the part ends too early.
impl<'a> Cursor<'a> {
    /// At the start of a whole message.
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The message from its beginning to the end of the part.
    pub(super) const fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Offset of the next byte from the start of the message.
    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    /// Offset of the first byte behind the part.
    pub(super) const fn end(&self) -> usize {
        self.message.len()
    }

    /// Nothing is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.at == self.message.len()
    }

    /// Goes to `offset`, which a reader of names found within the part.
    pub(super) fn seek(&mut self, offset: usize) {
        self.at = offset.min(self.message.len());
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let octets = self.peek(length)?;
        self.at += length;
        Some(octets)
    }

    /// A cursor on the next `length` bytes, which this one skips.
    pub(super) fn part(&mut self, length: usize) -> Option<Self> {
        let start = self.at;
        self.take(length)?;
        Some(Self { message: self.message.get(..self.at)?, at: start })
    }

    /// The next bytes, without going on.
    pub(super) fn peek(&self, length: usize) -> Option<&'a [u8]> {
        steps::count(1);
        self.message.get(self.at..)?.get(..length)
    }

    /// All that is left, without going on.
    pub(super) fn left(&self) -> &'a [u8] {
        self.message.get(self.at..).unwrap_or_default()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.left();
        self.at = self.message.len();
        rest
    }

    /// The next `N` bytes.
    pub(super) fn octets<const N: usize>(&mut self) -> Option<[u8; N]> {
        steps::count(1);
        let octets = *self.message.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(octets)
    }

    /// All that is left, if it is `N` bytes, without going on.
    pub(super) fn whole<const N: usize>(&self) -> Option<[u8; N]> {
        self.left().try_into().ok()
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.octets().map(u8::from_be_bytes)
    }

    /// A number of two bytes.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.octets().map(u16::from_be_bytes)
    }

    /// A number of four bytes.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.octets().map(u32::from_be_bytes)
    }

    /// What follows a length of one byte: a character string (RFC 1035 §3.3), a salt.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.peek(1)?.first()?);
        let octets = self.peek(1 + length)?.get(1..)?;
        self.at += 1 + length;
        Some(octets)
    }

    /// What follows a length of two bytes: an EDNS option's data, a MAC.
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
