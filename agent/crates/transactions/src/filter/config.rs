//! The `filter` section: selects the transactions that become records.

use std::{borrow::Cow, collections::HashSet, fmt, hash::Hash, str::FromStr};

use hashbrown::HashMap;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use serde::{Serialize, Serializer};
use tap53_base::settings::{Section, Value, prefix, text};
use tap53_dns::{presentation, type_name};

/// Selects the transactions that become records; [`crate::filter`] describes how the lists
/// interact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilterConfig {
    /// Zones, in the presentation format of records: lower case, no trailing dot, the root as `.`.
    /// A zone contains its own name and all names below it.
    pub qnames: Lists<String>,
    /// Query types.
    pub qtypes: Lists<QueryType>,
    /// Prefixes of the client's address, without bits after their length.
    pub clients: Lists<IpNet>,
    /// Prefixes of the server's address, without bits after their length.
    pub servers: Lists<IpNet>,
    /// Fraction of the transactions to keep: above 0, up to 1.
    pub sample: f64,
}

/// An allow list and a deny list. No entry is in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lists<T> {
    /// If not empty, only subjects that match an entry pass.
    pub allow: Vec<T>,
    /// Subjects that match an entry do not pass.
    pub deny: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// Returns true if neither list has an entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// A query type, formatted as in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryType(pub u16);

impl FromStr for QueryType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        query_type(&type_codes(), name)
    }
}

impl fmt::Display for QueryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&type_name(self.0))
    }
}

impl Serialize for QueryType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            qnames: Lists::default(),
            qtypes: Lists::default(),
            clients: Lists::default(),
            servers: Lists::default(),
            sample: 1.0,
        }
    }
}

impl FilterConfig {
    /// Returns true if every transaction becomes a record.
    #[must_use]
    pub fn keeps_everything(&self) -> bool {
        self.qnames.is_empty()
            && self.qtypes.is_empty()
            && self.clients.is_empty()
            && self.servers.is_empty()
            && self.sample >= 1.0
    }

    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            qnames: section.section("qnames", |section| lists(section, text(zone))),
            qtypes: section.section("qtypes", |section| {
                // The map is only needed if there is a name to look up.
                if !section.has("allow") && !section.has("deny") {
                    return Lists::default();
                }
                let codes = type_codes();
                lists(section, text(|name| query_type(&codes, name)))
            }),
            clients: section.section("clients", |section| lists(section, text(prefix))),
            servers: section.section("servers", |section| lists(section, text(prefix))),
            sample: section.read("sample", share).unwrap_or(1.0),
        }
    }
}

/// Reads `allow` and `deny`, and refuses entries that are in both.
pub fn lists<T: Eq + Hash + fmt::Display>(
    section: &mut Section<'_>,
    check: impl Fn(&Value) -> Result<T, String>,
) -> Lists<T> {
    let mut read = |key| section.read_list(key, &check).unwrap_or_default();
    let lists = Lists { allow: read("allow"), deny: read("deny") };
    // Use a hash set: either list may have a hundred thousand entries.
    let allowed: HashSet<&T> = lists.allow.iter().collect();
    for entry in lists.deny.iter().filter(|entry| allowed.contains(entry)) {
        let value = Some(format!("{:?}", entry.to_string()));
        section.refuse("deny", value, "is in allow too: leave it in one of them");
    }
    lists
}

/// Normalizes a name to its text in records: parses the labels, and formats them again.
///
/// # Errors
/// Returns the reason why the name is invalid.
pub fn zone(text: &str) -> Result<String, String> {
    /// Maximum octets of a label, and of a name including its length octets (RFC 1035 §2.3.4).
    const MAX_LABEL: usize = 63;
    const MAX_NAME: usize = 255;
    let labels = labels(&to_ascii(text)?)?;
    if labels.iter().any(|label| label.len() > MAX_LABEL) {
        return Err(format!("has a label of more than {MAX_LABEL} octets"));
    }
    if labels.iter().map(|label| label.len() + 1).sum::<usize>() + 1 > MAX_NAME {
        return Err(format!("is longer than a name can be, {MAX_NAME} octets"));
    }
    if labels.first().is_some_and(|label| label == b"*") {
        return Err("already matches all names below it: omit the *".to_owned());
    }
    Ok(presentation(labels.iter().map(Vec::as_slice)))
}

