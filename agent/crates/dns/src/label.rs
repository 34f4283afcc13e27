//! Splits names in presentation format into labels (RFC 1035 §5.1); `\.` is a dot within a label.

/// Returns the parent name, after the first label; `None` for a name of one label and for the root.
#[must_use]
pub fn parent(name: &str) -> Option<&str> {
    let mut octets = name.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            // Skip one octet for both `\.` and `\046`: digits are no separators.
            b'\\' => drop(octets.next()),
            b'.' => return name.get(at + 1..).filter(|rest| !rest.is_empty()),
            _ => {}
        }
    }
    None
}

/// Returns the labels of `name` before `zone`: empty for the zone itself, `None` for a name outside
/// of it. The comparison is case-sensitive; `zone` is not the root.
#[must_use]
pub fn below<'a>(name: &'a str, zone: &str) -> Option<&'a str> {
    let before = name.strip_suffix(zone)?;
    if before.is_empty() {
        return Some("");
    }
    before.strip_suffix('.').filter(|labels| !ends_in_escape(labels))
}

/// Returns the labels of a name, the last one first; none for an empty text.
pub fn labels_from_the_right(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = (!name.is_empty()).then_some(name);
    std::iter::from_fn(move || {
        let name = rest?;
        let dot = name.rmatch_indices('.').find(|(at, _)| !ends_in_escape(&name[..*at]));
        let (before, label) = match dot {
            Some((at, _)) => (Some(&name[..at]), &name[at + 1..]),
            None => (None, name),
        };
        rest = before;
        Some(label)
    })
}

/// Returns true if the character after `text` is escaped: an even number of backslashes are escaped
/// backslashes.
fn ends_in_escape(text: &str) -> bool {
    text.bytes().rev().take_while(|octet| *octet == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_begins_after_the_first_separating_dot() {
        assert_eq!(parent("www.example"), Some("example"));
        assert_eq!(parent(r"a\.b.example"), Some("example"));
        assert_eq!(parent(r"a\\.b.example"), Some("b.example"));
        assert_eq!(parent(r"\046a.example"), Some("example"));
        for last in ["example", ".", "", r"\.", r"a\"] {
            assert_eq!(parent(last), None, "{last}");
        }
    }

    #[test]
    fn a_zone_ends_at_a_label() {
        assert_eq!(below("www.corp.example", "corp.example"), Some("www"));
        assert_eq!(below("corp.example", "corp.example"), Some(""));
        assert_eq!(below("evilcorp.example", "corp.example"), None);
        assert_eq!(below(r"www\.corp.example", "corp.example"), None, "one label, www.corp");
        assert_eq!(below(r"www\\.corp.example", "corp.example"), Some(r"www\\"));
    }

    #[test]
    fn labels_come_from_the_right() {
        let labels = |name| labels_from_the_right(name).collect::<Vec<_>>();
        assert_eq!(labels(r"a\.b.c\\.d"), ["d", r"c\\", r"a\.b"]);
        assert_eq!(labels("one"), ["one"]);
        assert!(labels("").is_empty());
    }
}
