//! Formats IPv4 addresses, for decoding and encoding alike: several are written for each record.

/// Each octet in decimal with a dot appended, as the low bytes of a word, and the size of that in bits.
const DOTTED: [(u32, u32); 256] = {
    let mut table = [(0, 0); 256];
    let mut octet = 0u8;
    loop {
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        let (text, size) = match octet {
            0..10 => ([digits[2], b'.', 0, 0], 16),
            10..100 => ([digits[1], digits[2], b'.', 0], 24),
            100..=255 => ([digits[0], digits[1], digits[2], b'.'], 32),
        };
        table[octet as usize] = (u32::from_le_bytes(text), size);
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
    let (front, front_size) = two(a, b);
    let (back, back_size) = two(c, d);
    // Without the dot after the last octet.
    let back_size = back_size - 8;
    let back = back & !(0xff << back_size);
    let text = u128::from(front) | u128::from(back) << front_size;
    (text.to_le_bytes(), ((front_size + back_size) / 8) as usize)
}

/// Returns two octets with a dot after each, at most eight bytes, and their size in bits.
#[inline]
fn two(first: u8, second: u8) -> (u64, u32) {
    let (first, first_size) = DOTTED[usize::from(first)];
    let (second, second_size) = DOTTED[usize::from(second)];
    (u64::from(first) | u64::from(second) << first_size, first_size + second_size)
}
