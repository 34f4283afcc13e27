//! The form of the labels before a registrable domain.

/// Length from which on a label may be part of encoded data: chunks of tunnels are much longer, except
/// for the last one of a name.
const MIN_CHUNK: u32 = 24;

/// Minimum entropy of such a label in bits per character. Base32, base64 and binary data have more than
/// 4 at this length, and words have 3 to 3.5.
const MIN_ENTROPY: f32 = 3.5;

/// Minimum length of the label after such a one, which is the rest of the data.
const MIN_REST: u32 = 8;

/// Maximum number of octets beyond ASCII. Names of hosts have none, those of services (RFC 6763) some.
const MAX_BINARY: u32 = 16;

/// Maximum number of encoded characters of a lookup of a hash: 64 exceeds SHA-256 in base32, and more
/// than 128 hexadecimal digits exceed SHA-512.
const MAX_HASH: u32 = 64;
const MAX_HEX_HASH: u32 = 128;

/// The form of a name's labels before its registrable domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Characters in labels that look encoded, without hexadecimal ones.
    pub(crate) encoded: u32,
    /// Characters in long labels of hexadecimal digits.
    pub(crate) hex: u32,
    /// Octets beyond ASCII in encoded labels.
    pub(crate) binary: u32,
    /// True if the last label was encoded.
    follows_encoded: bool,
    /// True if a label looks encoded, however short.
    pub(crate) is_random: bool,
}

impl Shape {
    /// Reads the labels in presentation format.
    pub(crate) fn of(labels: &str) -> Self {
        let mut shape = Self::default();
        let mut label = Label::default();
        let mut octets = labels.bytes();
        while let Some(octet) = octets.next() {
            match octet {
                b'.' => shape.add(std::mem::take(&mut label)),
                b'\\' => label.push(unescaped(&mut octets)),
                octet => label.push(octet),
            }
        }
        shape.add(label);
        shape
    }

    fn add(&mut self, label: Label) {
        self.is_random |= label.is_random();
        let follows_encoded = std::mem::take(&mut self.follows_encoded);
        if label.length < MIN_CHUNK {
            if follows_encoded && label.length >= MIN_REST && label.is_random() {
                self.encoded += label.length;
            }
        } else if label.is_hex() {
            self.hex += label.length;
        } else if label.entropy() >= MIN_ENTROPY {
            self.encoded += label.length;
            self.binary += label.binary;
            self.follows_encoded = true;
        }
    }

    /// Returns true if the name has more data than a lookup of a hash needs.
    pub(crate) const fn is_long(self) -> bool {
        self.encoded > MAX_HASH
            || self.encoded + self.hex > MAX_HEX_HASH
            || self.binary > MAX_BINARY
    }
}

/// Returns the octet of an escape after its backslash: `\.` or `\046`.
fn unescaped(octets: &mut std::str::Bytes<'_>) -> u8 {
    let digit = |octet: Option<u8>| octet.unwrap_or(b'0').wrapping_sub(b'0');
    match octets.next() {
        Some(hundreds @ b'0'..=b'9') => {
            let (tens, ones) = (digit(octets.next()), digit(octets.next()));
            digit(Some(hundreds))
                .wrapping_mul(100)
                .wrapping_add(tens.wrapping_mul(10))
                .wrapping_add(ones)
        }
        octet => octet.unwrap_or(b'\\'),
    }
}

/// One label while it is read.
#[derive(Clone)]
struct Label {
    length: u32,
    letters: u32,
    others: u32,
    /// Octets beyond ASCII.
    binary: u32,
    /// Changes between letters and digits.
    changes: u32,
    last: u8,
    /// Number of occurrences of each octet, by its low six bits.
    counts: [u8; 64],
}

impl Default for Label {
    fn default() -> Self {
        Self { length: 0, letters: 0, others: 0, binary: 0, changes: 0, last: 0, counts: [0; 64] }
    }
}

