//! The `state` section: what one run leaves to the next.

use std::path::PathBuf;

use serde::Serialize;
use tap53_base::settings::{Section, text};

/// What one run leaves to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateConfig {
    /// Where; made if missing. `None`: nothing is left, and what passes between two runs is not
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

impl StateConfig {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        Self { directory: section.read("directory", text(directory)) }
    }
}

/// It need not exist: it is made at the start.
fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        Err("must be an absolute path".to_owned())
    } else if path.exists() && !path.is_dir() {
        Err("is not a directory".to_owned())
    } else {
        Ok(path)
    }
}
