//! Builds presentation text.

use data_encoding::{BASE32_DNSSEC, BASE64, Encoding, HEXLOWER};

use super::{dotted::dotted, steps};

/// The text of a message's names and RDATA, back to back.
///
/// It is written octet by octet, and checked to be UTF-8 once, when the message is complete: a
/// check per name costs more than writing it.
///
/// It also accounts for the work that a message costs, because nearly all of it is writing text:
/// octets in the text, octets that were written and removed, and the labels and pointers that were
/// followed for them. Past the budget the text is full, as it is past [`LIMIT`](Self::LIMIT), and
/// every loop that writes checks that. Octets in the text are not counted one by one, so the usual
/// message pays nothing.
#[derive(Debug)]
pub(super) struct Text {
    octets: Vec<u8>,
    /// Maximum work for the message.
    budget: usize,
    /// Work besides the octets in the text.
    spent: usize,
    /// Length beyond which the text is full: the rest of the budget, at most the limit.
    full_at: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self::reuse(String::new(), usize::MAX)
    }
}

impl Text {
    /// Maximum size of a message's text in bytes. A message of 64 KiB whose records all point to
    /// one long name of escaped octets would otherwise unfold to several MiB; no genuine message
    /// comes near.
    pub(super) const LIMIT: usize = 64 * 1024;

    /// Number of octets of binary values and strings that are written between two checks of the
    /// limit.
    const PIECE: usize = 1020;

    /// Creates an empty text in the memory of `text`, for a message that may cost `budget`.
    pub(super) fn reuse(text: String, budget: usize) -> Self {
        let mut octets = text.into_bytes();
        octets.clear();
        Self { octets, budget, spent: 0, full_at: budget.min(Self::LIMIT) }
    }

    /// Returns the text; empty if it is not UTF-8, which no function here writes.
    pub(super) fn finish(self) -> String {
        String::from_utf8(self.octets).unwrap_or_default()
    }

    /// Returns the current length in bytes.
    pub(super) const fn len(&self) -> usize {
        self.octets.len()
    }

    /// Returns true if it exceeds the limit or the budget: the latest part is incomplete.
    pub(super) const fn is_full(&self) -> bool {
        self.octets.len() > self.full_at
    }

    /// Returns the work so far.
    pub(super) const fn work(&self) -> usize {
        self.spent.saturating_add(self.octets.len())
    }

    /// Returns true if the work exceeds the budget.
    pub(super) const fn is_over_budget(&self) -> bool {
        self.work() > self.budget
    }

    /// Adds work that leaves no octet.
    pub(super) fn charge(&mut self, work: usize) {
        self.spent = self.spent.saturating_add(work);
        self.full_at = self.budget.saturating_sub(self.spent).min(Self::LIMIT);
    }

