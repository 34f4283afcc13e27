//! APL and WKS: addresses with further data.

use super::{
    super::{cursor::Cursor, text::Text},
    bitmap,
};

/// APL: `1:192.0.2.0/24 !2:2001:db8::/32` (RFC 3123 §4, §5).
pub(super) fn write_prefixes(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let mut first = true;
    while !rdata.is_empty() && !text.is_full() {
        if !std::mem::take(&mut first) {
            text.ascii(b' ');
        }
        let family = rdata.u16()?;
        let prefix = rdata.u8()?;
        let [negated_length] = rdata.octets()?;
        // The address without trailing zeros.
        let address = rdata.take(usize::from(negated_length & 0x7f))?;
        if negated_length & 0x80 != 0 {
            text.ascii(b'!');
        }
        text.decimal(family);
        text.ascii(b':');
        match family {
            1 if prefix <= 32 => text.ipv4(padded(address)?),
            2 if prefix <= 128 => text.ipv6(padded(address)?),
            1 | 2 => return None,
            _ => text.hex(address),
        }
        text.ascii(b'/');
        text.decimal(prefix);
    }
    Some(())
}

/// WKS: address, protocol, ports (RFC 1035 §3.4.2).
pub(super) fn write_services(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    text.ipv4(rdata.octets()?);
    text.ascii(b' ');
    text.decimal(rdata.u8()?);
    let ports = rdata.rest();
    // One bit for each of 65,536 ports.
    if ports.len() > 8_192 {
        return None;
    }
    for port in bitmap::bits(ports) {
        if text.is_full() {
            break;
        }
        text.ascii(b' ');
        text.decimal(port);
    }
    Some(())
}

fn padded<const N: usize>(address: &[u8]) -> Option<[u8; N]> {
    let mut whole = [0; N];
    whole.get_mut(..address.len())?.copy_from_slice(address);
    Some(whole)
}
