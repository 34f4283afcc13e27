//! The OPT pseudo record and its options.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    super::{cursor::Cursor, text::Text},
    Message, Span, extent,
};

/// EDNS Client Subnet (RFC 7871 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSubnet {
    /// The address, zero after the source prefix; 0.0.0.0 for FAMILY 0, which has none.
    pub address: IpAddr,
    /// SOURCE PREFIX-LENGTH in bits.
    pub source_prefix: u8,
    /// SCOPE PREFIX-LENGTH in bits; zero in queries.
    pub scope_prefix: u8,
}

/// Extended DNS Error (RFC 8914 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError<'a> {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT with control characters and non-UTF-8 replaced, and without a NUL at its end.
    pub text: &'a str,
}

/// The OPT pseudo record (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'a> {
    /// EDNS version.
    pub version: u8,
    /// Requestor's UDP payload size in bytes.
    pub udp_payload_size: u16,
    /// DO: DNSSEC records are requested.
    pub dnssec_ok: bool,
    /// CO: compact denial of existence is welcome (RFC 9824 §5.1).
    pub compact_ok: bool,
    /// DE: delegations by DELEG records are welcome (draft-ietf-deleg).
    pub deleg_ok: bool,
    /// EDNS Client Subnet.
    pub client_subnet: Option<ClientSubnet>,
    /// Name server identifier (RFC 5001 §2.3); empty in queries.
    pub nsid: Option<&'a [u8]>,
    /// Client cookie, and the server's if it is known (RFC 7873 §4).
    pub cookie: Option<&'a [u8]>,
    /// The first Extended DNS Error (RFC 8914).
    pub extended_error: Option<ExtendedError<'a>>,
    /// Number of bytes of padding (RFC 7830).
    pub padding: Option<u16>,
    message: &'a Message,
}

impl<'a> Edns<'a> {
    #[inline]
    pub(super) fn view(spans: &EdnsSpans, message: &'a Message) -> Self {
        Self {
            version: spans.version,
            udp_payload_size: spans.udp_payload_size,
            dnssec_ok: spans.dnssec_ok,
            compact_ok: spans.compact_ok,
            deleg_ok: spans.deleg_ok,
            client_subnet: spans.client_subnet,
            nsid: spans.nsid.map(|span| message.octets(span)),
            cookie: spans.cookie.map(|span| message.octets(span)),
            extended_error: spans
                .extended_error
                .map(|(code, text)| ExtendedError { code, text: message.text(text) }),
            padding: spans.padding,
            message,
        }
    }

    /// Returns code and data of the options that have no field here, and of those that are
    /// malformed or repeated, in the order of the message. For an option that exceeds the record,
    /// it returns the available data.
    pub fn options(&self) -> impl ExactSizeIterator<Item = (u16, &'a [u8])> + use<'a> {
        let message = self.message;
        message.options.iter().map(|(code, data)| (*code, message.octets(*data)))
    }
}

/// The data of [`Edns`], as spans of the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EdnsSpans {
    version: u8,
    udp_payload_size: u16,
    dnssec_ok: bool,
    compact_ok: bool,
    deleg_ok: bool,
    client_subnet: Option<ClientSubnet>,
    nsid: Option<Span>,
    cookie: Option<Span>,
    extended_error: Option<(u16, Span)>,
    padding: Option<u16>,
}

/// Option codes (IANA "DNS EDNS0 Option Codes (OPT)").
const NSID: u16 = 3;
const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const PADDING: u16 = 12;
const EXTENDED_ERROR: u16 = 15;

/// The result of storing an option in the field for its code.
enum Stored {
    Yes,
    /// There is no such field, or it has a value already.
    No,
    Malformed,
}

impl Message {
    /// Reads an OPT record by its class, TTL and RDATA (RFC 6891 §6.1.3); returns false if one of
    /// its options is malformed.
    pub(super) fn read_edns(
        &mut self,
        class: u16,
        ttl: u32,
        mut rdata: Cursor<'_>,
        text: &mut Text,
    ) -> bool {
        let [extended_rcode, version, flags, _] = ttl.to_be_bytes();
        self.rcode |= u16::from(extended_rcode) << 4;
        let mut edns = EdnsSpans {
            version,
            udp_payload_size: class,
            dnssec_ok: flags & 0x80 != 0,
            compact_ok: flags & 0x40 != 0,
            deleg_ok: flags & 0x20 != 0,
            ..EdnsSpans::default()
        };
        let mut well_formed = true;
        while !rdata.is_empty() {
            let Some(code) = rdata.u16() else {
                well_formed = false;
                break;
            };
            let whole = rdata.counted_u16();
            let stored = match whole {
                Some(data) => self.store_option(&mut edns, code, data, text),
                None => Stored::Malformed,
            };
            well_formed &= !matches!(stored, Stored::Malformed);
            if !matches!(stored, Stored::Yes) {
                // The data after the length, if the option exceeds the record.
                let data = whole.unwrap_or_else(|| rdata.rest().get(2..).unwrap_or_default());
                let span = self.push_octets(data);
                self.options.push((code, span));
            }
        }
        self.edns = Some(edns);
        well_formed
    }

