//! Escapes untrusted text for people to read.
//!
//! Names of interfaces, keys of a file, and texts from a registry, a broker or a name server may
//! contain characters that move a terminal's cursor or change its state, reverse the direction of
//! the text after them (<https://trojansource.codes>), or are invisible. On the way to a terminal
//! or a log, each becomes an escape such as `\u202e`, which JSON reads as the same character.
//!
//! Records in Avro and JSON, which programs read, contain texts unescaped.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

/// Returns true for characters that are invisible or change how others are displayed: controls (C0,
/// DEL, C1), line and paragraph separators, and Unicode's format characters, default ignorable code
/// points and fillers.
#[must_use]
pub const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{ad}' // soft hyphen
        | '\u{34f}' // combining grapheme joiner
        | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}'
        | '\u{115f}' | '\u{1160}' // fillers of Hangul
        | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' // variation selectors of Mongolian
        | '\u{200b}'..='\u{200f}' // of no width, and marks of direction
        | '\u{2028}'..='\u{202e}' // separators, embeddings and overrides of direction
        | '\u{2060}'..='\u{206f}' // of no width, isolates of direction
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' // variation selectors
        | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' // tags
    )
}

/// Returns `text` on one line, with every invisible character escaped.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_invisible)
}

/// Returns `text` with its line feeds, and every other invisible character escaped.
#[must_use]
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character != '\n' && is_invisible(character))
}

fn escaped(text: &str, hides: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&hides) else { return Cow::Borrowed(text) };
    let (before, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(before);
    for character in rest.chars() {
        if hides(character) {
            // Writing to a String does not fail.
            let _ = write_escape(&mut out, character);
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Escapes a character as in JSON (RFC 8259 §7).
fn write_escape(out: &mut String, character: char) -> fmt::Result {
    character.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

/// Formats an error with its causes: "client error (Connect)" alone explains nothing.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_others_unchanged() {
        for (text, shown) in [
            ("eth0", "eth0"),
            ("Zürich, 東京, Ελλάδα, 🙂", "Zürich, 東京, Ελλάδα, 🙂"),
            ("a\x1b[2Jb", "a\\u001b[2Jb"),
            ("a\u{9b}2Jb", "a\\u009b2Jb"),
            ("a\tb\r\nc\x7f", "a\\u0009b\\u000d\\u000ac\\u007f"),
            ("\u{202e}gpj.exe", "\\u202egpj.exe"),
            ("\u{2066}a\u{2069}\u{200b}", "\\u2066a\\u2069\\u200b"),
            ("a\u{2028}b\u{2029}", "a\\u2028b\\u2029"),
            ("\u{feff}a\u{e0041}", "\\ufeffa\\udb40\\udc41"),
        ] {
            assert_eq!(visible(text), shown);
            assert_eq!(visible(shown), shown, "it is escaped once");
        }
        assert_eq!(visible_lines("a\nb\rc\n"), "a\nb\\u000dc\n");
        assert!(matches!(visible("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn every_control_and_every_mark_of_direction_is_escaped() {
        let marks = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        let controls = ('\0'..=char::MAX).filter(|character| character.is_control());
        for character in controls.chain(marks) {
            let shown = visible(character.encode_utf8(&mut [0; 4])).into_owned();
            assert!(shown.is_ascii() && shown.starts_with("\\u"), "{shown:?}");
            let read: String = serde_json::from_str(&format!("\"{shown}\"")).unwrap();
            assert_eq!(read, character.to_string(), "JSON reads the same character");
        }
    }
}
