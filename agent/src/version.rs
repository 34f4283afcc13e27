//! The version of this program: of the package, of its sources, and of the record's schema.

use std::sync::LazyLock;

pub use tap53_records::encode::SCHEMA_VERSION;

/// Version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Revision of the sources, a git commit unless a packager set another name; `unknown` if they were
/// not in a git checkout.
pub const REVISION: &str = env!("TAP53_REVISION");

/// Returns the text of `--version`, without the program's name.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!("{VERSION} (revision {REVISION}, record schema version {SCHEMA_VERSION})")
    });
    &TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_a_word() {
        assert!(!REVISION.is_empty() && !REVISION.contains(char::is_whitespace), "{REVISION:?}");
        assert!(text().starts_with(VERSION) && text().contains(REVISION), "{}", text());
    }
}
