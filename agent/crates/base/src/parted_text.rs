//! Many texts in one buffer, which are read as slices without a check of each.

use std::ops::Range;

/// Text that consists of many parts, back to back. Parts of ASCII are cut anywhere without a check, since
/// the whole was checked once; parts of other text are checked when they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartedText {
    octets: Vec<u8>,
    /// True only if all octets are ASCII.
    is_ascii: bool,
}

impl Default for PartedText {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PartedText {
    /// Creates the text of these octets.
    #[inline]
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        let is_ascii = octets.is_ascii();
        Self { octets, is_ascii }
    }

    /// Returns a part; empty if it is not within the text, or not UTF-8.
    #[inline]
    #[must_use]
    pub fn part(&self, part: Range<usize>) -> &str {
        let octets = self.octets.get(part).unwrap_or_default();
        if self.is_ascii {
            // SAFETY: octets below 128 are UTF-8 each on its own, so any slice of them is. `new` has
            // checked all of them, and nothing changes them afterwards but `clear`.
            unsafe { str::from_utf8_unchecked(octets) }
        } else {
            str::from_utf8(octets).unwrap_or_default()
        }
    }

    /// Returns the length in bytes.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.octets.len()
    }

    /// Returns true if there is no text.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Returns the size of the buffer in bytes.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.octets.capacity()
    }

    /// Removes all text, and keeps the buffer.
    #[inline]
    pub fn clear(&mut self) {
        self.octets.clear();
    }

    /// Returns the buffer, with the text.
    #[inline]
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_ascii_are_cut_anywhere() {
        let text = PartedText::new(b"www.test192.0.2.1".to_vec());
        assert_eq!(
            (text.part(0..8), text.part(8..17), text.part(3..3)),
            ("www.test", "192.0.2.1", "")
        );
        assert_eq!((text.part(8..18), text.part(18..19)), ("", ""), "beyond the end");
        #[expect(clippy::reversed_empty_ranges, reason = "what a caller may get wrong")]
        let reversed = text.part(8..4);
        assert_eq!(reversed, "");
    }

    #[test]
    fn parts_of_other_text_are_whole_characters_or_empty() {
        let mut text = PartedText::new("a\u{fffd}b".as_bytes().to_vec());
        assert_eq!((text.part(0..1), text.part(1..4), text.part(4..5)), ("a", "\u{fffd}", "b"));
        assert_eq!((text.part(0..2), text.part(2..5)), ("", ""));
        text.clear();
        assert!(text.is_empty() && text.part(0..0).is_empty());
        let invalid = PartedText::new(vec![b'a', 0xff]);
        assert_eq!((invalid.part(0..1), invalid.part(0..2)), ("a", ""));
    }
}
