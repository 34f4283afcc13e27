//! Families of metrics as metrics of OTLP.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tap53_base::vitals::Snapshot;
use tap53_insight::WorkloadKind;
use tap53_otlp::{Attributes, Distribution, Metric, Metrics, Number, Points};

use super::names;
use crate::telemetry::{
    families::{self, Reading},
    text::{Kind, Metric as Family, Series, seconds},
};

/// Prefix of the families that count the DNS itself.
const DNS: &str = "tap53_dns_";

/// Kinds of workloads by namespace and name.
type Kinds = BTreeMap<[String; 2], WorkloadKind>;

/// Returns all metrics of a reading.
pub(super) fn metrics(reading: &Reading<'_>, started_at: Timestamp, now: Timestamp) -> Metrics {
    let dns = reading.status.dns.as_ref();
    let kinds = dns.map(tap53_insight::Reading::workload_kinds).unwrap_or_default();
    let convert = |family: Family| {
        let mut series = Series::default();
        (family.collect)(reading, &mut series);
        metric(&family, series, &kinds)
    };
    Metrics {
        started_at_ns: nanoseconds(started_at),
        taken_at_ns: nanoseconds(now),
        metrics: families::all().map(convert).collect(),
    }
}

fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or_default()
}

fn metric(family: &Family, series: Series, kinds: &Kinds) -> Metric {
    let Series { numbers, histograms } = series;
    let attributes = |values| attributes(family, values, kinds);
    let number = |(values, value)| Number { attributes: attributes(values), value };
    let numbers = numbers.into_iter().map(number);
    let points = match family.kind {
        Kind::Counter => Points::Counter(numbers.collect()),
        Kind::Gauge => Points::Gauge(numbers.collect()),
        Kind::Histogram => {
            let distribution = |(values, of)| distribution(attributes(values), of);
            Points::Histogram(histograms.into_iter().map(distribution).collect())
        }
    };
    Metric {
        name: names::metric(family.name),
        description: family.help,
        unit: names::unit(family.name),
        points,
    }
}

fn distribution(attributes: Attributes, of: Snapshot) -> Distribution {
    Distribution {
        attributes,
        bounds: of.bounds_ns.iter().map(|bound| seconds(*bound)).collect(),
        counts: of.counts,
        sum: seconds(of.sum_ns),
    }
}

fn attributes(family: &Family, values: Vec<String>, kinds: &Kinds) -> Attributes {
    let labels = family.labels.iter().copied().zip(values);
    if !family.name.starts_with(DNS) {
        return labels.collect();
    }
    dns_attributes(labels.collect(), kinds)
}

fn dns_attributes(labels: Attributes, kinds: &Kinds) -> Attributes {
    let value = |label| {
        let found = labels.iter().find(|(name, _)| *name == label);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let kind = kinds.get(&["client_namespace", "client_workload"].map(value)).copied();
    let error_type = names::error_type(&value("outcome"), &value("rcode")).map(str::to_owned);
    let renamed = labels.into_iter().map(|(label, value)| match (label, kind) {
        ("client_workload", Some(kind)) => (names::workload(kind), value),
        ("client", _) => ("client.address", value),
        _ => (names::attribute(label), value),
    });
    renamed.chain(error_type.map(|error_type| ("error.type", error_type))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[(&'static str, &str)]) -> Attributes {
        labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn labels_of_a_transaction_become_attributes_of_the_conventions() {
        let key = ["shop", "web"].map(str::to_owned);
        let kinds = Kinds::from([(key, WorkloadKind::Deployment)]);
        let transaction = [
            ("client_namespace", "shop"),
            ("client_workload", "web"),
            ("server", "192.0.2.53"),
            ("qtype", "AAAA"),
            ("rcode", "NXDOMAIN"),
            ("transport", "udp"),
            ("outcome", "matched"),
        ];
        assert_eq!(
            dns_attributes(labels(&transaction), &kinds),
            labels(&[
                ("k8s.namespace.name", "shop"),
                ("k8s.deployment.name", "web"),
                ("server.address", "192.0.2.53"),
                ("dns.question.type", "AAAA"),
                ("dns.response_code", "NXDOMAIN"),
                ("network.transport", "udp"),
                ("outcome", "matched"),
                ("error.type", "NXDOMAIN"),
            ])
        );
        // No kind: its name is not one of Kubernetes.
        let outside = labels(&[("client_namespace", ""), ("client_workload", "~external")]);
        let converted = dns_attributes(outside, &kinds);
        assert_eq!(converted[1], ("client_workload", "~external".to_owned()));
    }
}
