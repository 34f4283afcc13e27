//! The `chains` section: the chain behind an answer.

use std::time::Duration;

use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, milliseconds, whole_number};

use crate::pair;

/// Configures the chains behind answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChainsConfig {
    /// True if records say what answers came from.
    pub enabled: bool,
    /// Maximum time that a record of a resolver's exchange waits for its verdict: under load, the workers'
    /// backlogs differ by a second.
    #[serde(rename = "hold_ms", serialize_with = "as_milliseconds")]
    pub hold: Duration,
    /// Maximum number of records that wait in each worker.
    pub capacity: usize,
}

impl ChainsConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>, pair: &pair::Config) -> Self {
        let enabled = section.read("enabled", boolean).unwrap_or(false);
        if enabled && !pair.merge_interfaces {
            section.refuse(
                "enabled",
                Some("true".to_owned()),
                "an exchange must have one record: leave this out, or pair.merge_interfaces: false",
            );
        }
        Self {
            enabled,
            hold: section
                .read("hold_ms", milliseconds(1..=10_000))
                .unwrap_or(Duration::from_secs(2)),
            capacity: section.read("capacity", whole_number(64..=1 << 20)).unwrap_or(8_192),
        }
    }

    /// Returns the tracker's configuration, or `None` if chains are disabled.
    #[must_use]
    pub const fn tracker(&self) -> Option<super::Config> {
        if !self.enabled {
            return None;
        }
        Some(super::Config { hold: self.hold, capacity: self.capacity })
    }
}
