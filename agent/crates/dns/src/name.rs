//! Converts domain names from the wire to presentation format in one pass.

use super::{cursor::Cursor, steps, text::Text};

/// Maximum octets of a name on the wire, including lengths and the root (RFC 1035 §3.1).
const MAX_OCTETS: usize = 255;

/// Maximum number of pointers in a name. A name of 255 octets has at most 127 labels before its
/// root, and a pointer only saves space after a label, or in place of a whole name: no compressor
/// needs more. RFC 1035 has no such limit; without one, each of thousands of names in a message
/// could lead through thousands of pointers.
const MAX_POINTERS: usize = 127;

/// Work charged for following a pointer, and for each label besides its text, in octets of text, by
/// the time that they take.
const POINTER_WORK: usize = 4;
const LABEL_WORK: usize = 1;

/// The form of an octet of a label in presentation format: its lower case if it needs no escape, or
/// one of the marks below.
const PRESENTATION: Presentation = presentation_of(true);

/// The same with letters as they were sent.
const PRESENTATION_AS_SENT: Presentation = presentation_of(false);

type Presentation = [u8; 256];

const fn presentation_of(lower_case: bool) -> Presentation {
    let mut table = [DECIMAL; 256];
    let mut octet = 0x21;
    while octet < 0x7f {
        table[octet as usize] = match octet {
            // The characters with a meaning in zone files (RFC 1035 §5.1).
            b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => BACKSLASH,
            _ if lower_case => octet.to_ascii_lowercase(),
            _ => octet,
        };
        octet += 1;
    }
    table
}
/// The octet becomes a backslash and three decimal digits.
const DECIMAL: u8 = 0;
/// A backslash precedes the octet.
const BACKSLASH: u8 = 1;

/// Appends the name at the cursor in presentation format (RFC 1035 §5.1) and moves after it: ASCII
/// letters in lower case (RFC 4343 §2), no trailing dot, the root as `.`, `\.` for a dot within a
/// label, and every octet outside printable ASCII as three decimal digits.
///
/// Returns `None`, with a part of the name written, for an invalid name (RFC 1035 §4.1.4, RFC 9267
/// §2): one that is truncated, is longer than 255 octets, has labels of another kind than length
/// and text, or has a pointer that does not lead back to before the labels that it completes, or
/// more than 127 pointers. Each pointer of a chain leads further back than the previous one, and
/// its target ends before the labels that precede the pointer; so there is no loop and nothing is
/// read twice. The text is charged for pointers and labels.
pub(super) fn write(cursor: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    write_noting_letters(cursor, text).map(|_| ())
}

/// Appends the name like [`write`], and returns what is known about its letters.
pub(super) fn write_noting_letters(cursor: &mut Cursor<'_>, text: &mut Text) -> Option<Letters> {
    write_plain(cursor, text).or_else(|| write_any(cursor, text).map(|()| Letters::Unknown))
}

/// The letters of a name as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// The name is uncompressed, and no letter is in upper case.
    Lower,
    /// They were not looked at, or one is in upper case.
    Unknown,
}

/// Writes an uncompressed name that has only letters, digits, hyphens and underscores, as nearly
/// all names do. Returns `None` for any other name, without effect.
///
/// The wire format equals the text except for the lengths: the first precedes the text and each
/// other one takes the place of a dot, so 16 octets take one step. Lengths that are plain
/// characters themselves, `-` and digits, are left to `write_any`.
fn write_plain(cursor: &mut Cursor<'_>, text: &mut Text) -> Option<Letters> {
    /// The first length that is also a plain character.
    const HYPHEN: u8 = b'-';
    let wire = cursor.left();
    let (mut root, mut labels) = (0, 0);
    loop {
        steps::count(1);
        match *wire.get(root)? {
            0 => break,
            length @ 1..HYPHEN => root += 1 + usize::from(length),
            _ => return None,
        }
        labels += 1;
    }
    if labels == 0 || root >= MAX_OCTETS {
        return None;
    }
    let (start, mut plain, mut upper, mut at) = (text.len(), 0, 0, 1);
    while at < root {
        let length = (root - at).min(16);
        let PlainText { text: block, plain: plain_here, upper: upper_here } =
            match wire.get(at..)?.first_chunk() {
                Some(block) => plain_text(block, length),
                None => {
                    let mut block = [0; 16];
                    block.get_mut(..length)?.copy_from_slice(wire.get(at..root)?);
                    plain_text(&block, length)
                }
            };
        text.block(&block, length);
        plain += usize::from(plain_here);
        upper |= upper_here;
        at += length;
    }
    // Every octet must be plain except for the lengths, the first of which is not included.
    if plain + labels != root {
        text.truncate(start);
        return None;
    }
    cursor.seek(cursor.offset() + root + 1);
    Some(if upper == 0 { Letters::Lower } else { Letters::Unknown })
}

