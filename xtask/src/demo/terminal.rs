//! What the demo's output looks like.

use std::io::{self, IsTerminal};

/// Where the width of the terminal is not known.
const USUAL_WIDTH: usize = 160;

/// True if output goes to a terminal, which then gets colours.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Starts a section; its title is bold on a terminal.
pub(super) fn section(title: &str) {
    if is_terminal() {
        println!("\n\x1b[1m{title}\x1b[0m");
    } else {
        println!("\n{title}");
    }
}

/// Prints a label and what it stands for, in the columns that all sections share.
pub(super) fn entry(label: &str, text: &str) {
    println!("  {label:<18} {text}");
}

/// Prints a line, cut at the edge of the terminal: a wrapped line would break the table.
pub(super) fn row(line: &str) {
    let width = if is_terminal() {
        terminal_size::terminal_size().map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0))
    } else {
        usize::MAX
    };
    println!("{}", cut(&format!("  {line}"), width));
}

/// The first `width` visible characters of `line`; escape sequences take no room and are kept.
fn cut(line: &str, width: usize) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut visible, mut in_escape, mut cut) = (0, false, false);
    for character in line.chars() {
        if character == '\x1b' {
            in_escape = true;
        }
        if in_escape {
            out.push(character);
            in_escape = character != 'm';
        } else if visible + 1 < width || (visible + 1 == width && !cut) {
            visible += 1;
            out.push(character);
        } else {
            cut = true;
        }
    }
    if cut {
        // The last place shows that something follows.
        if let Some((at, _)) = out.char_indices().rfind(|(_, c)| *c != 'm' && !c.is_control()) {
            out.truncate(at);
        }
        out.push_str(if line.contains('\x1b') { "…\x1b[0m" } else { "…" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_at_the_width_and_says_so() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("ab\x1b[32mcd\x1b[0mef", 6), "ab\x1b[32mcd\x1b[0mef");
    }
}
