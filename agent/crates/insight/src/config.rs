//! The `dns_metrics` section: metrics of the DNS itself.

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Section, boolean, choice, whole_number};

use crate::top::CAPACITY;

/// Default of [`max_series`](DnsMetricsConfig::max_series).
const MAX_SERIES: u32 = 2_000;

/// Configures the metrics of the DNS itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DnsMetricsConfig {
    /// True if the agent counts, provided that its metrics can be read.
    pub enabled: bool,
    /// The owner by which clients are counted.
    pub by: ClientLabel,
    /// Maximum number of series of a metric.
    pub max_series: u32,
    /// True if the most frequent names are in the metrics.
    pub names: bool,
    /// True if the addresses of the clients with most transactions are in the metrics.
    pub clients: bool,
    /// Number of names and of clients that are shown.
    pub top: u32,
}

/// The owner by which clients are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClientLabel {
    /// Their namespace and workload.
    #[default]
    Workload,
    /// Their namespace.
    Namespace,
}

impl Default for DnsMetricsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            by: ClientLabel::default(),
            max_series: MAX_SERIES,
            names: false,
            clients: false,
            top: 20,
        }
    }
}

impl DnsMetricsConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let usual = Self::default();
        // A list has no more counters.
        let most = u32::try_from(CAPACITY).unwrap_or(u32::MAX);
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(usual.enabled),
            by: section.read("by", choice).unwrap_or(usual.by),
            max_series: section
                .read("max_series", whole_number(32..=20_000))
                .unwrap_or(usual.max_series),
            names: section.read("names", boolean).unwrap_or(usual.names),
            clients: section.read("clients", boolean).unwrap_or(usual.clients),
            top: section.read("top", whole_number(1..=most)).unwrap_or(usual.top),
        }
    }
}
