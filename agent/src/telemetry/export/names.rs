//! Names of OpenTelemetry for metrics and labels: <https://opentelemetry.io/docs/specs/semconv/>.
//!
//! A metric or label without an entry keeps the name that it has at `/metrics`.

use tap53_insight::WorkloadKind;

/// Labels of the DNS families, and the attributes that they become. `dns.question.type` and
/// `dns.response_code` are named as the registry of attributes names its own, which has none for them.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("client_namespace", "k8s.namespace.name"),
    ("server", "server.address"),
    ("qtype", "dns.question.type"),
    ("rcode", "dns.response_code"),
    ("transport", "network.transport"),
    ("name", "dns.question.name"),
];

/// Returns the name of a metric.
pub(super) fn metric(name: &'static str) -> &'static str {
    match name {
        // https://opentelemetry.io/docs/specs/semconv/dns/dns-metrics/
        "tap53_dns_latency_seconds" => "dns.lookup.duration",
        name => name,
    }
}

/// Returns the unit of a metric by the end of its name.
pub(super) fn unit(name: &str) -> &'static str {
    match name.trim_end_matches("_total") {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "",
    }
}

/// Returns the attribute for a label of the DNS families.
pub(super) fn attribute(label: &'static str) -> &'static str {
    let known = ATTRIBUTES.iter().find(|(name, _)| *name == label);
    known.map_or(label, |(_, attribute)| attribute)
}

/// Returns the attribute for the name of a workload of this kind.
pub(super) const fn workload(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::CronJob => "k8s.cronjob.name",
        WorkloadKind::DaemonSet => "k8s.daemonset.name",
        WorkloadKind::Deployment => "k8s.deployment.name",
        WorkloadKind::Job => "k8s.job.name",
        WorkloadKind::Pod => "k8s.pod.name",
        WorkloadKind::ReplicaSet => "k8s.replicaset.name",
        WorkloadKind::StatefulSet => "k8s.statefulset.name",
    }
}

/// Returns `error.type` of a transaction by its outcome and response code; `None` if it succeeded.
pub(super) fn error_type<'a>(outcome: &str, rcode: &'a str) -> Option<&'a str> {
    match (outcome, rcode) {
        ("unanswered", _) => Some("timeout"),
        (_, "" | "NOERROR" | "~other") => None,
        (_, rcode) => Some(rcode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_transactions_have_an_error_type() {
        for (outcome, rcode, error) in [
            ("matched", "NOERROR", None),
            ("matched", "NXDOMAIN", Some("NXDOMAIN")),
            ("unanswered", "", Some("timeout")),
            ("~other", "~other", None),
        ] {
            assert_eq!(error_type(outcome, rcode), error);
        }
    }

    #[test]
    fn units_are_those_of_the_names() {
        for (name, expected) in [
            ("process_cpu_seconds_total", "s"),
            ("tap53_ring_wait_seconds", "s"),
            ("tap53_kafka_broker_sent_bytes_total", "By"),
            ("tap53_records_created_total", ""),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }
}
