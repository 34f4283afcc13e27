//! The export by OTLP; empty unless it is configured.

use tap53_otlp::{Failure, Status};

use super::{Counter, Family, Gauge, Reading};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_otlp_exports_total",
        kind: Counter,
        help: "Exports of all metrics that the OpenTelemetry collector accepted.",
        labels: &[],
        collect: |r, s| if_exporting(r, |of| s.count(&[], of.exports)),
    },
    Family {
        name: "tap53_otlp_export_failures_total",
        kind: Counter,
        help: "Attempts to export that failed, by reason. Nothing is lost: the next one carries the same totals.",
        labels: &["reason"],
        collect: |r, s| {
            if_exporting(r, |of| {
                for (failure, count) in Failure::ALL.into_iter().zip(of.failures) {
                    s.count(&[failure.name()], count);
                }
            })
        },
    },
    Family {
        name: "tap53_otlp_points_sent_total",
        kind: Counter,
        help: "Points in requests that the collector accepted, including those that it rejected.",
        labels: &[],
        collect: |r, s| if_exporting(r, |of| s.count(&[], of.points_sent)),
    },
    Family {
        name: "tap53_otlp_points_rejected_total",
        kind: Counter,
        help: "Points that the collector rejected in requests that it accepted.",
        labels: &[],
        collect: |r, s| if_exporting(r, |of| s.count(&[], of.points_rejected)),
    },
    Family {
        name: "tap53_otlp_last_export_timestamp_seconds",
        kind: Gauge,
        help: "When the last export succeeded, seconds since 1970 UTC; absent before the first.",
        labels: &[],
        collect: |r, s| {
            if_exporting(r, |of| {
                if let Some(at) = of.last_export {
                    s.measure(&[], at.as_duration().as_secs_f64());
                }
            })
        },
    },
];

fn if_exporting(reading: &Reading<'_>, report: impl FnOnce(&Status)) {
    if let Some(status) = &reading.status.export {
        report(status);
    }
}
