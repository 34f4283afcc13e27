//! Formats addresses without std's formatting: each record contains two, and `Display` costs
//! several times as much.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tap53_dns::dotted;
use tap53_transactions::privacy::ShownAddress;

use super::binary::{Binary, Buffer};

/// Capacity in bytes: that of the longest text, `ffff:…:ffff/128`, and some more.
const CAPACITY: usize = 48;

/// An address as text, equal to std's `Display`: RFC 5952 for IPv6, IPv4-mapped addresses with the
/// IPv4 address in decimal (its section 5).
#[derive(Clone, Copy)]
pub(super) struct AddressText {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl AddressText {
    #[inline(always)]
    pub(super) fn new(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; CAPACITY], length: 0 };
        match address {
            IpAddr::V4(address) => text.push_ipv4(address),
            IpAddr::V6(address) => text.push_ipv6(address),
        }
        text
    }

    /// Formats the shown form of an address.
    #[inline(always)]
    pub(super) fn shown(address: &ShownAddress) -> Self {
        match address {
            ShownAddress::Address(address) => Self::new(*address),
            ShownAddress::Pseudonym(pseudonym) => {
                let mut text = Self { bytes: [0; CAPACITY], length: 0 };
                pseudonym.bytes().for_each(|byte| text.push(byte));
                text
            }
            ShownAddress::Nothing => Self { bytes: [0; CAPACITY], length: 0 },
        }
    }

    /// Formats `address/prefix`.
    pub(super) fn with_prefix(address: IpAddr, prefix: u8) -> Self {
        let mut text = Self::new(address);
        text.push(b'/');
        text.push_decimal(prefix);
        text
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    pub(super) fn as_str(&self) -> &str {
        // Only digits and separators are pushed.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn push_decimal(&mut self, octet: u8) {
        for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
            if octet >= least {
                self.push(b'0' + digit);
            }
        }
    }

    #[inline(always)]
    fn push_ipv4(&mut self, address: Ipv4Addr) {
        let (text, length) = dotted(address.octets());
        if let Some(place) = self.bytes.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut) {
            *place = text;
            self.length += length;
        }
    }

    fn push_ipv6(&mut self, address: Ipv6Addr) {
        if let Some(address) = address.to_ipv4_mapped() {
            for byte in *b"::ffff:" {
                self.push(byte);
            }
            return self.push_ipv4(address);
        }
        let words = address.segments();
        let (start, length) = longest_zeros(&words);
        for (position, word) in words.into_iter().enumerate() {
            if position == start && length > 0 {
                self.push(b':');
                if start == 0 {
                    self.push(b':');
                }
            }
            if (start..start + length).contains(&position) {
                continue;
            }
            self.push_hexadecimal(word);
            if position < 7 {
                self.push(b':');
            }
        }
    }

    /// Appends a word without leading zeros, in lower case (RFC 5952 §4.1, §4.3).
    fn push_hexadecimal(&mut self, word: u16) {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        for shift in [12, 8, 4, 0] {
            if shift == 0 || word >> shift != 0 {
                self.push(DIGITS[usize::from(word >> shift & 0xf)]);
            }
        }
    }
}

/// Writes an address as an Avro string. Its text and the length fit a block of constant size.
#[inline(always)]
pub(super) fn push_ipv4_string<R: Buffer + ?Sized>(address: Ipv4Addr, out: &mut Binary<'_, R>) {
    let (text, length) = dotted(address.octets());
    // The text has at most fifteen bytes: the length takes the place of the last one, which is zero.
    let block = (u128::from_le_bytes(text) << 8) | (2 * length as u128);
    out.block(block.to_le_bytes(), 1 + length);
}

/// Returns start and length of the words that `::` replaces: the longest run of at least two zeros,
/// the first of equal ones (RFC 5952 §4.2). The length is zero if there is none.
fn longest_zeros(words: &[u16; 8]) -> (usize, usize) {
    let (mut best, mut current) = ((0, 1), (0, 0));
    for (position, word) in words.iter().enumerate() {
        if *word != 0 {
            current = (position + 1, 0);
            continue;
        }
        current.1 += 1;
        if current.1 > best.1 {
            best = current;
        }
    }
    if best.1 > 1 { best } else { (0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_as_std_writes(address: IpAddr) {
        assert_eq!(AddressText::new(address).as_str(), address.to_string());
    }

    #[test]
    fn every_octet_is_written_as_std_writes_it() {
        for octet in 0..=u8::MAX {
            assert_as_std_writes([octet, 255 - octet, 0, octet].into());
        }
    }

    #[test]
    fn every_pattern_of_zero_words_is_written_as_std_writes_it() {
        for pattern in 0..=u8::MAX {
            for word in [1, 0xf, 0x10, 0xabc, 0xffff] {
                let mut words = [0u16; 8];
                for (position, place) in words.iter_mut().enumerate() {
                    *place = if pattern >> position & 1 == 1 { word } else { 0 };
                }
                assert_as_std_writes(words.into());
            }
        }
        for address in ["::ffff:192.0.2.1", "::192.0.2.1", "::ffff:0:0", "64:ff9b::192.0.2.33"] {
            assert_as_std_writes(address.parse::<Ipv6Addr>().unwrap().into());
        }
    }

    #[test]
    fn the_longest_texts_fit() {
        let address = IpAddr::from([0xffff; 8]);
        assert_eq!(
            AddressText::with_prefix(address, 255).as_str(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/255"
        );
        let mapped = "::ffff:255.255.255.255".parse().unwrap();
        assert_eq!(AddressText::with_prefix(mapped, 128).as_str(), "::ffff:255.255.255.255/128");
    }
}