    fn store_option(
        &mut self,
        edns: &mut EdnsSpans,
        code: u16,
        data: &[u8],
        text: &mut Text,
    ) -> Stored {
        match code {
            NSID if edns.nsid.is_none() => edns.nsid = Some(self.push_octets(data)),
            CLIENT_SUBNET if edns.client_subnet.is_none() => {
                let Ok(subnet) = client_subnet(data) else { return Stored::Malformed };
                edns.client_subnet = subnet;
                if subnet.is_none() {
                    return Stored::No;
                }
            }
            COOKIE if edns.cookie.is_none() => {
                // Eight bytes of the client, eight to 32 of the server (RFC 7873 §4).
                if !matches!(data.len(), 8 | 16..=40) {
                    return Stored::Malformed;
                }
                edns.cookie = Some(self.push_octets(data));
            }
            PADDING if edns.padding.is_none() => {
                // An option's length has 16 bits.
                edns.padding = Some(u16::try_from(data.len()).unwrap_or(u16::MAX));
            }
            EXTENDED_ERROR if edns.extended_error.is_none() => {
                let Some((code, extra)) = data.split_first_chunk() else {
                    return Stored::Malformed;
                };
                edns.extended_error = Some((u16::from_be_bytes(*code), write_extra(extra, text)));
            }
            _ => return Stored::No,
        }
        Stored::Yes
    }
}

/// The option violates RFC 7871 §6.
struct Malformed;

/// Returns `None` for an unknown address family.
fn client_subnet(data: &[u8]) -> Result<Option<ClientSubnet>, Malformed> {
    let (&[family_high, family_low, source_prefix, scope_prefix], octets) =
        data.split_first_chunk().ok_or(Malformed)?;
    let address = match u16::from_be_bytes([family_high, family_low]) {
        1 => IpAddr::from(Ipv4Addr::from(padded(octets)?)),
        2 => IpAddr::from(Ipv6Addr::from(padded(octets)?)),
        // There is no address, which prefixes of length 0 mean in any family: nothing of the client
        // may be passed on (RFC 7871 §7.1.2). `dig +subnet=0` sends this.
        0 if source_prefix == 0 && scope_prefix == 0 && octets.is_empty() => {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        }
        0 => return Err(Malformed),
        _ => return Ok(None),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    // The prefix takes these octets; the bits after it are zeros.
    let octets_of_prefix = usize::from(source_prefix.div_ceil(8));
    let after_prefix = match source_prefix % 8 {
        0 => 0,
        used => octets.last().map_or(0, |octet| octet << used),
    };
    let valid = source_prefix <= bits
        && scope_prefix <= bits
        && octets.len() == octets_of_prefix
        && after_prefix == 0;
    if !valid {
        return Err(Malformed);
    }
    Ok(Some(ClientSubnet { address, source_prefix, scope_prefix }))
}

fn padded<const N: usize>(octets: &[u8]) -> Result<[u8; N], Malformed> {
    let mut whole = [0; N];
    whole.get_mut(..octets.len()).ok_or(Malformed)?.copy_from_slice(octets);
    Ok(whole)
}

/// EXTRA-TEXT may end with a NUL (RFC 8914 §2). A message has at most one such text, so its length
/// bounds it.
fn write_extra(extra: &[u8], text: &mut Text) -> Span {
    let start = extent(text.len());
    for chunk in extra.strip_suffix(b"\0").unwrap_or(extra).utf8_chunks() {
        for piece in chunk.valid().split_inclusive(char::is_control) {
            let visible = piece.trim_end_matches(char::is_control);
            text.string(visible);
            if visible.len() < piece.len() {
                text.string(REPLACEMENT);
            }
        }
        if !chunk.invalid().is_empty() {
            text.string(REPLACEMENT);
        }
    }
    Span { start, end: extent(text.len()) }
}

/// U+FFFD, the replacement character.
const REPLACEMENT: &str = "\u{fffd}";
