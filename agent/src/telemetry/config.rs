//! The `telemetry` section: the port for probes and Prometheus, and the export by OTLP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, choice, milliseconds, text};
use tap53_otlp::config::OtlpConfig;

/// Default port. Not 9153, which CoreDNS uses on many nodes.
const PORT: u16 = 9530;

/// The port for probes and Prometheus, and the export of metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TelemetryConfig {
    /// Set if the agent opens the port; by default if the section exists.
    pub enabled: bool,
    /// Address to listen at.
    pub listen: SocketAddr,
    /// Time without a heartbeat of a worker after which the agent is not alive.
    #[serde(rename = "heartbeat_timeout_ms", serialize_with = "as_milliseconds")]
    pub heartbeat_timeout: Duration,
    /// Collector that metrics are exported to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpConfig>,
    /// Series for interfaces of pods.
    pub pod_interfaces: PodInterfaces,
}

/// Series for the ends of pairs (veth, netkit), of which there is one for each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PodInterfaces {
    /// One for all of them.
    Summed,
    /// One for each of them.
    Each,
}

/// The shortest [`heartbeat_timeout`](TelemetryConfig::heartbeat_timeout).
pub(crate) const SHORTEST_HEARTBEAT_TIMEOUT_MS: u64 = 1_000;

impl TelemetryConfig {
    pub(crate) fn read(section: &mut Section<'_>, present: bool) -> Self {
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(present),
            listen: section
                .read("listen", text(address))
                .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, PORT).into()),
            // An idle worker reads its ring four times a second; a batch that waits for a full Kafka
            // queue takes 200 ms for each such sink. Less than a second would be scheduler noise.
            heartbeat_timeout: section
                .read("heartbeat_timeout_ms", milliseconds(SHORTEST_HEARTBEAT_TIMEOUT_MS..=600_000))
                .unwrap_or(Duration::from_secs(15)),
            otlp: section.optional_section("otlp", OtlpConfig::read).flatten(),
            pod_interfaces: section.read("pod_interfaces", choice).unwrap_or(PodInterfaces::Summed),
        }
    }

    /// True if somebody reads the metrics.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.enabled || self.otlp.is_some()
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        _ => Err("must be an address and a port, such as 127.0.0.1:9530 or [::]:9530".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tap53_capture::ring::SLEEP;

    #[test]
    fn a_sleeping_worker_is_alive_by_the_shortest_bound() {
        let shortest = Duration::from_millis(SHORTEST_HEARTBEAT_TIMEOUT_MS);
        assert!(SLEEP * 4 <= shortest);
    }
}