/// Converts an internationalized name to the A-labels on the wire (UTS #46), such as
/// `bücher.example` to `xn--bcher-kva.example`. An ASCII name is returned unchanged: hickory-proto
/// would read its escapes as octal, and RFC 1035 §5.1 defines them as decimal.
///
/// # Errors
/// Returns the reason if a label is no valid U-label or the name has an escape too.
fn to_ascii(text: &str) -> Result<Cow<'_, str>, String> {
    if text.is_ascii() {
        return Ok(text.into());
    }
    if text.contains('\\') {
        return Err(
            "mixes escapes and letters outside ASCII: write those labels as xn--…".to_owned()
        );
    }
    let name = Name::from_utf8(text)
        .map_err(|_| "is not a valid internationalized name (UTS #46)".to_owned())?;
    Ok(name.to_ascii().into())
}

/// Splits a name in presentation format into labels (RFC 1035 §5.1); none for the root.
fn labels(text: &str) -> Result<Vec<Vec<u8>>, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text == "." {
        return Ok(Vec::new());
    }
    if text.starts_with('.') {
        return Err("begins with a dot: names below are meant anyway".to_owned());
    }
    let mut labels = vec![Vec::new()];
    let mut rest = text.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        let octet = match (octet, tail) {
            (b'.', []) => break,
            (b'.', _) => {
                labels.push(Vec::new());
                rest = tail;
                continue;
            }
            (b'\\', [a, b, c, tail @ ..]) if [a, b, c].iter().all(|d| d.is_ascii_digit()) => {
                rest = tail;
                let number = [a, b, c].iter().fold(0, |n, d| n * 10 + u16::from(**d - b'0'));
                u8::try_from(number).map_err(|_| "has an escape above \\255".to_owned())?
            }
            (b'\\', [plain, tail @ ..]) if !plain.is_ascii_digit() && plain.is_ascii() => {
                rest = tail;
                *plain
            }
            (b'\\', _) => return Err("has an incomplete escape".to_owned()),
            (0x21..=0x7e, _) => {
                rest = tail;
                octet
            }
            (0..=0x7f, _) => return Err("has white space or control characters".to_owned()),
            _ => return Err("must be ASCII".to_owned()),
        };
        if let Some(label) = labels.last_mut() {
            label.push(octet);
        }
    }
    if labels.iter().any(Vec::is_empty) {
        return Err("has an empty label".to_owned());
    }
    Ok(labels)
}

/// Returns the codes of all mnemonics, as the inverse of [`type_name`], so that the configuration
/// uses the names in records.
fn type_codes() -> HashMap<String, u16> {
    (0..=u16::MAX).map(|code| (type_name(code).into_owned(), code)).collect()
}

fn query_type(codes: &HashMap<String, u16>, name: &str) -> Result<QueryType, String> {
    let name = name.to_ascii_uppercase();
    // TYPE28 is AAAA (RFC 3597 §5).
    let number = name.strip_prefix("TYPE").and_then(|digits| digits.parse::<u16>().ok());
    let code = codes.get(&name).copied().or(number);
    code.map(QueryType)
        .ok_or_else(|| "is not a query type: write its mnemonic, or TYPE65280".to_owned())
}

fn share(value: &Value) -> Result<f64, String> {
    let share = match value {
        Value::Integer(1) => Some(1.0),
        Value::Real(share) => Some(*share),
        _ => None,
    };
    share
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "must be a number above 0, up to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_entry_by_entry_and_not_list_by_list() {
        use std::{cell::Cell, hash::Hasher};

        thread_local! {
            static COMPARED: Cell<u64> = const { Cell::new(0) };
        }
        struct Counted(i128);
        impl PartialEq for Counted {
            fn eq(&self, other: &Self) -> bool {
                COMPARED.set(COMPARED.get() + 1);
                self.0 == other.0
            }
        }
        impl Eq for Counted {}
        impl Hash for Counted {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }
        impl fmt::Display for Counted {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        let list =
            |from: u32| (from..from + 5_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let yaml = format!("allow: [{}]\ndeny: [{}]", list(0), list(4_999));
        let node = tap53_base::settings::parse(&yaml).unwrap();
        let mut problems = Vec::new();
        Section::root(Some(node), &mut problems, |section| {
            lists(section, |value| match value {
                Value::Integer(number) => Ok(Counted(*number)),
                other => Err(other.to_string()),
            })
        });
        assert_eq!(problems.len(), 1, "4999 is in both");
        assert!(COMPARED.get() < 5_000, "{} comparisons", COMPARED.get());
    }
}