/// Octets of a name as text.
struct PlainText {
    /// Plain characters in lower case, and a dot for everything else.
    text: [u8; 16],
    /// Number of plain octets.
    plain: u8,
    /// Not 0 if an octet is a letter in upper case.
    upper: u8,
}

/// Converts octets, of which the first `length` count. Without branches, so that all 16 are processed at
/// once.
#[inline]
fn plain_text(octets: &[u8; 16], length: usize) -> PlainText {
    const POSITIONS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    // It is at most 16.
    let length = length.to_le_bytes()[0];
    let (mut text, mut plain, mut upper) = ([0; 16], 0, 0);
    for ((text, octet), position) in text.iter_mut().zip(octets).zip(POSITIONS) {
        let lower = octet | u8::from(octet.wrapping_sub(b'A') < 26) << 5;
        let is_plain = (lower.wrapping_sub(b'a') < 26)
            | (lower.wrapping_sub(b'0') < 10)
            | (lower == b'-')
            | (lower == b'_');
        *text = if is_plain { lower } else { b'.' };
        plain += u8::from(is_plain & (position < length));
        upper |= if position < length { octet ^ lower } else { 0 };
    }
    PlainText { text, plain, upper }
}

/// Writes any name.
fn write_any(cursor: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let mut work = 0;
    let written = write_labels(cursor, text, &mut work, &PRESENTATION);
    text.charge(work);
    written
}

/// Appends the name at the cursor as [`write`] does, with its letters as they were sent, if any is in
/// upper case; returns `None` otherwise, and for a compressed name, with nothing written.
pub(super) fn write_as_sent(cursor: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    let mut end = *cursor;
    skip(&mut end)?;
    let name = cursor.take(end.offset() - cursor.offset())?;
    // All octets, so that many are compared at once.
    if !name.iter().fold(false, |found, octet| found | octet.is_ascii_uppercase()) {
        return None;
    }
    let (start, mut work) = (text.len(), 0);
    let written = write_labels(&mut Cursor::new(name), text, &mut work, &PRESENTATION_AS_SENT);
    text.charge(work);
    if written.is_none() {
        text.truncate(start);
    }
    written
}

/// Writes any name, and adds the `work` for its pointers and labels even if it is invalid.
fn write_labels(
    cursor: &mut Cursor<'_>,
    text: &mut Text,
    work: &mut usize,
    presentation: &Presentation,
) -> Option<()> {
    let mut pointers = 0;
    let message = cursor.message();
    let start = text.len();
    // The labels between two pointers start at `run`; none may reach `end`.
    let (mut run, mut end) = (cursor.offset(), cursor.end());
    let mut at = run;
    let mut behind = None;
    let mut octets = 1; // the root
    loop {
        steps::count(1);
        let &length = message.get(at..end)?.first()?;
        at += 1;
        match length {
            0 => break,
            1..=63 => {
                let label = message.get(at..end)?.get(..usize::from(length))?;
                at += label.len();
                octets += 1 + label.len();
                if octets > MAX_OCTETS {
                    return None;
                }
                if text.len() > start {
                    text.ascii(b'.');
                }
                write_label(label, text, presentation);
                *work += LABEL_WORK;
            }
            0xc0.. => {
                let &low = message.get(at..end)?.first()?;
                at += 1;
                behind.get_or_insert(at);
                let target = pointed_to(length, low);
                if target >= run || pointers == MAX_POINTERS {
                    return None;
                }
                pointers += 1;
                *work += POINTER_WORK;
                end = run;
                run = target;
                at = target;
            }
            // 01: extended label types, of which none is left (RFC 6891 §5); 10: reserved.
            0x40..=0xbf => return None,
        }
    }
    if text.len() == start {
        text.ascii(b'.');
    }
    cursor.seek(behind.unwrap_or(at));
    Some(())
}

