//! The fields of RDATA.

use jiff::{Timestamp, tz::Offset};

use super::{
    super::{code::type_mnemonic, cursor::Cursor, name, text::Text},
    bitmap,
};

/// A field, with its wire format and its text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// A one-byte integer, in decimal.
    U8,
    /// A two-byte integer, in decimal.
    U16,
    /// A four-byte integer, in decimal.
    U32,
    /// A two-byte integer, in octal.
    Octal,
    /// Seconds since 1970 in four bytes, as `YYYYMMDDHHmmSS` in UTC (RFC 4034 §3.2).
    Time,
    /// An RR type.
    Type,
    /// A certificate's type (RFC 4398 §2.1).
    CertificateType,
    /// A DNSSEC algorithm, by its mnemonic (RFC 4398 §2.2).
    Algorithm,
    /// A scheme of DSYNC (RFC 9859 §2.2).
    Scheme,
    /// A name.
    Name,
    /// Four bytes, dotted.
    Ipv4,
    /// Sixteen bytes, formatted as in RFC 5952.
    Ipv6,
    /// Six bytes in hexadecimal, with hyphens (RFC 7043 §3.2).
    Eui48,
    /// Eight bytes in hexadecimal, with hyphens (RFC 7043 §4.2).
    Eui64,
    /// Eight bytes in hexadecimal, a colon between each two (RFC 6742 §2.1.2).
    Locator64,
    /// A character string, quoted.
    Quoted,
    /// A character string that may be missing, quoted; nothing if it is empty.
    OptionalString,
    /// Character strings up to the end, at least one, quoted.
    Strings,
    /// A character string that is a decimal number (RFC 1712 §3), unquoted.
    Coordinate,
    /// A character string of letters and digits (RFC 8659 §4.1), unquoted.
    Tag,
    /// Everything up to the end, quoted.
    Rest,
    /// Everything up to the end, at least one byte, quoted.
    Target,
    /// Everything up to the end in Base64, in words.
    Base64,
    /// Everything up to the end in Base64, in words; `-` if there is nothing.
    Base64OrNone,
    /// Everything up to the end in Base64, in one word.
    Base64Word,
    /// Everything up to the end in hexadecimal, in words.
    Hex,
    /// Everything up to the end, at least one byte, in hexadecimal, in words.
    SomeHex,
    /// Everything up to the end in hexadecimal after `0x` (RFC 1706 §7).
    Nsap,
    /// Bytes with a one-byte length prefix in hexadecimal, `-` if there are none (RFC 5155 §3.3).
    Salt,
    /// At least one byte with a one-byte length prefix, in Base32 (RFC 5155 §3.3).
    Hash,
    /// Type bitmaps up to the end (RFC 4034 §4.1.2).
    Types,
}

impl Field {
    /// Appends the field and moves after it. Returns `None` if it is missing or malformed.
    pub(super) fn write(self, rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
        match self {
            Self::U8 => text.decimal(rdata.u8()?),
            Self::U16 => text.decimal(rdata.u16()?),
            Self::U32 => text.decimal(rdata.u32()?),
            Self::Octal => text.string(octal(rdata.u16()?, &mut [0; 6])),
            Self::Time => write_time(rdata.u32()?, text)?,
            Self::Type => write_type(rdata.u16()?, text),
            Self::CertificateType => mnemonic_or_number(certificate_type, rdata.u16()?, text),
            Self::Algorithm => mnemonic_or_number(algorithm, rdata.u8()?.into(), text),
            Self::Scheme => mnemonic_or_number(scheme, rdata.u8()?.into(), text),
            Self::Name => name::write(rdata, text)?,
            Self::Ipv4 => text.ipv4(rdata.octets()?),
            Self::Ipv6 => text.ipv6(rdata.octets()?),
            Self::Eui48 => write_groups(rdata.take(6)?, 1, b'-', text),
            Self::Eui64 => write_groups(rdata.take(8)?, 1, b'-', text),
            Self::Locator64 => write_groups(rdata.take(8)?, 2, b':', text),
            Self::Quoted => text.quoted(rdata.counted()?),
            Self::OptionalString => {
                if !rdata.is_empty() {
                    let string = rdata.counted()?;
                    if !string.is_empty() {
                        text.quoted(string);
                    }
                }
            }
            Self::Strings => {
                text.quoted(rdata.counted()?);
                while !rdata.is_empty() && !text.is_full() {
                    text.ascii(b' ');
                    text.quoted(rdata.counted()?);
                }
            }
            Self::Coordinate => text.string(decimal_number(rdata.counted()?)?),
            Self::Tag => text.string(alphanumeric(rdata.counted()?)?),
            Self::Rest => text.quoted(rdata.rest()),
            Self::Target => text.quoted(some(rdata.rest())?),
            Self::Base64 => text.base64_words(rdata.rest()),
            Self::Base64OrNone => match rdata.rest() {
                [] => text.ascii(b'-'),
                octets => text.base64_words(octets),
            },
            Self::Base64Word => text.base64(rdata.rest()),
            Self::Hex => text.hex_words(rdata.rest()),
            Self::SomeHex => text.hex_words(some(rdata.rest())?),
            Self::Nsap => {
                text.string("0x");
                text.hex(rdata.rest());
            }
            Self::Salt => match rdata.counted()? {
                [] => text.ascii(b'-'),
                salt => text.hex(salt),
            },
            Self::Hash => text.base32(some(rdata.counted()?)?),
            Self::Types => bitmap::write(rdata, text)?,
        }
        Some(())
    }
}

