//! Output of commands: aligned columns, in colour on a terminal.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use tap53_base::visible::{visible, visible_lines};

/// ANSI colours, by meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Color {
    #[default]
    Plain,
    /// Everything is as it should be.
    Good,
    /// The reader should notice it.
    Notable,
    /// Something is wrong.
    Bad,
    /// A heading.
    Heading,
}

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) color: Color,
}

impl Cell {
    pub(super) fn new(color: Color, text: impl Into<String>) -> Self {
        Self { text: visible(&text.into()).into_owned(), color }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Color::Plain, text)
    }
}

/// Returns true if standard output may have colours (<https://no-color.org>).
pub(super) fn colored() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Escape sequence that ends a colour.
const RESET: &str = "\x1b[0m";

impl Color {
    /// Returns the escape sequence that starts the colour.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Notable => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Heading => "\x1b[1m",
        }
    }
}

/// Returns `text` in a colour.
pub(super) fn paint(colored: bool, color: Color, text: &str) -> String {
    let text = visible_lines(text);
    if !colored || text.is_empty() || color == Color::Plain {
        return text.into_owned();
    }
    format!("{}{text}{RESET}", color.code())
}

/// Escapes everything in `text` that controls a terminal, except line feeds and these colours.
pub(super) fn printable(mut text: &str, colored: bool) -> String {
    let codes = [Color::Good, Color::Notable, Color::Bad, Color::Heading].map(Color::code);
    let mut out = String::with_capacity(text.len());
    while let Some(at) = text.find('\x1b').filter(|_| colored) {
        let (before, escape) = text.split_at(at);
        out.push_str(&visible_lines(before));
        let code = codes.into_iter().chain([RESET]).find(|code| escape.starts_with(code));
        match code {
            Some(code) => out.push_str(code),
            None => out.push_str(&visible("\x1b")),
        }
        text = &escape[code.map_or(1, str::len)..];
    }
    out.push_str(&visible_lines(text));
    out
}

/// Formats rows as columns that are as wide as their widest cell. The first row is the heading.
pub(super) fn table<R: AsRef<[Cell]>>(rows: &[R], colored: bool) -> String {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.text.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (width, cell)) in widths.iter().zip(row.as_ref()).enumerate() {
            let color = if number == 0 { Color::Heading } else { cell.color };
            line.push_str(&paint(colored, color, &cell.text));
            if column + 1 < columns {
                let missing = width.saturating_sub(cell.text.chars().count());
                line.push_str(&" ".repeat(missing + 2));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Prints to standard output. A closed pipe, as of `head`, is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    print_bytes(printable(text, colored()).as_bytes())
}

/// Prints a generated file to standard output as it is. A closed pipe is not an error.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        let hostile = "veth\x1b[2J\u{202e}\u{9b}1A\r\n";
        let shown = "veth\\u001b[2J\\u202e\\u009b1A\\u000d\\u000a";
        assert_eq!(Cell::from(hostile).text, shown);
        assert_eq!(paint(true, Color::Bad, "a\x1b[2J\nb"), "\x1b[31ma\\u001b[2J\nb\x1b[0m");
        let text = format!("{}\n{hostile}", paint(true, Color::Good, "x"));
        let lines = "veth\\u001b[2J\\u202e\\u009b1A\\u000d\n";
        assert_eq!(printable(&text, true), format!("\x1b[32mx\x1b[0m\n{lines}"));
        assert_eq!(printable(hostile, false), lines);
        assert_eq!(printable("\x1b", true), "\\u001b");
    }

    #[test]
    fn columns_are_aligned_with_and_without_colours() {
        let rows = [
            ["A", "LONGER", "REST"].map(Cell::from),
            ["wide one".into(), Cell::new(Color::Bad, "é"), Cell::default()],
        ];
        assert_eq!(table(&rows, false), "A         LONGER  REST\nwide one  é\n");
        let painted = table(&rows, true);
        assert!(painted.contains("\x1b[31mé\x1b[0m"), "{painted:?}");
        assert!(painted.starts_with("\x1b[1mA\x1b[0m         \x1b[1mLONGER"), "{painted:?}");
    }
}
