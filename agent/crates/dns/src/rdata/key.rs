//! Types with keys and codes whose length is in another field.

use super::{
    super::{code::rcode_mnemonic, cursor::Cursor, name, text::Text},
    field::{
        Field::{Name, U8, U16, U32},
        mnemonic_or_number,
    },
    form::write_fields,
};

/// IPSECKEY: precedence, gateway type, algorithm, gateway, public key (RFC 4025 §2, §3.1).
pub(super) fn write_ipsec(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let &[_, gateway_type] = rdata.peek(2)? else { return None };
    write_fields(&[U8, U8, U8], rdata, text)?;
    write_gateway(gateway_type, rdata, text)?;
    let key = rdata.rest();
    if !key.is_empty() {
        text.ascii(b' ');
        text.base64_words(key);
    }
    Some(())
}

/// AMTRELAY: precedence, discovery optional, relay type, relay (RFC 8777 §4.2, §4.3).
pub(super) fn write_multicast_relay(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let [precedence, relay_type] = rdata.octets()?;
    text.decimal(precedence);
    text.string(if relay_type & 0x80 != 0 { " 1 " } else { " 0 " });
    text.decimal(relay_type & 0x7f);
    write_gateway(relay_type & 0x7f, rdata, text)
}

/// A gateway or relay: none, an address or a name (RFC 4025 §2.3, RFC 8777 §4.2.3).
fn write_gateway(kind: u8, rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    text.ascii(b' ');
    match kind {
        0 => text.ascii(b'.'),
        1 => text.ipv4(rdata.octets()?),
        2 => text.ipv6(rdata.octets()?),
        3 => name::write(rdata, text)?,
        _ => return None,
    }
    Some(())
}

/// HIP: algorithm, host identity tag, public key, rendezvous servers (RFC 8005 §5, §6).
pub(super) fn write_host_identity(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let [tag_length, algorithm] = rdata.octets()?;
    let key_length = rdata.u16()?;
    text.decimal(algorithm);
    text.ascii(b' ');
    text.hex(rdata.take(tag_length.into())?);
    text.ascii(b' ');
    text.base64(rdata.take(key_length.into())?);
    while !rdata.is_empty() && !text.is_full() {
        text.ascii(b' ');
        name::write(rdata, text)?;
    }
    Some(())
}

/// TKEY: algorithm, inception, expiration, mode, error, key, other data (RFC 2930 §2).
pub(super) fn write_agreement(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    write_fields(&[Name, U32, U32, U16, U16], rdata, text)?;
    text.ascii(b' ');
    write_code(rdata.counted_u16()?, text);
    let other = rdata.counted_u16()?;
    if !other.is_empty() {
        text.ascii(b' ');
        text.base64(other);
    }
    Some(())
}

/// TSIG: algorithm, time signed, fudge, MAC size, MAC, original identifier, error, other length,
/// other data (RFC 8945 §4.2).
pub(super) fn write_transaction(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    name::write(rdata, text)?;
    let (time_high, time_low) = (rdata.u16()?, rdata.u32()?);
    text.ascii(b' ');
    text.decimal(u64::from(time_high) << 32 | u64::from(time_low));
    text.ascii(b' ');
    text.decimal(rdata.u16()?);
    let code = rdata.counted_u16()?;
    text.ascii(b' ');
    text.decimal(code.len() as u64);
    text.ascii(b' ');
    write_code(code, text);
    text.ascii(b' ');
    text.decimal(rdata.u16()?);
    text.ascii(b' ');
    mnemonic_or_number(transaction_error, rdata.u16()?, text);
    let other = rdata.counted_u16()?;
    text.ascii(b' ');
    text.decimal(other.len() as u64);
    if !other.is_empty() {
        text.ascii(b' ');
        text.base64(other);
    }
    Some(())
}

/// Writes a key or MAC in the middle of a record; an empty one still needs a token.
fn write_code(code: &[u8], text: &mut Text) {
    if code.is_empty() {
        text.string("\"\"");
    } else {
        text.base64(code);
    }
}

/// Returns the mnemonic of a TSIG error: a response code, except for 16 (RFC 8945 §3).
const fn transaction_error(code: u16) -> Option<&'static str> {
    match code {
        16 => Some("BADSIG"),
        _ => rcode_mnemonic(code),
    }
}
