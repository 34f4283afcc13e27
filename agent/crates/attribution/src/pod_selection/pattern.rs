//! Shell patterns of the names of namespaces and workloads.

use std::{fmt, str::FromStr};

use glob::Pattern;
use serde::{Serialize, Serializer};
use tap53_records::encode::Workload;

/// A pattern of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamespacePattern(Pattern);

impl NamespacePattern {
    pub(super) fn matches(&self, workload: Workload<'_>) -> bool {
        self.0.matches(workload.namespace)
    }
}

impl FromStr for NamespacePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains('/') {
            true => Err("is not the name of a namespace: it has a slash".to_owned()),
            false => pattern(text).map(Self),
        }
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Serialize for NamespacePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A pattern of workloads: `NAME` in all namespaces, or `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadPattern {
    namespace: Option<Pattern>,
    name: Pattern,
}

impl WorkloadPattern {
    pub(super) fn matches(&self, workload: Workload<'_>) -> bool {
        self.name.matches(workload.name)
            && self.namespace.as_ref().is_none_or(|it| it.matches(workload.namespace))
    }
}

impl FromStr for WorkloadPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(pattern(namespace)?), name),
            None => (None, text),
        };
        if name.contains('/') {
            return Err("is not a workload: write NAME or NAMESPACE/NAME".to_owned());
        }
        Ok(Self { namespace, name: pattern(name)? })
    }
}

impl fmt::Display for WorkloadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{}", namespace.as_str(), self.name.as_str()),
            None => f.write_str(self.name.as_str()),
        }
    }
}

impl Serialize for WorkloadPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses a pattern that can match a name of Kubernetes (RFC 1123).
fn pattern(text: &str) -> Result<Pattern, String> {
    /// Maximum size of a name.
    const MAX_BYTES: usize = 253;
    if text.is_empty() {
        return Err("must not have an empty name".to_owned());
    }
    if text.len() > MAX_BYTES {
        return Err(format!("must not be longer than {MAX_BYTES} bytes"));
    }
    let is_allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*?[]!".contains(c);
    if let Some(other) = text.chars().find(|c| !is_allowed(*c)) {
        return Err(format!(
            "has {other:?}, which no name in Kubernetes has: lower-case letters, digits, - and . are \
             allowed, and the pattern's * ? [a-z]"
        ));
    }
    Pattern::new(text).map_err(|error| {
        format!("is not a shell pattern: {} at character {}", error.msg, error.pos + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload<'a>(namespace: &'a str, name: &'a str) -> Workload<'a> {
        Workload { namespace, name }
    }

    #[test]
    fn a_workload_is_named_with_or_without_its_namespace() {
        let web = workload("team-a", "web");
        for (text, matches) in [
            ("web", true),
            ("w*", true),
            ("team-a/web", true),
            ("team-?/*", true),
            ("team-b/web", false),
            ("eb", false),
            ("team-a/we", false),
        ] {
            let pattern: WorkloadPattern = text.parse().unwrap();
            assert_eq!(pattern.matches(web), matches, "{text}");
            assert_eq!(pattern.to_string(), text);
        }
        assert!("team-[ab]".parse::<NamespacePattern>().unwrap().matches(web));
    }

    #[test]
    fn what_matches_no_name_is_refused() {
        for text in
            ["", "Team", "a b", "a_b", "a/b/c", "/web", "team/", "[a", "ü", &"a".repeat(254)]
        {
            assert!(text.parse::<WorkloadPattern>().is_err(), "{text}");
        }
        assert!("a/b".parse::<NamespacePattern>().is_err());
    }
}
