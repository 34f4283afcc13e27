//! Splits an expression into tokens.

use std::ops::Range;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, keyword, or literal without quotes.
    Word(&'a str),
    /// A literal in quotes, without them.
    Quoted(String),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
    /// The end.
    End,
}

/// A token and its bytes in the expression.
pub(super) type Spanned<'a> = (Token<'a>, Range<usize>);

/// Operators and signs; of those with a common start, the longest first.
const SIGNS: [&str; 10] = ["!=", "<=", ">=", "=", "<", ">", "~", "(", ")", ","];

/// Splits an expression; the last token is [`Token::End`].
///
/// # Errors
/// The place and the reason.
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned<'_>>, (Range<usize>, String)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = text[at..].trim_start();
        at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, at..at));
            return Ok(tokens);
        };
        let (token, length) = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign))
        {
            (Token::Sign(sign), sign.len())
        } else if first == '"' || first == '\'' {
            let (quoted, length) = quoted(rest, first).map_err(|why| (at..text.len(), why))?;
            (Token::Quoted(quoted), length)
        } else {
            let length = word_length(rest);
            if length == 0 {
                let why =
                    format!("`{first}` is no operator; use and, or, not, =, != and the others");
                return Err((at..at + first.len_utf8(), why));
            }
            (Token::Word(&rest[..length]), length)
        };
        tokens.push((token, at..at + length));
        at += length;
    }
}

fn word_length(rest: &str) -> usize {
    let ends = |character: char| character.is_whitespace() || "()=!<>~,\"'&|".contains(character);
    rest.find(ends).unwrap_or(rest.len())
}

/// Reads a literal in quotes, in which a backslash is before a quote or a backslash.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), String> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote => return Ok((text, at + 1)),
            '\\' => match characters.next() {
                Some((_, escaped @ ('\\' | '"' | '\''))) => text.push(escaped),
                // Names have decimal escapes, RFC 1035 5.1.
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            _ => text.push(character),
        }
    }
    Err(format!("the quote {quote} is not closed"))
}
