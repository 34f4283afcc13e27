//! Formats IPv4 addresses, for decoding and encoding alike: several are written for each record.

/// Each octet in decimal with a dot appended, as the low bytes of a word.
const DOTTED: [u32; 256] = {
    let mut table = [0; 256];
    let mut octet = 0u8;
    loop {
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        table[octet as usize] = u32::from_le_bytes(match octet {
            0..10 => [digits[2], b'.', 0, 0],
            10..100 => [digits[1], digits[2], b'.', 0],
            100..=255 => [digits[0], digits[1], digits[2], b'.'],
        });
        if octet == u8::MAX {
            break table;
        }
        octet += 1;
    }
};

/// Returns the address as dotted text, padded with zeros, and its length.
#[inline]
pub fn dotted([a, b, c, d]: [u8; 4]) -> ([u8; 16], usize) {
    // Assemble it in registers: loading a word that was stored in parts stalls.
    let (front, length) = two(a, b);
    let (back, back_length) = two(c, d);
    // Without the dot after the last octet.
    let back_length = back_length - 1;
    let back = back & !(0xff << (8 * back_length));
    let text = u128::from(front) | u128::from(back) << (8 * length);
    (text.to_le_bytes(), (length + back_length) as usize)
}

/// Returns two octets with a dot after each, at most eight bytes, and their length.
#[inline]
fn two(first: u8, second: u8) -> (u64, u32) {
    let [a, b] = [first, second].map(|octet| u64::from(DOTTED[usize::from(octet)]));
    (a | b << (8 * length(first)), length(first) + length(second))
}

/// Returns the length of an octet and a dot.
#[inline]
const fn length(octet: u8) -> u32 {
    2 + (octet >= 10) as u32 + (octet >= 100) as u32
}
