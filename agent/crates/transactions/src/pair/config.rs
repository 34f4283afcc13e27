//! The `pair` section: the table that pairs queries with responses.

use std::time::Duration;

use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, milliseconds, whole_number};

/// Configures the table that pairs queries with responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PairConfig {
    /// Time after which a query over UDP counts as unanswered.
    #[serde(rename = "timeout_ms", serialize_with = "as_milliseconds")]
    pub udp_timeout: Duration,
    /// Time after which a query over TCP counts as unanswered.
    #[serde(rename = "tcp_timeout_ms", serialize_with = "as_milliseconds")]
    pub tcp_timeout: Duration,
    /// Maximum number of pending queries of each worker.
    pub capacity: usize,
    /// True if one packet that passes several interfaces counts as one message.
    pub merge_interfaces: bool,
}

impl PairConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            // Resolvers give up on a query after seconds; ten minutes exceeds the timeout of all of
            // them.
            udp_timeout: section
                .read("timeout_ms", milliseconds(1..=600_000))
                .unwrap_or(Duration::from_secs(5)),
            tcp_timeout: section
                .read("tcp_timeout_ms", milliseconds(1..=600_000))
                .unwrap_or(Duration::from_secs(10)),
            capacity: section.read("capacity", whole_number(1..=1 << 24)).unwrap_or(65_536),
            merge_interfaces: section.read("merge_interfaces", boolean).unwrap_or(true),
        }
    }
}
