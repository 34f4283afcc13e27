//! Mnemonics of the IANA "Domain Name System (DNS) Parameters" registries.

use std::borrow::Cow;

use hickory_proto::rr::RecordType;

/// RR type as text: its mnemonic, or `TYPE65280` where none is known (RFC 3597 §5).
#[must_use]
pub fn type_name(code: u16) -> Cow<'static, str> {
    match RecordType::from(code) {
        RecordType::Unknown(_) | RecordType::ZERO => format!("TYPE{code}").into(),
        known => Cow::Borrowed(known.into()),
    }
}

/// Class as text: its mnemonic, or `CLASS1234` (RFC 3597 §5).
#[must_use]
pub fn class_name(code: u16) -> Cow<'static, str> {
    match code {
        1 => "IN".into(),
        3 => "CH".into(),
        4 => "HS".into(),
        254 => "NONE".into(),
        255 => "ANY".into(),
        _ => format!("CLASS{code}").into(),
    }
}

/// Response code as text, extended codes included: its mnemonic, or `RCODE24`.
#[must_use]
pub fn rcode_name(code: u16) -> Cow<'static, str> {
    match code {
        0 => "NOERROR".into(),
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        6 => "YXDOMAIN".into(),
        7 => "YXRRSET".into(),
        8 => "NXRRSET".into(),
        9 => "NOTAUTH".into(),
        10 => "NOTZONE".into(),
        11 => "DSOTYPENI".into(),
        16 => "BADVERS".into(),
        17 => "BADKEY".into(),
        18 => "BADTIME".into(),
        19 => "BADMODE".into(),
        20 => "BADNAME".into(),
        21 => "BADALG".into(),
        22 => "BADTRUNC".into(),
        23 => "BADCOOKIE".into(),
        _ => format!("RCODE{code}").into(),
    }
}

/// Opcode as text: its mnemonic, or `OPCODE7`.
#[must_use]
pub fn opcode_name(code: u8) -> Cow<'static, str> {
    match code {
        0 => "QUERY".into(),
        1 => "IQUERY".into(),
        2 => "STATUS".into(),
        4 => "NOTIFY".into(),
        5 => "UPDATE".into(),
        6 => "DSO".into(),
        _ => format!("OPCODE{code}").into(),
    }
}

#[cfg(test)]
mod tests {
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
}
