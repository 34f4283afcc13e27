//! Historic types whose format depends on their content.

use super::{
    super::{cursor::Cursor, name, text::Text},
    bitmap,
    field::{Field::U8, some},
    form::write_fields,
    generic,
};

/// NXT: next name, types below 128 (RFC 2535 §5.2, obsoleted by RFC 3755).
pub(super) fn write_next(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let mut whole = *rdata;
    let start = text.len();
    name::write(rdata, text)?;
    match rdata.rest() {
        // Bit 0 announces another format, which was never defined.
        [0x80..=0xff, ..] => {
            text.truncate(start);
            generic(&mut whole, text);
        }
        types if types.len() > 16 || types.last() == Some(&0) => return None,
        types => bitmap::bits(types).for_each(|rtype| {
            text.ascii(b' ');
            super::field::write_type(rtype, text);
        }),
    }
    Some(())
}

/// A6: length of the prefix, the remaining address, the prefix's name (RFC 2874 §3.1, made historic
/// by RFC 6563).
pub(super) fn write_chained_address(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let prefix = rdata.u8()?;
    if prefix > 128 {
        return None;
    }
    text.decimal(prefix);
    let mut address = [0; 16];
    let suffix = address.get_mut(usize::from(prefix / 8)..)?;
    suffix.copy_from_slice(rdata.take(suffix.len())?);
    if let Some(first) = suffix.first_mut() {
        // Padding, which a receiver must ignore.
        *first &= 0xff >> (prefix % 8);
        text.ascii(b' ');
        text.ipv6(address);
    }
    if prefix > 0 {
        text.ascii(b' ');
        name::write(rdata, text)?;
    }
    Some(())
}

/// ATMA: an end system's address in hexadecimal, or digits of E.164 after `+` (ATM Forum,
/// af-saa-0069, §5.2).
pub(super) fn write_atm(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let mut whole = *rdata;
    let format = rdata.u8()?;
    let address = some(rdata.rest())?;
    match format {
        0 => text.hex(address),
        1 if address.iter().all(u8::is_ascii_digit) => {
            text.ascii(b'+');
            text.mapped(address, |digit| digit);
        }
        1 => return None,
        // Formats that may be defined later.
        _ => generic(&mut whole, text),
    }
    Some(())
}

/// SINK: meaning, coding, subcoding, and the encoded data (draft-eastlake-kitchen-sink-02 §2).
pub(super) fn write_sink(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    write_fields(&[U8, U8, U8], rdata, text)?;
    let coded = rdata.rest();
    if !coded.is_empty() {
        text.ascii(b' ');
        text.base64_words(coded);
    }
    Some(())
}
