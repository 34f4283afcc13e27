//! Finds the name that was probably meant, for an unknown one.

/// Minimum similarity of a suggestion: half of the letters of a short word may be wrong, or the end
/// of a longer one missing. Unrelated names of a section are below.
const MIN_SIMILARITY: f64 = 0.6;

/// Returns the name that is most similar to `unknown`, if one is similar enough. Case does not matter,
/// nor whether words are joined by `-` or `_`.
pub fn nearest<'a>(unknown: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No name is longer; the comparison takes the product of both lengths.
    const MAX_BYTES: usize = 64;
    if unknown.len() > MAX_BYTES {
        return None;
    }
    let unknown = normalized(unknown);
    names
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&unknown, &normalized(name)), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

/// Returns `reason` with the name that was probably meant instead of `unknown`.
pub(super) fn with_suggestion<'a>(
    reason: String,
    unknown: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> String {
    match nearest(unknown, names) {
        Some(name) => format!("{reason}; did you mean {name}?"),
        None => reason,
    }
}

fn normalized(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognized_and_other_words_are_not() {
        let types = ["stdout", "file", "kafka"];
        for (unknown, meant) in [
            ("kafak", Some("kafka")),
            ("Kafka", Some("kafka")),
            ("kafk", Some("kafka")),
            ("std-out", Some("stdout")),
            ("fax", None),
            ("smoke-signal", None),
            ("", None),
        ] {
            assert_eq!(nearest(unknown, types), meant, "{unknown}");
        }
        assert_eq!(nearest("xpd", ["auto", "xdp", "tc"]), Some("xdp"));
        assert_eq!(nearest("timeout", ["timeout_ms", "capacity"]), Some("timeout_ms"));
        assert_eq!(nearest("client-address", ["client_address"]), Some("client_address"));
        assert_eq!(nearest(&"k".repeat(100_000), ["k"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