/// Formats a name given as its labels, like [`write()`] for names on the wire.
#[must_use]
pub fn presentation<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = Text::default();
    for label in labels {
        if text.len() > 0 {
            text.ascii(b'.');
        }
        write_label(label, &mut text, &PRESENTATION);
    }
    if text.len() == 0 {
        text.ascii(b'.');
    }
    text.finish()
}

/// Skips the name at the cursor without following pointers, and so without checking their targets.
pub(super) fn skip(cursor: &mut Cursor<'_>) -> Option<()> {
    loop {
        match cursor.u8()? {
            0 => return Some(()),
            length @ 1..=63 => _ = cursor.take(length.into())?,
            0xc0.. => return cursor.u8().map(drop),
            0x40..=0xbf => return None,
        }
    }
}

/// Returns the offset of the name at the cursor, or the target if it is only a pointer: two names
/// with the same origin are equal.
pub(super) fn origin(cursor: &Cursor<'_>) -> usize {
    match cursor.peek(2) {
        Some(&[high @ 0xc0..=0xff, low]) => pointed_to(high, low),
        _ => cursor.offset(),
    }
}

/// Decodes a pointer: a 14-bit offset from the start of the message (RFC 1035 §4.1.4).
pub(super) const fn pointed_to(high: u8, low: u8) -> usize {
    u16::from_be_bytes([high & 0x3f, low]) as usize
}