    /// Removes everything after `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        self.charge(self.octets.len().saturating_sub(length));
        self.octets.truncate(length);
    }

    /// Appends an ASCII character.
    pub(super) fn ascii(&mut self, character: u8) {
        steps::count(1);
        self.octets.push(character & 0x7f);
    }

    /// Appends text unchanged.
    pub(super) fn string(&mut self, text: &str) {
        steps::count(text.len());
        self.octets.extend_from_slice(text.as_bytes());
    }

    /// Appends the first `length` characters of an ASCII block: a copy of constant size is cheaper.
    #[inline]
    pub(super) fn block(&mut self, block: &[u8; 16], length: usize) {
        steps::count(length);
        let end = self.octets.len() + length;
        self.octets.extend_from_slice(block);
        self.octets.truncate(end);
    }

    /// Appends ASCII characters that `character` maps from `octets`.
    pub(super) fn mapped(&mut self, octets: &[u8], mut character: impl FnMut(u8) -> u8) {
        steps::count(octets.len());
        self.octets.extend(octets.iter().map(|&octet| character(octet) & 0x7f));
    }

    /// Appends a number in decimal.
    pub(super) fn decimal(&mut self, number: impl Into<u64>) {
        self.string(itoa::Buffer::new().format(number.into()));
    }

    /// Appends a number in decimal with leading zeros up to `digits`, at most 9.
    pub(super) fn padded(&mut self, number: u32, digits: u32) {
        for place in (0..digits.min(9)).rev() {
            let digit = number / 10_u32.pow(place) % 10;
            self.ascii(b"0123456789"[digit as usize]);
        }
    }

    /// Appends `\DDD` (RFC 1035 §5.1).
    pub(super) fn decimal_escape(&mut self, octet: u8) {
        steps::count(4);
        self.octets.extend_from_slice(&ESCAPES[usize::from(octet)]);
    }

    /// Appends a character string in quotes (RFC 1035 §5.1), as in TXT.
    pub(super) fn quoted(&mut self, string: &[u8]) {
        self.ascii(b'"');
        for piece in string.chunks(Self::PIECE) {
            if self.is_full() {
                return;
            }
            // Copy it first, and rewrite it if it needs an escape.
            let start = self.octets.len();
            let mut plain = true;
            self.mapped(piece, |octet| {
                plain &= is_plain(octet);
                octet
            });
            if !plain {
                self.truncate(start);
                piece.iter().for_each(|&octet| self.quotable(octet));
            }
        }
        self.ascii(b'"');
    }

    /// Appends an octet of a quoted string.
    pub(super) fn quotable(&mut self, octet: u8) {
        match octet {
            plain if is_plain(plain) => self.ascii(plain),
            b'"' | b'\\' => {
                self.ascii(b'\\');
                self.ascii(octet);
            }
            _ => self.decimal_escape(octet),
        }
    }

    /// Appends hexadecimal, in words of at most 128 digits.
    pub(super) fn hex_words(&mut self, octets: &[u8]) {
        self.words(octets, 64, &HEXLOWER);
    }

    /// Appends hexadecimal, as one word.
    pub(super) fn hex(&mut self, octets: &[u8]) {
        self.encoded(octets, &HEXLOWER);
    }

    /// Appends Base64 (RFC 4648 §4), in words of at most 32 characters.
    pub(super) fn base64_words(&mut self, octets: &[u8]) {
        self.words(octets, 24, &BASE64);
    }

    /// Appends Base64, as one word.
    pub(super) fn base64(&mut self, octets: &[u8]) {
        self.encoded(octets, &BASE64);
    }

    /// Appends Base32 with the extended hexadecimal alphabet, without padding (RFC 5155 §3.3).
    pub(super) fn base32(&mut self, octets: &[u8]) {
        self.encoded(octets, &BASE32_DNSSEC);
    }

    fn words(&mut self, octets: &[u8], octets_per_word: usize, encoding: &Encoding) {
        for (position, word) in octets.chunks(octets_per_word).enumerate() {
            if self.is_full() {
                return;
            }
            if position > 0 {
                self.ascii(b' ');
            }
            self.encoded(word, encoding);
        }
    }

    fn encoded(&mut self, octets: &[u8], encoding: &Encoding) {
        // Chunks of a multiple of 15 octets end at a character boundary in each of the encodings.
        for piece in octets.chunks(Self::PIECE) {
            if self.is_full() {
                return;
            }
            let start = self.octets.len();
            steps::count(encoding.encode_len(piece.len()));
            self.octets.resize(start + encoding.encode_len(piece.len()), 0);
            encoding.encode_mut(piece, &mut self.octets[start..]);
        }
    }

    /// Appends an IPv4 address in dotted form.
    pub(super) fn ipv4(&mut self, address: [u8; 4]) {
        let (dotted, length) = dotted(address);
        self.block(&dotted, length);
    }

    /// Appends an IPv6 address in the format of RFC 5952 §4, with the last 32 bits dotted if the
    /// first 96 bits mark an embedded IPv4 address: `::192.0.2.1`, `::ffff:192.0.2.1`.
    pub(super) fn ipv6(&mut self, address: [u8; 16]) {
        let mut groups = [0_u16; 8];
        for (group, octets) in groups.iter_mut().zip(address.as_chunks::<2>().0) {
            *group = u16::from_be_bytes(*octets);
        }
        let zeros = longest_zeros(&groups);
        if zeros == (0..6) || (zeros == (0..5) && groups[5] == 0xffff) {
            self.string(if zeros.end == 6 { "::" } else { "::ffff:" });
            return self.ipv4([address[12], address[13], address[14], address[15]]);
        }
        for (position, &group) in groups.iter().enumerate() {
            if zeros.contains(&position) {
                if position == zeros.start {
                    self.string("::");
                }
                continue;
            }
            if position > 0 && position != zeros.end {
                self.ascii(b':');
            }
            self.hexadecimal(group);
        }
    }

    /// Appends a number in hexadecimal without leading zeros.
    fn hexadecimal(&mut self, number: u16) {
        let digits = (16 - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            self.ascii(b"0123456789abcdef"[usize::from(number >> (4 * place) & 0xf)]);
        }
    }
}

