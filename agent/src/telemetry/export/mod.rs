//! Exports the metrics by OTLP, see [`tap53_otlp`].
//!
//! The values are those of a scrape at the same moment. Names and attributes follow the semantic conventions
//! of OpenTelemetry where these have some: see `names.rs`.

mod convert;
mod names;

use std::{
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tap53_insight::DnsMetrics;
use tap53_ledger::Ledger;
use tap53_otlp::{Exporter, Metrics, Source, config::OtlpConfig};
use tokio::time::timeout;

use super::reader::Reader;
use crate::{control::Status, version::VERSION};

/// Deadline for an answer of the run loop.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Minimum time for the last export, however long the delivery of records took.
const MIN_LAST_EXPORT: Duration = Duration::from_secs(1);

/// A running export. Dropping it ends it.
pub struct Export {
    exporter: Exporter,
    reader: Reader,
}

/// Names this agent to the collector.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Id of this run.
    pub run: &'a str,
    /// Name of the node.
    pub node: &'a str,
    /// True if that is the name of a Kubernetes node.
    pub is_kubernetes: bool,
}

impl Export {
    /// Starts the export if it is configured.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        otlp: Option<&OtlpConfig>,
        origin: Origin<'_>,
        reader: &Reader,
    ) -> io::Result<Option<Self>> {
        let Some((otlp, status)) = otlp.cloned().zip(reader.sources().export.clone()) else {
            return Ok(None);
        };
        let source = RunLoop(reader.clone());
        let exporter = Exporter::start(otlp, resource(origin), status, source)?;
        Ok(Some(Self { exporter, reader: reader.clone() }))
    }

    /// Exports the final metrics: `status` as it was before the end, with the final `ledger`.
    pub fn finish(self, mut status: Status, ledger: &Ledger, deadline: Instant) {
        status.ledger = ledger.clone();
        status.dns = self.reader.sources().path.dns_metrics.as_ref().map(DnsMetrics::read);
        let metrics = metrics(&self.reader, &status);
        self.exporter.finish(metrics, deadline.max(Instant::now() + MIN_LAST_EXPORT));
    }
}

/// Reads the metrics through the run loop.
struct RunLoop(Reader);

impl Source for RunLoop {
    async fn read(&self) -> Option<Metrics> {
        let status = timeout(ANSWER_DEADLINE, self.0.status()).await.ok()??;
        Some(metrics(&self.0, &status))
    }
}

fn metrics(reader: &Reader, status: &Status) -> Metrics {
    let (started_at, now) = (reader.sources().started_at, Timestamp::now());
    reader.read(status, |reading| convert::metrics(reading, started_at, now))
}

/// Describes this agent: <https://opentelemetry.io/docs/specs/semconv/resource/>.
fn resource(Origin { run, node, is_kubernetes }: Origin<'_>) -> Vec<(String, String)> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let attributes = [
        ("service.name", Some("tap53".to_owned())),
        ("service.version", Some(VERSION.to_owned())),
        ("service.instance.id", Some(run.to_owned())),
        ("host.name", Some(host.unwrap_or_else(|| node.to_owned()))),
        ("k8s.node.name", is_kubernetes.then(|| node.to_owned())),
    ];
    let present = attributes.into_iter();
    present.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
