//! Describes one problem of a configuration.

use std::fmt;

/// Maximum number of characters of a value that a message shows.
const SHOWN_CHARACTERS: usize = 200;

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, `sinks[1].rotate_bytes`, or the flag, `--interface`.
    pub path: String,
    /// Line and column of the file, from 1; `None` where the key is missing or a flag is wrong.
    pub place: Option<(u64, u64)>,
    /// The value found, with texts in quotes; `None` if there is none.
    pub value: Option<String>,
    /// The reason why the value is refused.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        if let Some(value) = &self.value {
            match value.char_indices().nth(SHOWN_CHARACTERS) {
                Some((end, _)) => write!(f, "{}…: ", &value[..end])?,
                None => write!(f, "{value}: ")?,
            }
        }
        f.write_str(&self.reason)
    }
}
