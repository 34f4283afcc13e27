//! Determines the registrable domain of a name.

use psl::Psl as _;

/// Returns the registrable domain of a name in presentation format, by the public suffix list;
/// `None` for a public suffix and for the root.
///
/// psl's own function splits names at every dot. In `x\.google.com` the first dot is part of a
/// label (RFC 1035 §5.1), so labels are split here, and psl only sees labels. A label with an
/// escape matches no rule of the list except for wildcards.
#[must_use]
pub fn registrable_domain(name: &str) -> Option<&str> {
    registrable(name).map(|found| found.domain)
}

/// A registrable domain, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrable<'a> {
    /// The domain.
    pub domain: &'a str,
    /// True if the list contains its suffix: a suffix that is not in the list is taken to be one label.
    pub is_listed: bool,
}

/// Returns the registrable domain of a name as [`registrable_domain`] does, and whether the list contains
/// its suffix.
#[must_use]
pub fn registrable(name: &str) -> Option<Registrable<'_>> {
    if name == "." {
        return None;
    }
    let suffix = psl::List.find(LabelsFromRight { rest: Some(name.as_bytes()) });
    // The dot before the suffix; without one, the suffix is the whole name.
    let dot = name.len().checked_sub(suffix.len)?.checked_sub(1)?;
    let mut labels = LabelsFromRight { rest: name.as_bytes().get(..dot) };
    let start = dot.checked_sub(labels.next()?.len())?;
    let domain = name.get(start..)?;
    Some(Registrable { domain, is_listed: suffix.typ.is_some() })
}

/// Iterates over the labels of a name, the last one first.
struct LabelsFromRight<'a> {
    /// The remaining labels; `None` at the end.
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for LabelsFromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut end = rest.len();
        while let Some(dot) = rest[..end].iter().rposition(|octet| *octet == b'.') {
            // An odd number of backslashes escapes the dot; in an even number they escape each
            // other.
            let backslashes = rest[..dot].iter().rev().take_while(|octet| **octet == b'\\').count();
            if backslashes % 2 == 0 {
                self.rest = Some(&rest[..dot]);
                return Some(&rest[dot + 1..]);
            }
            end = dot;
        }
        self.rest = None;
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrable_domains_follow_the_public_suffix_list() {
        for (name, domain) in [
            ("a.b.example.co.uk", Some("example.co.uk")),
            ("example.co.uk", Some("example.co.uk")),
            ("co.uk", None),
            ("uk", None),
            ("a.b.example.test", Some("example.test")),
            // A wildcard and an exception to it: *.kawasaki.jp, !city.kawasaki.jp.
            ("www.shop.a.kawasaki.jp", Some("shop.a.kawasaki.jp")),
            ("www.city.kawasaki.jp", Some("city.kawasaki.jp")),
            // Internationalised, in its form on the wire.
            ("www.example.xn--55qx5d.cn", Some("example.xn--55qx5d.cn")),
            (".", None),
            ("", None),
        ] {
            assert_eq!(registrable_domain(name), domain, "{name}");
        }
    }

    #[test]
    fn an_escaped_dot_does_not_divide_labels() {
        for (name, domain) in [
            ("x\\.google.com", Some("x\\.google.com")),
            ("www.x\\.google.com", Some("x\\.google.com")),
            // The backslash is escaped, the dot is not.
            ("x\\\\.google.com", Some("google.com")),
            ("x\\\\\\.google.com", Some("x\\\\\\.google.com")),
            ("a\\046b.co.uk", Some("a\\046b.co.uk")),
            ("\\.com", None),
            ("x\\.com", None),
            ("\\.", None),
        ] {
            assert_eq!(registrable_domain(name), domain, "{name}");
        }
    }

    #[test]
    fn names_without_escapes_have_the_domain_that_psl_gives_them() {
        let labels = ["com", "uk", "co", "jp", "kawasaki", "city", "www", "test", "github", "io"];
        for first in labels {
            for second in labels {
                for third in labels {
                    for fourth in labels {
                        let name = [first, second, third, fourth].join(".");
                        assert_eq!(registrable_domain(&name), psl::domain_str(&name), "{name}");
                    }
                }
            }
        }
    }
}
