//! The `state` section: what one run leaves to the next.

use std::path::PathBuf;

use serde::Serialize;
use tap53_base::settings::{Section, own_directory, text};

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
        Self { directory: section.read("directory", text(own_directory)) }
    }
}
