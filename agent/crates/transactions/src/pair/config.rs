//! The `pair` section: the table that pairs queries with responses.

use std::time::Duration;

use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, milliseconds, whole_number};

/// The table that pairs queries with responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PairConfig {
    /// How long a query over UDP waits for its response before it counts as unanswered.
    #[serde(rename = "timeout_ms", serialize_with = "as_milliseconds")]
    pub udp_timeout: Duration,
    /// As above, over TCP.
    #[serde(rename = "tcp_timeout_ms", serialize_with = "as_milliseconds")]
    pub tcp_timeout: Duration,
    /// Pending queries that each worker holds at most.
    pub capacity: usize,
    /// Whether one packet on its way over several interfaces is one message.
    pub merge_interfaces: bool,
}

impl PairConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            // Resolvers give up on a query after seconds; ten minutes is beyond any of them.
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