impl Label {
    #[inline]
    fn push(&mut self, octet: u8) {
        let class = match octet {
            b'0'..=b'9' => 1,
            b'a'..=b'f' => 2,
            b'g'..=b'z' => 3,
            _ => 0,
        };
        self.length += 1;
        self.letters += u32::from(class == 3);
        self.others += u32::from(class == 0 && !matches!(octet, b'-' | b'_'));
        self.binary += u32::from(!octet.is_ascii());
        self.changes += u32::from((self.last == 1) != (class == 1) && self.last != 0 && class != 0);
        self.last = class;
        let count = &mut self.counts[usize::from(octet & 63)];
        *count = count.saturating_add(1);
    }

    const fn is_hex(&self) -> bool {
        self.letters + self.others == 0
    }

    /// Returns the entropy in bits per character.
    fn entropy(&self) -> f32 {
        if self.length == 0 {
            return 0.0;
        }
        let length = f32::from(u16::try_from(self.length).unwrap_or(u16::MAX));
        let counts = self.counts.iter().filter(|count| **count > 1).map(|count| f32::from(*count));
        length.log2() - counts.map(|count| count * count.log2()).sum::<f32>() / length
    }

    /// Returns true for a label such as `paaqab2i` that is no word, address or hash.
    const fn is_random(&self) -> bool {
        self.length >= 7 && (self.others > 0 || self.letters > 0 && self.changes >= 2)
            || self.length >= MIN_CHUNK && !self.is_hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_longer_than_a_hash() {
        // 57 and 43 characters of base32, as tunnels send them.
        let base32 = "a3kq0zj5vxw1ytre2hbn4mcpgsu5dflo3ia0qkzwv1xjy2trh4ebnmcp5\
                      .sgu0dlfo3i1akq5zwvxj2ytr4hebn0mcpsgu3dlf1oia";
        assert!(Shape::of(base32).is_long());
        let rest = "a3kq0zj5vxw1ytre2hbn4mcpgsu5dflo3ia0qkzwv1xjy2trh4ebnmcp5.sgu0dlfo3i1akq5";
        assert!(Shape::of(rest).is_long());
        let sha256 = "9f86d081884c7d659a2feaa0c55ad015.a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(Shape::of(sha256), Shape { hex: 64, ..Shape::default() });
        assert!(!Shape::of(sha256).is_long());
        let sha256 = "mbsxe3tdnjzxa3dfon2wk4tfoi3dcmzvga3tinbqgezdgnbv2a4q";
        assert!(!Shape::of(sha256).is_long(), "52 characters of base32");
    }

    #[test]
    fn lookups_and_long_words_are_no_data() {
        for labels in [
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2",
            "77.2.0.192",
            "www",
            "",
            "this-is-the-longest-name-of-a-service.in-a-namespace-with-a-long-name.svc",
            "550e8400-e29b-41d4-a716-446655440000",
        ] {
            assert!(!Shape::of(labels).is_long(), "{labels}: {:?}", Shape::of(labels));
        }
        assert!(!Shape::of("77.2.0.192").is_random);
        assert!(!Shape::of("mail.example.com").is_random);
        assert!(!Shape::of("selector1._domainkey").is_random);
        assert!(Shape::of("paaq4b2i").is_random);
    }

    #[test]
    fn binary_data_is_read_from_its_escapes() {
        let label = |from: u32| {
            (0..57).map(|n| format!("\\{}", 188 + (from + n * 37 % 64) % 64)).collect::<String>()
        };
        let shape = Shape::of(&format!("{}.{}", label(0), label(9)));
        assert_eq!((shape.encoded, shape.binary, shape.is_random), (114, 114, true));
        assert!(Shape::of(&label(0)).is_long(), "half a hash, but not of characters");
        for odd in ["\\", "\\2", "\\25", "\\999", "a\\.b"] {
            assert!(!Shape::of(odd).is_long());
        }
    }
}
