//! Type bitmaps of NSEC, NSEC3 and CSYNC.

use super::{
    super::{cursor::Cursor, steps, text::Text},
    field::write_type,
};

/// Appends the types of the bitmaps up to the end, separated by spaces. Returns `None` if the
/// windows are out of order or a bitmap does not have 1 to 32 bytes (RFC 4034 §4.1.2).
pub(super) fn write(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let mut lowest_window = 0_u16;
    let start = text.len();
    while !rdata.is_empty() {
        let window = u16::from(rdata.u8()?);
        let bitmap = rdata.counted()?;
        if window < lowest_window || !(1..=32).contains(&bitmap.len()) {
            return None;
        }
        lowest_window = window + 1;
        for bit in bits(bitmap) {
            if text.len() > start {
                text.ascii(b' ');
            }
            write_type((window << 8) | bit, text);
        }
        if text.is_full() {
            break;
        }
    }
    Some(())
}

/// Returns the positions of the set bits; the first octet's highest bit is 0.
pub(super) fn bits(octets: &[u8]) -> impl Iterator<Item = u16> {
    octets.iter().zip(0_u16..).flat_map(|(&octet, position)| {
        steps::count(8);
        (0..8).filter(move |bit| octet & (0x80 >> bit) != 0).map(move |bit| position * 8 + bit)
    })
}
