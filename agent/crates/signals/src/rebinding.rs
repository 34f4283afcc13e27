//! Names whose addresses may be private.

use tap53_dns::below;

/// Suffixes of names.
pub(crate) struct Suffixes(Box<[String]>);

impl Suffixes {
    pub(crate) fn new<'a>(suffixes: impl IntoIterator<Item = &'a String>) -> Self {
        Self(suffixes.into_iter().cloned().collect())
    }

    /// Returns true if `name` is one of the suffixes, or below one.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|suffix| below(name, suffix).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_contain_themselves_and_what_is_below() {
        let suffixes = Suffixes::new(&["corp.example.com".to_owned()]);
        assert!(suffixes.contain("corp.example.com"));
        assert!(suffixes.contain("a.corp.example.com"));
        assert!(!suffixes.contain("notcorp.example.com"));
        assert!(!suffixes.contain("example.com"));
    }
}
