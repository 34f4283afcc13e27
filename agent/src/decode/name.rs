//! Domain names in presentation format.

/// Appends a name, given as its labels, in presentation format (RFC 1035 §5.1): `\.` and `\\`
/// escaped with a backslash, every octet outside printable ASCII as three decimal digits, no
/// trailing dot, the root as `.`. With `lower`, ASCII letters are lowered (RFC 4343 §2).
///
/// hickory-proto's own `Display` escapes in octal, which no zone file reader takes back.
pub fn push_presentation<'a>(
    out: &mut String,
    labels: impl IntoIterator<Item = &'a [u8]>,
    lower: bool,
) {
    let start = out.len();
    for label in labels {
        if out.len() > start {
            out.push('.');
        }
        for &octet in label {
            let octet = if lower { octet.to_ascii_lowercase() } else { octet };
            match octet {
                // The characters that a zone file reader gives a meaning to (RFC 1035 §5.1).
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                    out.push('\\');
                    out.push(char::from(octet));
                }
                0x21..=0x7e => out.push(char::from(octet)),
                _ => push_decimal_escape(out, octet),
            }
        }
    }
    if out.len() == start {
        out.push('.');
    }
}

/// Appends `text` as a quoted character string (RFC 1035 §5.1), as in TXT.
pub(super) fn push_character_string(out: &mut String, text: &[u8]) {
    out.push('"');
    for &octet in text {
        match octet {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(octet));
            }
            0x20..=0x7e => out.push(char::from(octet)),
            _ => push_decimal_escape(out, octet),
        }
    }
    out.push('"');
}

fn push_decimal_escape(out: &mut String, octet: u8) {
    out.push('\\');
    for digit in [octet / 100, octet / 10 % 10, octet % 10] {
        out.push(char::from(b'0' + digit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presentation(labels: &[&[u8]]) -> String {
        let mut out = String::new();
        push_presentation(&mut out, labels.iter().copied(), true);
        out
    }

    #[test]
    fn names_are_lowered_and_escaped_in_decimal() {
        assert_eq!(presentation(&[b"WWW", b"Example", b"test"]), "www.example.test");
        assert_eq!(presentation(&[]), ".");
        assert_eq!(presentation(&[b"a.b\\", b"\x00\xff "]), "a\\.b\\\\.\\000\\255\\032");
    }

    #[test]
    fn every_octet_of_a_label_reads_back() {
        for octet in 0..=u8::MAX {
            let text = presentation(&[&[octet]]);
            let back = match text.as_bytes() {
                [b'\\', digits @ ..] if digits.len() == 3 => {
                    std::str::from_utf8(digits).unwrap().parse().unwrap()
                }
                [b'\\', plain] | [plain] => *plain,
                other => panic!("octet {octet} became {other:?}"),
            };
            assert_eq!(back, octet.to_ascii_lowercase());
        }
    }

    #[test]
    fn character_strings_are_quoted() {
        let mut out = String::new();
        push_character_string(&mut out, b"v=1; \"x\"\n");
        assert_eq!(out, "\"v=1; \\\"x\\\"\\010\"");
    }
}
