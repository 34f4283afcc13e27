//! The widths of columns, and how a text is shortened to one.

use unicode_width::UnicodeWidthStr;

use super::columns::{Column, Columns};

/// Widths from which on a column of times has milliseconds, and microseconds.
const MILLISECONDS_FROM: usize = 100;
const MICROSECONDS_FROM: usize = 140;

/// Digits of a second's fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fraction {
    None,
    Milliseconds,
    Microseconds,
}

/// A column and its width, in characters of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) column: Column,
    pub(super) width: usize,
}

/// The columns that are shown, and their widths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    /// Maximum width of a line; `None` if nothing is cut.
    pub(super) width: Option<usize>,
    /// Number of spaces between two columns.
    pub(super) gap: usize,
}

impl Layout {
    /// Fits the columns to `width`, or gives each its ideal width without one.
    pub(super) fn new(columns: &Columns, width: Option<u16>) -> Self {
        let width = width.map(usize::from);
        let mut layout = Self {
            places: Vec::new(),
            width,
            gap: if width.is_some_and(|width| width < MILLISECONDS_FROM) { 1 } else { 2 },
        };
        let ideal = |column: &Column| Place { column: *column, width: layout.ideal(*column) };
        let places: Vec<Place> = columns.as_slice().iter().map(ideal).collect();
        layout.places = places;
        if let Some(width) = width {
            layout.fit(width, columns.is_chosen());
        }
        layout
    }

    /// Makes a column wider.
    pub(super) fn widen(&mut self, column: Column, by: usize) {
        self.places.iter_mut().filter(|it| it.column == column).for_each(|it| it.width += by);
    }

    fn fit(&mut self, width: usize, is_chosen: bool) {
        let ideals: Vec<usize> = self.places.iter().map(|place| place.width).collect();
        let mut places: Vec<(Place, usize)> = self
            .places
            .iter()
            .zip(ideals)
            .map(|(place, ideal)| {
                // Part of a number says nothing.
                let min = match place.column {
                    Column::Time | Column::Latency => ideal,
                    column => column.properties().min.min(ideal),
                };
                (Place { width: min, ..*place }, ideal)
            })
            .collect();
        let taken = |places: &[(Place, usize)], gap: usize| {
            let widths: usize = places.iter().map(|(place, _)| place.width).sum();
            widths + gap * places.len().saturating_sub(1)
        };
        while taken(&places, self.gap) > width && !is_chosen {
            let rank = |(place, _): &(Place, usize)| place.column.properties().rank;
            let Some(least) = (0..places.len()).max_by_key(|at| rank(&places[*at])) else { break };
            if rank(&places[least]) == 0 {
                break;
            }
            places.remove(least);
        }
        let mut spare = width.saturating_sub(taken(&places, self.gap));
        // In turns, so that no column gets its ideal width at the expense of another.
        while spare > 0 && places.iter().any(|(place, ideal)| place.width < *ideal) {
            for (place, ideal) in &mut places {
                if place.width < *ideal && spare > 0 {
                    place.width += 1;
                    spare -= 1;
                }
            }
        }
        if let Some((last, _)) = places.last_mut() {
            last.width += spare;
        }
        self.places = places.into_iter().map(|(place, _)| place).collect();
    }

    fn ideal(&self, column: Column) -> usize {
        match (column, self.fraction()) {
            (Column::Time, Fraction::None) => 8,
            (Column::Time, Fraction::Milliseconds) => 12,
            (Column::Latency, Fraction::None) => column.properties().min,
            _ => column.properties().ideal,
        }
    }

    /// Returns the digits of times that fit.
    pub(super) fn fraction(&self) -> Fraction {
        match self.width {
            Some(width) if width < MILLISECONDS_FROM => Fraction::None,
            Some(width) if width < MICROSECONDS_FROM => Fraction::Milliseconds,
            _ => Fraction::Microseconds,
        }
    }

    /// Returns true if a line has little room.
    pub(super) fn is_narrow(&self) -> bool {
        self.gap == 1
    }
}