/// Each octet as `\DDD`.
const ESCAPES: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut octet = 0u8;
    loop {
        table[octet as usize] =
            [b'\\', b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        if octet == u8::MAX {
            break table;
        }
        octet += 1;
    }
};

/// Returns true for octets that need no escape within quotes.
const fn is_plain(octet: u8) -> bool {
    matches!(octet, 0x20..=0x7e) && octet != b'"' && octet != b'\\'
}

/// Returns the first of the longest runs of at least two zero groups (RFC 5952 §4.2); empty at 9,
/// after the last group, if there is none.
fn longest_zeros(groups: &[u16; 8]) -> std::ops::Range<usize> {
    let mut longest = 9..9;
    let mut start = 0;
    for (position, &group) in groups.iter().enumerate() {
        if group != 0 {
            start = position + 1;
        } else if position + 1 - start > longest.len().max(1) {
            longest = start..position + 1;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn written(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        write(&mut text);
        text.finish()
    }

    #[test]
    fn numbers_are_decimal() {
        assert_eq!(written(|text| text.decimal(u32::MAX)), "4294967295");
        assert_eq!(written(|text| text.padded(7, 3)), "007");
        assert_eq!(written(|text| text.decimal_escape(255)), "\\255");
    }

    #[test]
    fn character_strings_are_quoted() {
        assert_eq!(written(|text| text.quoted(b"v=1; \"x\"\n")), "\"v=1; \\\"x\\\"\\010\"");
    }

    #[test]
    fn ipv4_addresses_are_dotted() {
        for octets in [[0; 4], [255; 4], [192, 0, 2, 1], [9, 10, 99, 100], [109, 200, 201, 7]] {
            let expected = Ipv4Addr::from(octets).to_string();
            assert_eq!(written(|text| text.ipv4(octets)), expected);
        }
    }

    #[test]
    fn ipv6_addresses_are_as_short_as_can_be() {
        for (address, expected) in [
            ("::", "::"),
            ("::1", "::1"),
            ("1::", "1::"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8:0:1:0:0:0:1", "2001:db8:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:0:2:3:4:5:6:7", "2001:0:2:3:4:5:6:7"),
            ("0:1:2:3:4:5:6:0", "0:1:2:3:4:5:6:0"),
            ("::ffff:c000:201", "::ffff:192.0.2.1"),
            ("::c000:201", "::192.0.2.1"),
            ("::2:c000:201", "::2:c000:201"),
            ("64:ff9b::c000:201", "64:ff9b::c000:201"),
        ] {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            assert_eq!(written(|text| text.ipv6(octets)), expected);
        }
    }

    #[test]
    fn long_values_come_in_words() {
        assert_eq!(written(|text| text.base64_words(&[0; 25])), format!("{} AA==", "A".repeat(32)));
        assert_eq!(written(|text| text.hex_words(&[0; 65])), format!("{} 00", "0".repeat(128)));
        let whole = written(|text| text.base64(&[0; 3_000]));
        assert_eq!(whole, "A".repeat(4_000));
    }

    #[test]
    fn writing_stops_soon_after_the_limit() {
        let mut text = Text::default();
        let octets = [0; u16::MAX as usize];
        text.quoted(&octets);
        text.hex(&octets);
        text.base64_words(&octets);
        assert!(text.is_full());
        assert!(text.len() < Text::LIMIT + 5 * Text::PIECE);
    }
}
