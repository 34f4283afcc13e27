//! The `state` section: the directory in which a run saves its state for the next one.

use std::path::PathBuf;

use serde::Serialize;
use tap53_base::settings::{Section, own_directory};

/// The directory in which a run saves its state for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateConfig {
    /// The directory; created if missing. `None`: no state is saved, and the gap between two runs is
    /// not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

impl StateConfig {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        Self { directory: section.read("directory", section.path(own_directory)) }
    }
}
