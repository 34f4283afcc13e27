//! The format of the RDATA of each type.

use super::{
    super::{cursor::Cursor, text::Text},
    address,
    field::Field::{self, *},
    historic, key, location, svcb,
};
use Form::{By, Fields};

/// The format of RDATA.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// A sequence of fields, separated by spaces.
    Fields(&'static [Field]),
    /// Written by a function, if one field determines the format of others.
    By(fn(&mut Cursor<'_>, &mut Text) -> Option<()>),
}

impl Form {
    /// Returns true if RDATA of this form is a single name.
    pub(crate) const fn is_name(self) -> bool {
        matches!(self, Self::Fields([Name]))
    }

    /// Appends the RDATA. Returns `None` if it does not have this form.
    pub(super) fn write(self, rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
        match self {
            Self::Fields([field]) => field.write(rdata, text),
            Self::Fields(fields) => write_fields(fields, rdata, text),
            Self::By(write) => write(rdata, text),
        }
    }
}

/// Writes fields separated by spaces; an empty field gets no space.
pub(super) fn write_fields(
    fields: &[Field],
    rdata: &mut Cursor<'_>,
    text: &mut Text,
) -> Option<()> {
    for (position, field) in fields.iter().enumerate() {
        let before = text.len();
        if position > 0 {
            text.ascii(b' ');
        }
        let start = text.len();
        field.write(rdata, text)?;
        if text.len() == start {
            text.truncate(before);
        }
    }
    Some(())
}

/// Returns the form of a type's RDATA; `None` if the type is unknown, or not defined in the class.
pub(crate) fn of(rtype: u16, class: u16) -> Option<Form> {
    in_every_class(rtype).or_else(|| match class {
        // A record of an update may have class NONE or ANY and still belong to its zone's class
        // (RFC 2136 §2.5); Multicast DNS sets the class's top bit (RFC 6762 §10.2).
        IN | NONE | ANY | MULTICAST_IN => in_internet_class(rtype),
        // No current RFC defines it: a network's name and an address there, in octal, as BIND
        // writes it.
        CH if rtype == 1 => Some(Fields(&[Name, Octal])),
        _ => None,
    })
}

const IN: u16 = 1;
const CH: u16 = 3;
const NONE: u16 = 254;
const ANY: u16 = 255;
const MULTICAST_IN: u16 = 0x8001;

/// Types that RFC 1035 and its successors define for one class.
#[rustfmt::skip]
fn in_internet_class(rtype: u16) -> Option<Form> {
    Some(match rtype {
        1       => Fields(&[Ipv4]),                                // A           RFC 1035 §3.4.1
        11      => By(address::write_services),                    // WKS         RFC 1035 §3.4.2
        22      => Fields(&[Nsap]),                                // NSAP        RFC 1706 §5
        23      => Fields(&[Name]),                                // NSAP-PTR    RFC 1348
        26      => Fields(&[U16, Name, Name]),                     // PX          RFC 2163 §4
        28      => Fields(&[Ipv6]),                                // AAAA        RFC 3596 §2.2
        31 | 32 => Fields(&[SomeHex]),                             // EID, NIMLOC draft-ietf-nimrod-dns-01 §3
        33      => Fields(&[U16, U16, U16, Name]),                 // SRV         RFC 2782
        34      => By(historic::write_atm),                        // ATMA        af-saa-0069 §5.2
        35      => Fields(&[U16, U16, Quoted, Quoted, Quoted, Name]), // NAPTR    RFC 3403 §4.1
        36      => Fields(&[U16, Name]),                           // KX          RFC 2230 §3.1
        38      => By(historic::write_chained_address),            // A6          RFC 2874 §3.1
        42      => By(address::write_prefixes),                    // APL         RFC 3123 §4
        45      => By(key::write_ipsec),                           // IPSECKEY    RFC 4025 §2
        49      => Fields(&[Base64]),                              // DHCID       RFC 4701 §3.1
        64 | 65 => By(svcb::write),                                // SVCB, HTTPS RFC 9460 §2.2
        _ => return None,
    })
}

#[rustfmt::skip]
fn in_every_class(rtype: u16) -> Option<Form> {
    Some(match rtype {
        2       => Fields(&[Name]),                                // NS          RFC 1035 §3.3.11
        3 | 4   => Fields(&[Name]),                                // MD, MF      RFC 1035 §3.3.4, §3.3.5
        5       => Fields(&[Name]),                                // CNAME       RFC 1035 §3.3.1
        6       => Fields(&[Name, Name, U32, U32, U32, U32, U32]), // SOA         RFC 1035 §3.3.13
        7..=9   => Fields(&[Name]),                                // MB, MG, MR  RFC 1035 §3.3.3, §3.3.6, §3.3.8
        12      => Fields(&[Name]),                                // PTR         RFC 1035 §3.3.12
        13      => Fields(&[Quoted, Quoted]),                      // HINFO       RFC 1035 §3.3.2
        14      => Fields(&[Name, Name]),                          // MINFO       RFC 1035 §3.3.7
        15      => Fields(&[U16, Name]),                           // MX          RFC 1035 §3.3.9
        16      => Fields(&[Strings]),                             // TXT         RFC 1035 §3.3.14
        17      => Fields(&[Name, Name]),                          // RP          RFC 1183 §2.2
        18      => Fields(&[U16, Name]),                           // AFSDB       RFC 1183 §1
        19      => Fields(&[Quoted]),                              // X25         RFC 1183 §3.1
        20      => Fields(&[Quoted, OptionalString]),              // ISDN        RFC 1183 §3.2
        21      => Fields(&[U16, Name]),                           // RT          RFC 1183 §3.3
        24      => Fields(SIGNATURE),                              // SIG         RFC 2535 §4.1
        25      => Fields(&[U16, U8, U8, Base64]),                 // KEY         RFC 2535 §3.1
        27      => Fields(&[Coordinate, Coordinate, Coordinate]),  // GPOS        RFC 1712 §3
        29      => By(location::write),                            // LOC         RFC 1876 §2
        30      => By(historic::write_next),                       // NXT         RFC 2535 §5
        37      => Fields(&[CertificateType, U16, Algorithm, Base64]), // CERT    RFC 4398 §2
        39      => Fields(&[Name]),                                // DNAME       RFC 6672 §2.1
        40      => By(historic::write_sink),                       // SINK        draft-eastlake-kitchen-sink-02 §2
        43      => Fields(&[U16, U8, U8, Hex]),                    // DS          RFC 4034 §5.1
        44      => Fields(&[U8, U8, Hex]),                         // SSHFP       RFC 4255 §3.1
        46      => Fields(SIGNATURE),                              // RRSIG       RFC 4034 §3.1
        47      => Fields(&[Name, Types]),                         // NSEC        RFC 4034 §4.1
        48      => Fields(&[U16, U8, U8, Base64]),                 // DNSKEY      RFC 4034 §2.1
        50      => Fields(&[U8, U8, U16, Salt, Hash, Types]),      // NSEC3       RFC 5155 §3.2
        51      => Fields(&[U8, U8, U16, Salt]),                   // NSEC3PARAM  RFC 5155 §4.2
        52      => Fields(&[U8, U8, U8, Hex]),                     // TLSA        RFC 6698 §2.1
        53      => Fields(&[U8, U8, U8, Hex]),                     // SMIMEA      RFC 8162 §2
        55      => By(key::write_host_identity),                   // HIP         RFC 8005 §5
        56      => Fields(&[Strings]),                             // NINFO       IANA's template
        57      => Fields(&[U16, U8, U8, Base64]),                 // RKEY        IANA's template
        58      => Fields(&[Name, Name]),                          // TALINK      IANA's template
        59      => Fields(&[U16, U8, U8, Hex]),                    // CDS         RFC 7344 §3.1
        60      => Fields(&[U16, U8, U8, Base64]),                 // CDNSKEY     RFC 7344 §3.2
        61      => Fields(&[Base64Word]),                          // OPENPGPKEY  RFC 7929 §2.1
        62      => Fields(&[U32, U16, Types]),                     // CSYNC       RFC 7477 §2.1
        63      => Fields(&[U32, U8, U8, Hex]),                    // ZONEMD      RFC 8976 §2.2
        66      => Fields(&[Type, Scheme, U16, Name]),             // DSYNC       RFC 9859 §2.1
        67 | 68 => Fields(&[Base64Word]),                          // HHIT, BRID  RFC 9886
        99      => Fields(&[Strings]),                             // SPF         RFC 4408 §3.1.1
        104     => Fields(&[U16, Locator64]),                      // NID         RFC 6742 §2.1
        105     => Fields(&[U16, Ipv4]),                           // L32         RFC 6742 §2.2
        106     => Fields(&[U16, Locator64]),                      // L64         RFC 6742 §2.3
        107     => Fields(&[U16, Name]),                           // LP          RFC 6742 §2.4
        108     => Fields(&[Eui48]),                               // EUI48       RFC 7043 §3.1
        109     => Fields(&[Eui64]),                               // EUI64       RFC 7043 §4.1
        249     => By(key::write_agreement),                       // TKEY        RFC 2930 §2
        250     => By(key::write_transaction),                     // TSIG        RFC 8945 §4.2
        256     => Fields(&[U16, U16, Target]),                    // URI         RFC 7553 §4.1
        257     => Fields(&[U8, Tag, Rest]),                       // CAA         RFC 8659 §4.1
        258     => Fields(&[Strings]),                             // AVC         IANA's template
        259     => Fields(&[U32, U32, U8, Quoted, Base64OrNone]),  // DOA         draft-durand-doa-over-dns-02 §3
        260     => By(key::write_multicast_relay),                 // AMTRELAY    RFC 8777 §4.2
        261     => Fields(&[Strings]),                             // RESINFO     RFC 9606 §3
        262     => Fields(&[Strings]),                             // WALLET      IANA's template
        32_768  => Fields(&[U16, U8, U8, Hex]),                    // TA          IANA's template
        32_769  => Fields(&[U16, U8, U8, Hex]),                    // DLV         RFC 4431 §2
        _ => return None,
    })
}

/// Type covered, algorithm, labels, original TTL, expiration, inception, key tag, signer, signature.
const SIGNATURE: &[Field] = &[Type, U8, U8, U32, Time, Time, U16, Name, Base64];
