//! The `pair` section: the table that pairs queries with responses.

use std::time::Duration;

use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, milliseconds, whole_number};

use super::{RecordIds, SharedNotes, Table};

/// Configures the table that pairs queries with responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Time after which a query over UDP counts as unanswered.
    #[serde(rename = "timeout_ms", serialize_with = "as_milliseconds")]
    pub udp_timeout: Duration,
    /// Time after which a query over TCP counts as unanswered.
    #[serde(rename = "tcp_timeout_ms", serialize_with = "as_milliseconds")]
    pub tcp_timeout: Duration,
    /// Maximum number of pending queries of each worker. An entry takes about 0.6 KiB with its name, so
    /// the default bounds a worker's table to some 40 MiB under a flood of spoofed queries.
    pub capacity: usize,
    /// True if one packet that passes several interfaces counts as one message.
    pub merge_interfaces: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            udp_timeout: Duration::from_secs(5),
            tcp_timeout: Duration::from_secs(10),
            capacity: 65_536,
            merge_interfaces: true,
        }
    }
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let usual = Self::default();
        // Resolvers give up on a query after seconds; ten minutes exceeds the timeout of all of them.
        let mut timeout =
            |key, usual| section.read(key, milliseconds(1..=600_000)).unwrap_or(usual);
        Self {
            udp_timeout: timeout("timeout_ms", usual.udp_timeout),
            tcp_timeout: timeout("tcp_timeout_ms", usual.tcp_timeout),
            capacity: section.read("capacity", whole_number(1..=1 << 24)).unwrap_or(usual.capacity),
            merge_interfaces: section
                .read("merge_interfaces", boolean)
                .unwrap_or(usual.merge_interfaces),
        }
    }

    /// Creates an empty table whose observation begins at `started_at_ns` (CLOCK_MONOTONIC).
    #[must_use]
    pub fn build(self, started_at_ns: u64, ids: RecordIds, shared: SharedNotes) -> Table {
        Table::new(self, started_at_ns, ids, shared)
    }
}
