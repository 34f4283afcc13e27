//! The format of the demo's output.

use std::{
    io::{self, IsTerminal},
    ops::Range,
};

/// Width in columns if the terminal's is unknown.
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

/// Prints a label and its text, in the columns that all sections share.
pub(super) fn entry(label: &str, text: &str) {
    println!("  {label:<18} {text}");
}

/// Prints tap53's lines: its table is wide, so on a narrower terminal columns are left out, and what
/// is still too long is cut. A wrapped line would break the table.
pub(super) struct Table {
    width: usize,
    /// Ranges of characters that are left out; known from the heading.
    left_out: Vec<Range<usize>>,
    headed: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        let width = if is_terminal() {
            terminal_size::terminal_size().map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0))
        } else {
            usize::MAX
        };
        Self { width, left_out: Vec::new(), headed: false }
    }

    /// Prints a line; the first one is the heading.
    pub(super) fn row(&mut self, line: &str) {
        if !self.headed {
            self.left_out = left_out(line, self.width);
            self.headed = true;
            if !self.left_out.is_empty() {
                let titles = self.left_out.iter().map(|range| line[range.clone()].trim_end());
                let titles = titles.collect::<Vec<_>>().join(", ");
                println!("  (a wider terminal also shows {titles})");
            }
        }
        let kept = line.chars().enumerate();
        let kept = kept.filter(|(at, _)| !self.left_out.iter().any(|range| range.contains(at)));
        let kept: String = kept.map(|(_, character)| character).collect();
        println!("{}", cut(&format!("  {kept}"), self.width));
    }
}

/// Returns the columns to omit so that the answers fit, the least informative ones first. Colours start
/// after all of them, so a character's position is its column.
fn left_out(heading: &str, width: usize) -> Vec<Range<usize>> {
    const LEAST_TELLING: [&str; 4] = ["SERVER", "CLIENT", "PROTO", "TIME (UTC)"];
    const ROOM_FOR_ANSWERS: usize = 20;
    let mut needed = heading.find("ANSWERS").unwrap_or_default() + ROOM_FOR_ANSWERS;
    let mut left_out = Vec::new();
    for title in LEAST_TELLING {
        let Some(start) = heading.find(title).filter(|_| needed > width) else {
            continue;
        };
        // Up to the next title.
        let after_title = start + title.len();
        let rest = &heading[after_title..];
        let end = after_title + rest.len() - rest.trim_start().len();
        needed -= end - start;
        left_out.push(start..end);
    }
    left_out
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
    fn columns_are_left_out_until_the_answers_find_room() {
        let heading = "TIME (UTC)   CLIENT    SERVER   PROTO  NAME      ANSWERS";
        let titles = |width| {
            let ranges = left_out(heading, width).into_iter();
            ranges.map(|range| heading[range].trim_end()).collect::<Vec<_>>()
        };
        assert!(titles(80).is_empty());
        assert_eq!(titles(65), ["SERVER"]);
        assert_eq!(titles(50), ["SERVER", "CLIENT"]);
        assert_eq!(titles(43), ["SERVER", "CLIENT", "PROTO"]);
    }

    #[test]
    fn a_long_line_is_cut_at_the_width_with_an_ellipsis() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("ab\x1b[32mcd\x1b[0mef", 6), "ab\x1b[32mcd\x1b[0mef");
    }
}
