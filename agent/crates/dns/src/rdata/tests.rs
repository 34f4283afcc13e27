//! RDATA of every type, well-formed and malformed.

use super::*;
use crate::code::{type_mnemonic, type_name};

/// Wire format and text, compared with dnspython 2.9 when they were written; types that it does not
/// know were compared with BIND's named-rrchecker.
const VECTORS: &str = include_str!("vectors.txt");

fn vectors() -> impl Iterator<Item = (u16, Vec<u8>, &'static str)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (mnemonic, rest) = line.split_once(' ').unwrap();
        let (hex, text) = rest.split_once(' ').unwrap();
        let rtype = match mnemonic.strip_prefix("TYPE") {
            Some(number) => number.parse().unwrap(),
            None => (0..=u16::MAX).find(|&code| type_mnemonic(code) == Some(mnemonic)).unwrap(),
        };
        (rtype, octets(hex), if text == "-" { "" } else { text })
    })
}

fn octets(hex: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(hex.trim_matches('-').as_bytes()).unwrap()
}

/// Returns the text, and whether the RDATA has the form of its type.
fn written(rtype: u16, class: u16, rdata: &[u8]) -> (String, bool) {
    let mut text = Text::default();
    let well_formed = write(Cursor::new(rdata), form(rtype, class), &mut text);
    (text.finish(), well_formed)
}

fn in_generic_form(rdata: &[u8]) -> String {
    let mut text = Text::default();
    generic(&mut Cursor::new(rdata), &mut text);
    text.finish()
}

#[test]
fn every_type_has_its_presentation_format() {
    for (rtype, rdata, text) in vectors() {
        assert_eq!(written(rtype, 1, &rdata), (text.to_owned(), true), "{}", type_name(rtype));
    }
    for rtype in (0..=u16::MAX).filter(|&rtype| form::of(rtype, 1).is_some()) {
        let tried = vectors().any(|(of, _, _)| of == rtype);
        assert!(tried || matches!(rtype, 4 | 7..=9), "no vector of {}", type_name(rtype));
    }
}

#[test]
fn rdata_of_another_form_keeps_its_bytes() {
    for (rtype, rdata, _) in vectors() {
        let name = type_name(rtype);
        for length in 0..rdata.len() {
            let (text, well_formed) = written(rtype, 1, &rdata[..length]);
            let kept = text == in_generic_form(&rdata[..length]);
            assert!(well_formed || kept, "{name}, {length} bytes: {text}");
        }
        let longer = [&rdata, &[0xaa; 300][..]].concat();
        let (text, well_formed) = written(rtype, 1, &longer);
        assert!(well_formed || text == in_generic_form(&longer), "{name}, longer: {text}");
    }
}

#[test]
fn malformed_rdata_is_not_written_in_its_form() {
    for (rtype, hex) in [
        (1, "c00002"),                                // A: three bytes
        (1, "c000020100"),                            // A: five
        (16, "-"),                                    // TXT: no string
        (16, "05616263"),                             // TXT: a string beyond the end
        (27, "012d01300130"),                         // GPOS: a sign and no digit
        (29, "0112161389172dd070be15f000988d20"),     // LOC: version 1
        (29, "00a2161389172dd070be15f000988d20"),     // LOC: a digit of ten
        (29, "00121613ffffffff70be15f000988d20"),     // LOC: beyond the pole
        (30, "00400000"),                             // NXT: a zero at the bitmap's end
        (30, "004000000000000000000000000000000001"), // NXT: a bitmap of 17 bytes
        (31, "-"),                                    // EID: nothing
        (34, "00"),                                   // ATMA: no address
        (34, "013a"),                                 // ATMA: a digit that is none
        (38, "8100"),                                 // A6: a prefix of 129 bits
        (38, "4020010db80000"),                       // A6: six bytes of eight
        (42, "00012104c0000201"),                     // APL: a prefix of 33 bits
        (42, "00012005c000020101"),                   // APL: five bytes of IPv4
        (45, "0a0402"),                               // IPSECKEY: gateway of kind 4
        (47, "0001010000"),                           // NSEC: nothing after window 1's length
        (47, "000000"),                               // NSEC: a bitmap of no bytes
        (47, "00010140000140"),                       // NSEC: window 0 after window 1
        (50, "01000001000000"),                       // NSEC3: no hash
        (64, "00010000030002003500010003026832"),     // SVCB: alpn after port
        (64, "0001000001000302683200"),               // SVCB: bytes after the last parameter
        (64, "00010000020001ff"),                     // SVCB: no-default-alpn with a value
        (64, "0001000003000100"),                     // SVCB: a port of one byte
        (64, "000100000000020000"),                   // SVCB: mandatory names itself
        (64, "00010000010000"),                       // SVCB: no protocol in alpn
        (256, "00010001"),                            // URI: no target
        (257, "00026920"),                            // CAA: a tag with a space
        (257, "0000"),                                // CAA: no tag
    ] {
        let rdata = octets(hex);
        assert_eq!(written(rtype, 1, &rdata), (in_generic_form(&rdata), false), "{hex}");
    }
}

#[test]
fn the_class_decides_where_the_type_leaves_it_open() {
    assert_eq!(written(1, 3, b"\x02ch\0\x01\xff"), ("ch 777".into(), true));
    assert_eq!(written(1, 3, b"\0\0\0"), (". 0".into(), true));
    assert_eq!(written(1, 4, &[192, 0, 2, 1]), ("\\# 4 c0000201".into(), true));
    assert_eq!(written(5, 4, b"\x01A\0"), ("a".into(), true));
    for class in [1, 0x8001, 254, 255] {
        assert_eq!(written(1, class, &[192, 0, 2, 1]), ("192.0.2.1".into(), true));
    }
}

#[test]
fn compressed_names_are_read_in_every_type() {
    let message = b"\x04test\0\x00\x01\x03SRV\xc0\x00";
    let mut cursor = Cursor::new(message);
    cursor.seek(6);
    let mut text = Text::default();
    assert!(write(cursor, form(36, 1), &mut text)); // KX
    assert_eq!(text.finish(), "1 srv.test");
}

#[test]
fn a_record_that_unfolds_stops_at_the_limit() {
    // HIP with rendezvous servers of two bytes each on the wire, and 980 characters in text.
    let mut message = [&[61][..], &[0; 61]].concat().repeat(4);
    message.push(0);
    let rdata = message.len();
    message.extend([0; 4]);
    message.extend([0xc0, 0].repeat(20_000));
    let mut cursor = Cursor::new(&message);
    cursor.seek(rdata);
    let mut text = Text::default();
    write(cursor, form(55, 1), &mut text);
    assert!(text.is_full());
    assert!(text.len() < Text::LIMIT + 1_100);
}