/// Returns the width of a text on a terminal.
pub(super) fn width_of(text: &str) -> usize {
    text.width()
}

/// Returns the first part of `text`, with a sign that it was cut, if it is wider than `width`.
pub(super) fn cut_end(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut out = prefix(text, width.saturating_sub(1)).to_owned();
    if width > 0 {
        out.push('…');
    }
    out
}

/// Returns both ends of `text`, if it is wider than `width`: the last labels of a name say whose it is.
pub(super) fn cut_middle(text: &str, width: usize) -> String {
    let full = width_of(text);
    if full <= width || width < 3 {
        return cut_end(text, width);
    }
    let head = prefix(text, (width - 1) / 2);
    let tail = suffix(text, width - 1 - width_of(head));
    format!("{head}…{tail}")
}

/// Shortens `namespace/name`: the namespace first.
pub(super) fn cut_owner(text: &str, width: usize) -> String {
    let Some((namespace, name)) = text.split_once('/').filter(|_| width_of(text) > width) else {
        return cut_end(text, width);
    };
    match width.checked_sub(width_of(name) + 2) {
        Some(room @ 1..) => format!("{}…/{name}", prefix(namespace, room)),
        _ => cut_end(name, width),
    }
}

fn prefix(text: &str, width: usize) -> &str {
    let mut end = 0;
    for (at, character) in text.char_indices() {
        let next = at + character.len_utf8();
        if width_of(text.get(..next).unwrap_or_default()) > width {
            break;
        }
        end = next;
    }
    text.get(..end).unwrap_or_default()
}

fn suffix(text: &str, width: usize) -> &str {
    let starts = text.char_indices().map(|(at, _)| at);
    let fits = |at: &usize| width_of(text.get(*at..).unwrap_or_default()) <= width;
    starts.into_iter().find(fits).and_then(|at| text.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns_at(width: u16) -> Vec<Column> {
        let layout = Layout::new(&Columns::TEXT, Some(width));
        let total: usize = layout.places.iter().map(|place| place.width).sum();
        let gaps = layout.gap * (layout.places.len() - 1);
        assert_eq!(total + gaps, usize::from(width), "{layout:?}");
        layout.places.iter().map(|place| place.column).collect()
    }

    #[test]
    fn a_layout_takes_the_whole_width_and_leaves_out_what_says_least() {
        use Column::*;
        assert_eq!(columns_at(80), [Time, Client, Server, Type, Name, Result, Latency, Notes]);
        assert_eq!(columns_at(70), [Time, Client, Type, Name, Result, Latency, Notes]);
        for width in [120, 160, 400] {
            assert_eq!(columns_at(width), Columns::TEXT.as_slice(), "{width}");
        }
        // Too narrow for anything: what is left is cut.
        let places = Layout::new(&Columns::TEXT, Some(10)).places;
        let left: Vec<_> = places.iter().map(|place| place.column).collect();
        assert_eq!(left, [Time, Client, Type, Name, Result, Notes]);
        let chosen: Columns = "time,server_address,client_address,answers".parse().unwrap();
        assert_eq!(Layout::new(&chosen, Some(20)).places.len(), 4);
    }

    #[test]
    fn texts_are_shortened_where_they_say_least() {
        assert_eq!(cut_end("abcdef", 4), "abc…");
        assert_eq!(cut_end("abcd", 4), "abcd");
        assert_eq!(cut_end("abcd", 0), "");
        assert_eq!(cut_middle("a-very-long-label.example.com", 13), "a-very…le.com");
        assert_eq!(cut_middle("example.com", 11), "example.com");
        assert_eq!(cut_owner("kube-system/coredns", 19), "kube-system/coredns");
        assert_eq!(cut_owner("kube-system/coredns", 12), "kub…/coredns");
        assert_eq!(cut_owner("kube-system/coredns", 8), "coredns");
        assert_eq!(cut_owner("kube-system/coredns", 5), "core…");
        assert_eq!(cut_end("東京東京", 5), "東京…");
        assert_eq!(width_of(&cut_middle("東京東京東京", 7)), 7);
    }
}
