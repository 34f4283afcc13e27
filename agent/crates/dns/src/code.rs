//! Mnemonics of the IANA "Domain Name System (DNS) Parameters" registries.

use std::borrow::Cow;

/// Formats an RR type: its mnemonic, or `TYPE65280` if it has none (RFC 3597 §5).
#[must_use]
pub fn type_name(code: u16) -> Cow<'static, str> {
    type_mnemonic(code).map_or_else(|| format!("TYPE{code}").into(), Cow::Borrowed)
}

/// Returns the mnemonic of an RR type, including obsolete and reserved ones.
#[must_use]
pub const fn type_mnemonic(code: u16) -> Option<&'static str> {
    Some(match code {
        1 => "A",
        2 => "NS",
        3 => "MD",
        4 => "MF",
        5 => "CNAME",
        6 => "SOA",
        7 => "MB",
        8 => "MG",
        9 => "MR",
        10 => "NULL",
        11 => "WKS",
        12 => "PTR",
        13 => "HINFO",
        14 => "MINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        18 => "AFSDB",
        19 => "X25",
        20 => "ISDN",
        21 => "RT",
        22 => "NSAP",
        23 => "NSAP-PTR",
        24 => "SIG",
        25 => "KEY",
        26 => "PX",
        27 => "GPOS",
        28 => "AAAA",
        29 => "LOC",
        30 => "NXT",
        31 => "EID",
        32 => "NIMLOC",
        33 => "SRV",
        34 => "ATMA",
        35 => "NAPTR",
        36 => "KX",
        37 => "CERT",
        38 => "A6",
        39 => "DNAME",
        40 => "SINK",
        41 => "OPT",
        42 => "APL",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        49 => "DHCID",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        53 => "SMIMEA",
        55 => "HIP",
        56 => "NINFO",
        57 => "RKEY",
        58 => "TALINK",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        62 => "CSYNC",
        63 => "ZONEMD",
        64 => "SVCB",
        65 => "HTTPS",
        66 => "DSYNC",
        67 => "HHIT",
        68 => "BRID",
        99 => "SPF",
        100 => "UINFO",
        101 => "UID",
        102 => "GID",
        103 => "UNSPEC",
        104 => "NID",
        105 => "L32",
        106 => "L64",
        107 => "LP",
        108 => "EUI48",
        109 => "EUI64",
        128 => "NXNAME",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        253 => "MAILB",
        254 => "MAILA",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        258 => "AVC",
        259 => "DOA",
        260 => "AMTRELAY",
        261 => "RESINFO",
        262 => "WALLET",
        263 => "CLA",
        264 => "IPN",
        32_768 => "TA",
        32_769 => "DLV",
        _ => return None,
    })
}

/// Formats a class: its mnemonic, or `CLASS1234` (RFC 3597 §5).
#[must_use]
pub fn class_name(code: u16) -> Cow<'static, str> {
    class_mnemonic(code).map_or_else(|| format!("CLASS{code}").into(), Cow::Borrowed)
}

/// Returns the mnemonic of a class.
#[must_use]
pub const fn class_mnemonic(code: u16) -> Option<&'static str> {
    Some(match code {
        1 => "IN",
        3 => "CH",
        4 => "HS",
        254 => "NONE",
        255 => "ANY",
        _ => return None,
    })
}

/// Formats a response code, including extended ones: its mnemonic, or `RCODE24`.
#[must_use]
pub fn rcode_name(code: u16) -> Cow<'static, str> {
    rcode_mnemonic(code).map_or_else(|| format!("RCODE{code}").into(), Cow::Borrowed)
}

/// Returns the mnemonic of a response code. 16 is BADVERS, as in the OPT record; in TSIG and TKEY
/// records it is BADSIG (RFC 8945 §3).
#[must_use]
pub const fn rcode_mnemonic(code: u16) -> Option<&'static str> {
    Some(match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        11 => "DSOTYPENI",
        16 => "BADVERS",
        17 => "BADKEY",
        18 => "BADTIME",
        19 => "BADMODE",
        20 => "BADNAME",
        21 => "BADALG",
        22 => "BADTRUNC",
        23 => "BADCOOKIE",
        _ => return None,
    })
}

/// Formats an opcode: its mnemonic, or `OPCODE7`.
#[must_use]
pub fn opcode_name(code: u8) -> Cow<'static, str> {
    opcode_mnemonic(code).map_or_else(|| format!("OPCODE{code}").into(), Cow::Borrowed)
}

/// Returns the mnemonic of an opcode.
#[must_use]
pub const fn opcode_mnemonic(code: u8) -> Option<&'static str> {
    Some(match code {
        0 => "QUERY",
        1 => "IQUERY",
        2 => "STATUS",
        4 => "NOTIFY",
        5 => "UPDATE",
        6 => "DSO",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;

    #[test]
    fn unknown_codes_keep_their_number() {
        assert_eq!(type_name(65_280), "TYPE65280");
        assert_eq!(type_name(28), "AAAA");
        assert_eq!(type_name(0), "TYPE0");
        assert_eq!(class_name(7), "CLASS7");
        assert_eq!(rcode_name(4_000), "RCODE4000");
        assert_eq!(opcode_name(15), "OPCODE15");
    }

    #[test]
    fn hickory_calls_the_types_the_same() {
        for code in 0..=u16::MAX {
            match RecordType::from(code) {
                // These types are not in the registry: a private one, and a reserved number.
                RecordType::Unknown(_) | RecordType::ZERO | RecordType::ANAME => {}
                known => assert_eq!(type_mnemonic(code), Some(known.into())),
            }
        }
    }
}