fn write_label(label: &[u8], text: &mut Text, presentation: &Presentation) {
    let start = text.len();
    let mut lowest = u8::MAX;
    text.mapped(label, |octet| {
        let character = presentation[usize::from(octet)];
        lowest = lowest.min(character);
        character
    });
    // Few labels need an escape: copy the label first, and rewrite it if it does.
    if lowest <= BACKSLASH {
        text.truncate(start);
        steps::count(label.len());
        for &octet in label {
            match presentation[usize::from(octet)] {
                DECIMAL => text.decimal_escape(octet),
                BACKSLASH => {
                    text.ascii(b'\\');
                    text.ascii(octet);
                }
                character => text.ascii(character),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the name at `offset` of `message`, and the offset after it.
    fn read(message: &[u8], offset: usize) -> Option<(String, usize)> {
        let mut cursor = Cursor::new(message);
        cursor.seek(offset);
        let mut skipped = cursor;
        let mut text = Text::default();
        write(&mut cursor, &mut text)?;
        skip(&mut skipped).unwrap();
        assert_eq!(skipped.offset(), cursor.offset());
        Some((text.finish(), cursor.offset()))
    }

    #[test]
    fn names_are_lowered_and_escaped_in_decimal() {
        assert_eq!(read(b"\x03WWW\x07Example\0", 0), Some(("www.example".into(), 13)));
        assert_eq!(read(b"\0", 0), Some((".".into(), 1)));
        let (text, _) = read(b"\x04a.b\\\x03\x00\xff \0", 0).unwrap();
        assert_eq!(text, "a\\.b\\\\.\\000\\255\\032");
    }

    #[test]
    fn a_name_as_sent_keeps_its_case_and_is_there_only_where_that_matters() {
        let read = |message: &[u8]| {
            let mut text = Text::default();
            write_as_sent(&mut Cursor::new(message), &mut text)?;
            Some(text.finish())
        };
        assert_eq!(read(b"\x03wWw\x07eXaMple\0").as_deref(), Some("wWw.eXaMple"));
        assert_eq!(read(b"\x04A.b\\\x02\x00\xff\0").as_deref(), Some("A\\.b\\\\.\\000\\255"));
        for other in [&b"\x03www\0"[..], b"\0", b"\x03WW", b"\xc0\x0c", b"\x01A\xc0\x00", b""] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }

    #[test]
    fn names_are_the_same_from_labels() {
        assert_eq!(presentation([]), ".");
        assert_eq!(presentation([&b"WWW"[..], b"a.b \xff"]), "www.a\\.b\\032\\255");
    }

    #[test]
    fn every_octet_of_a_label_reads_back() {
        for octet in 0..=u8::MAX {
            let (text, _) = read(&[1, octet, 0], 0).unwrap();
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
    fn plain_names_are_written_as_any_others() {
        let mut plain_names = 0;
        for (length, octet) in (1..=63).flat_map(|length| (0..=u8::MAX).map(move |o| (length, o))) {
            // The octet is at the end of a label of this length, before and after other labels.
            let letter = if length % 2 == 0 { b'A' } else { b'a' };
            let label = [&[length][..], &vec![letter; usize::from(length) - 1], &[octet]].concat();
            for wire in [
                [&label[..], b"\x03www\x04test\0"].concat(),
                [b"\x03a-b\x10_abcdefghij01234", &label[..], b"\0"].concat(),
                [&label.repeat(4)[..], &[0]].concat(),
            ] {
                let (mut cursor, mut text) = (Cursor::new(&wire), Text::default());
                let letters = write_plain(&mut cursor, &mut text);
                let plain = (letters.map(|_| cursor.offset()), text.finish());
                let (mut cursor, mut text) = (Cursor::new(&wire), Text::default());
                let any = write_any(&mut cursor, &mut text);
                let any = (any.map(|()| cursor.offset()), text.finish());
                if let Some(letters) = letters {
                    plain_names += 1;
                    assert_eq!(plain, any);
                    let is_lower = !wire.iter().any(u8::is_ascii_uppercase);
                    assert_eq!(letters == Letters::Lower, is_lower);
                } else {
                    assert_eq!(plain.1, "", "nothing is left behind");
                }
            }
        }
        // 64 plain characters, lengths up to 44, three names each.
        assert_eq!(plain_names, 64 * 44 * 3);
    }

    #[test]
    fn pointers_lead_back() {
        let message = b"\x04test\0\x03www\xc0\x00\x01a\xc0\x06";
        assert_eq!(read(message, 6), Some(("www.test".into(), 12)));
        assert_eq!(read(message, 12), Some(("a.www.test".into(), 16)));
        // To itself, into itself, forward.
        assert_eq!(read(b"\xc0\x00", 0), None);
        assert_eq!(read(b"\0\x01a\xc0\x01", 1), None);
        assert_eq!(read(b"\xc0\x02\0", 0), None);
        // Back, to labels that reach into the name that they would complete.
        assert_eq!(read(b"\x03\x01a\xc0\x00\0", 1), None);
        assert_eq!(read(b"\x01b\xc0\x00", 2), None);
    }

    #[test]
    fn names_end_where_their_record_does() {
        let mut cursor = Cursor::new(b"\x03www\0").part(4).unwrap();
        assert_eq!(write(&mut cursor, &mut Text::default()), None);
        for broken in [&b""[..], b"\x01", b"\x01a", b"\xc0", b"\x40\0", b"\x80\0"] {
            assert_eq!(write(&mut Cursor::new(broken), &mut Text::default()), None, "{broken:?}");
            assert_eq!(skip(&mut Cursor::new(broken)), None, "{broken:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_octets() {
        let label = [&[63][..], &[b'a'; 63]].concat();
        let mut longest = label.repeat(3);
        longest.extend([61]);
        longest.extend([b'a'; 61]);
        longest.push(0);
        assert_eq!(longest.len(), MAX_OCTETS);
        assert!(read(&longest, 0).is_some());
        // One more label through a pointer.
        longest.extend(b"\x01a\xc0\x00");
        assert_eq!(read(&longest, MAX_OCTETS), None);
    }

    #[test]
    fn the_origin_of_a_pointer_is_its_target() {
        let mut cursor = Cursor::new(b"\x04test\0\xc0\x00");
        assert_eq!(origin(&cursor), 0);
        cursor.seek(6);
        assert_eq!(origin(&cursor), 0);
    }
}