/// Appends an RR type: its mnemonic, or `TYPE65280` (RFC 3597 §5).
pub(super) fn write_type(code: u16, text: &mut Text) {
    match type_mnemonic(code) {
        Some(mnemonic) => text.string(mnemonic),
        None => {
            text.string("TYPE");
            text.decimal(code);
        }
    }
}

/// Appends the mnemonic of a code, or the code if there is none.
pub(super) fn mnemonic_or_number(
    mnemonic: impl FnOnce(u16) -> Option<&'static str>,
    code: u16,
    text: &mut Text,
) {
    match mnemonic(code) {
        Some(mnemonic) => text.string(mnemonic),
        None => text.decimal(code),
    }
}

/// Returns the mnemonic in IANA's "Certificate (CERT) Resource Record types".
const fn certificate_type(code: u16) -> Option<&'static str> {
    Some(match code {
        1 => "PKIX",
        2 => "SPKI",
        3 => "PGP",
        4 => "IPKIX",
        5 => "ISPKI",
        6 => "IPGP",
        7 => "ACPKIX",
        8 => "IACPKIX",
        253 => "URI",
        254 => "OID",
        _ => return None,
    })
}

/// Returns the mnemonic in IANA's "DNS Security Algorithm Numbers".
const fn algorithm(code: u16) -> Option<&'static str> {
    Some(match code {
        1 => "RSAMD5",
        2 => "DH",
        3 => "DSA",
        4 => "ECC",
        5 => "RSASHA1",
        6 => "DSANSEC3SHA1",
        7 => "RSASHA1NSEC3SHA1",
        8 => "RSASHA256",
        10 => "RSASHA512",
        12 => "ECCGOST",
        13 => "ECDSAP256SHA256",
        14 => "ECDSAP384SHA384",
        15 => "ED25519",
        16 => "ED448",
        18 => "MLDSA44",
        252 => "INDIRECT",
        253 => "PRIVATEDNS",
        254 => "PRIVATEOID",
        _ => return None,
    })
}

/// Returns the mnemonic in IANA's "DSYNC: Location of Synchronization Endpoints".
const fn scheme(code: u16) -> Option<&'static str> {
    match code {
        1 => Some("NOTIFY"),
        _ => None,
    }
}

fn octal(number: u16, digits: &mut [u8; 6]) -> &str {
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b"01234567"[usize::from(rest & 7)];
        rest >>= 3;
    }
    let zeros = digits.iter().take(5).take_while(|&&digit| digit == b'0').count();
    str::from_utf8(&digits[zeros..]).unwrap_or_default()
}

fn write_time(seconds: u32, text: &mut Text) -> Option<()> {
    let time = Offset::UTC.to_datetime(Timestamp::from_second(seconds.into()).ok()?);
    text.padded(time.year().unsigned_abs().into(), 4);
    for part in [time.month(), time.day(), time.hour(), time.minute(), time.second()] {
        text.padded(part.unsigned_abs().into(), 2);
    }
    Some(())
}

fn write_groups(octets: &[u8], octets_per_group: usize, separator: u8, text: &mut Text) {
    for (position, group) in octets.chunks(octets_per_group).enumerate() {
        if position > 0 {
            text.ascii(separator);
        }
        text.hex(group);
    }
}

pub(super) fn some(octets: &[u8]) -> Option<&[u8]> {
    (!octets.is_empty()).then_some(octets)
}

fn alphanumeric(octets: &[u8]) -> Option<&str> {
    let valid = !octets.is_empty() && octets.iter().all(u8::is_ascii_alphanumeric);
    if valid { str::from_utf8(octets).ok() } else { None }
}

/// Accepts digits with an optional point and an optional sign.
fn decimal_number(octets: &[u8]) -> Option<&str> {
    let number = str::from_utf8(octets).ok()?;
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |part: &str| part.bytes().all(|octet| octet.is_ascii_digit());
    let valid = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    valid.then_some(number)
}
