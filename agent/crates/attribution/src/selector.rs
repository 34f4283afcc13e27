//! Label selectors as `kubectl --selector` takes them: `app=dns,tier in (front, back),!canary`.
//!
//! They are parsed here, though the API server parses them again: a configuration is refused before
//! the agent starts, and labels of known objects are compared without a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{Hash, Hasher},
};

use kube::core::{Expression, Selector, SelectorExt as _};
use serde::{Serialize, Serializer};

/// Selects objects by their labels. The empty one selects nothing: it switches off what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    selector: Selector,
    keys: BTreeSet<String>,
}

impl LabelSelector {
    /// Parses a selector.
    ///
    /// # Errors
    /// Returns what the first invalid requirement should look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let expressions: Result<Vec<_>, _> = requirements(text).into_iter().map(parse).collect();
        let expressions = expressions?;
        let keys = expressions.iter().map(|it| key_of(it).to_owned()).collect();
        Ok(Self { selector: expressions.into_iter().collect(), keys })
    }

    /// Returns true if it selects nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.selector.selects_all()
    }

    /// Returns the keys of the labels that it compares.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// Returns true if it selects an object with these labels.
    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.is_empty() && self.selector.matches(labels)
    }

    /// Returns the selector as a request carries it; `None` if it selects nothing.
    pub(crate) fn query(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.selector.to_string())
    }
}

/// Formats the selector as a request carries it.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.query().unwrap_or_default())
    }
}

/// Hashes the text, which is equal for equal selectors.
impl Hash for LabelSelector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_string().hash(state);
    }
}

impl Serialize for LabelSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Returns the key of the label that a requirement is about.
const fn key_of(expression: &Expression) -> &String {
    match expression {
        Expression::In(key, _)
        | Expression::NotIn(key, _)
        | Expression::Equal(key, _)
        | Expression::NotEqual(key, _)
        | Expression::Exists(key)
        | Expression::DoesNotExist(key) => key,
    }
}

/// Splits a selector at the commas outside of parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut inside = false;
    let at_comma = |c: char| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    };
    text.split(at_comma).map(str::trim).collect()
}

fn parse(text: &str) -> Result<Expression, String> {
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(label_key(key.trim())?));
    }
    for (operator, expression) in [
        ("!=", Expression::NotEqual as fn(String, String) -> Expression),
        ("==", Expression::Equal),
        ("=", Expression::Equal),
    ] {
        if let Some((key, value)) = text.split_once(operator) {
            return Ok(expression(label_key(key.trim())?, label_value(value.trim())?));
        }
    }
    let Some((words, values)) = text.split_once('(') else {
        return Ok(Expression::Exists(label_key(text)?));
    };
    let values =
        values.strip_suffix(')').ok_or_else(|| format!("has no ) at the end of {text}"))?;
    let values: Result<BTreeSet<_>, _> =
        values.split(',').map(|it| label_value(it.trim())).collect();
    match words.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => Ok(Expression::In(label_key(key)?, values?)),
        [key, "notin"] => Ok(Expression::NotIn(label_key(key)?, values?)),
        _ => Err(format!("has no key with in or notin before the values: {text}")),
    }
}

/// Accepts the value of a label: up to 63 characters, or none.
fn label_value(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= 63 && text.chars().all(allowed);
    if fits && edge(text.chars().next()) && edge(text.chars().next_back()) {
        Ok(text.to_owned())
    } else {
        Err(format!("has {text:?}, which is not the value of a label"))
    }
}

/// Accepts the key of a label: a name of up to 63 characters, optionally after a domain and a
/// slash.
pub(crate) fn label_key(text: &str) -> Result<String, String> {
    let (domain, name) = text.split_once('/').map_or((None, text), |(d, name)| (Some(d), name));
    let part = |part: &str, longest: usize, extra: &[char]| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(&c);
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        part.len() <= longest
            && part.chars().all(allowed)
            && edge(part.chars().next())
            && edge(part.chars().next_back())
    };
    let name_fits = part(name, 63, &['-', '_', '.']);
    if name_fits && domain.is_none_or(|domain| part(domain, 253, &['-', '.'])) {
        Ok(text.to_owned())
    } else {
        Err("is not the key of a label: write app, or app.kubernetes.io/name".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_operator_selects_as_the_api_server_does() {
        let dns = labels(&[("k8s-app", "kube-dns"), ("tier", "")]);
        for (text, query, selects) in [
            (
                "k8s-app in ( kube-dns,node-local-dns )",
                "k8s-app in (kube-dns,node-local-dns)",
                true,
            ),
            ("k8s-app notin (kube-dns)", "k8s-app notin (kube-dns)", false),
            ("k8s-app=kube-dns", "k8s-app=kube-dns", true),
            ("k8s-app == coredns", "k8s-app=coredns", false),
            ("k8s-app!=coredns", "k8s-app!=coredns", true),
            ("tier=", "tier=", true),
            ("k8s-app, !canary", "k8s-app,!canary", true),
            ("example.test/name", "example.test/name", false),
            ("k8s-app=kube-dns,tier in (a,b)", "k8s-app=kube-dns,tier in (a,b)", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.query().as_deref(), Some(query), "{text}");
            assert_eq!(selector.selects(&dns), selects, "{text}");
            assert_eq!(LabelSelector::parse(query).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn the_empty_selector_selects_nothing() {
        for text in ["", "  "] {
            let selector = LabelSelector::parse(text).unwrap();
            assert!(selector.is_empty() && !selector.selects(&labels(&[("a", "b")])));
            assert_eq!(selector.query(), None);
        }
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused_here() {
        for text in [
            ",",
            "a,",
            "=b",
            "!",
            "!-a",
            "a in (b",
            "a in b)",
            "a has (b)",
            "in (b)",
            "a b",
            "a=b=c",
            "a=-b",
            "a/b/c",
            "a in (b)c",
            "a=(b)",
            "a\u{0}",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
