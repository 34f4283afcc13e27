//! SVCB and HTTPS (RFC 9460).

use super::super::{cursor::Cursor, name, text::Text};

/// Writes `1 svc.test alpn="h2,h3" port="8443"`: priority, target, and the parameters by their
/// keys, with quoted values (RFC 9460 §2.1). Returns `None` if the keys do not increase or a value
/// does not have the format of its key (§2.2).
pub(super) fn write(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    text.decimal(rdata.u16()?);
    text.ascii(b' ');
    name::write(rdata, text)?;
    let mut lowest_key = 0_u32;
    while !rdata.is_empty() && !text.is_full() {
        let key = rdata.u16()?;
        if u32::from(key) < lowest_key {
            return None;
        }
        lowest_key = u32::from(key) + 1;
        let length = rdata.u16()?;
        let mut value = rdata.part(length.into())?;
        text.ascii(b' ');
        write_key(key, text);
        if takes_no_value(key, value.is_empty())? {
            continue;
        }
        text.string("=\"");
        write_value(key, &mut value, text)?;
        text.ascii(b'"');
        if !value.is_empty() && !text.is_full() {
            return None;
        }
    }
    Some(())
}

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;
const DOHPATH: u16 = 7;
const OHTTP: u16 = 8;
const DOCPATH: u16 = 10;

/// Appends the name of a key in IANA's "Service Parameter Keys (SvcParamKeys)", or `key9`.
fn write_key(key: u16, text: &mut Text) {
    text.string(match key {
        MANDATORY => "mandatory",
        ALPN => "alpn",
        NO_DEFAULT_ALPN => "no-default-alpn",
        PORT => "port",
        IPV4HINT => "ipv4hint",
        ECH => "ech",
        IPV6HINT => "ipv6hint",
        DOHPATH => "dohpath",
        OHTTP => "ohttp",
        DOCPATH => "docpath",
        _ => {
            text.string("key");
            return text.decimal(key);
        }
    });
}

/// Returns true if the key has no value; `None` if it must have one, or must not and has one.
fn takes_no_value(key: u16, empty: bool) -> Option<bool> {
    match key {
        NO_DEFAULT_ALPN | OHTTP => empty.then_some(true),
        MANDATORY | ALPN | PORT | IPV4HINT | ECH | IPV6HINT => (!empty).then_some(false),
        _ => Some(empty),
    }
}

fn write_value(key: u16, value: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    match key {
        MANDATORY => {
            // RFC 9460 §8: ascending, and without the key itself.
            let mut previous = MANDATORY;
            write_list(value, text, |value, text| {
                let key = value.u16()?;
                if key <= previous {
                    return None;
                }
                previous = key;
                write_key(key, text);
                Some(())
            })
        }
        ALPN | DOCPATH => write_list(value, text, |value, text| {
            let identifier = value.counted()?;
            if identifier.is_empty() {
                return None;
            }
            identifier.iter().for_each(|&octet| write_listed(octet, text));
            Some(())
        }),
        PORT => {
            text.decimal(value.u16()?);
            Some(())
        }
        IPV4HINT => write_list(value, text, |value, text| {
            text.ipv4(value.octets()?);
            Some(())
        }),
        IPV6HINT => write_list(value, text, |value, text| {
            text.ipv6(value.octets()?);
            Some(())
        }),
        ECH => {
            text.base64(value.rest());
            Some(())
        }
        _ => {
            while let (Some(octet), false) = (value.u8(), text.is_full()) {
                text.quotable(octet);
            }
            Some(())
        }
    }
}

/// Appends items up to the end, separated by commas.
fn write_list<'a>(
    value: &mut Cursor<'a>,
    text: &mut Text,
    mut write_item: impl FnMut(&mut Cursor<'a>, &mut Text) -> Option<()>,
) -> Option<()> {
    write_item(value, text)?;
    while !value.is_empty() && !text.is_full() {
        text.ascii(b',');
        write_item(value, text)?;
    }
    Some(())
}

/// Appends an octet of a list item: commas and backslashes are escaped for the list, and the result
/// is escaped for the character string that contains the list (RFC 9460 Appendix A.1).
fn write_listed(octet: u8, text: &mut Text) {
    if matches!(octet, b',' | b'\\') {
        text.quotable(b'\\');
    }
    text.quotable(octet);
}
