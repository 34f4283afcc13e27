//! The text format of Prometheus, version 0.0.4, and the same table as a document.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use tap53_base::vitals::{Histogram, Snapshot};

use super::families::{self, Reading};

/// Content-Type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric of a table: its description, and the function that collects its series.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) collect: fn(&Reading<'_>, &mut Series),
}

/// A metric that is about to be read: a [`Family`], or a term of the ledger.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) labels: Vec<&'static str>,
    pub(super) collect: Collect,
}

/// Adds the series of a metric.
pub(super) type Collect = Box<dyn Fn(&Reading<'_>, &mut Series)>;

impl From<&Family> for Metric {
    fn from(family: &Family) -> Self {
        let Family { name, kind, help, labels, collect } = *family;
        Self { name, kind, help, labels: labels.to_vec(), collect: Box::new(collect) }
    }
}

/// The series of one family by the values of their labels. Series with the same values are added: an
/// interface can have the name of one that was removed.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) numbers: BTreeMap<Vec<String>, f64>,
    pub(super) histograms: BTreeMap<Vec<String>, Snapshot>,
}

impl Series {
    /// Adds to the series with these values, in the order of the family's labels.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(super) fn count(&mut self, labels: &[&str], count: u64) {
        self.measure(labels, count as f64);
    }

    /// Adds a value that is not a count, as [`count`](Self::count) does.
    pub(super) fn measure(&mut self, labels: &[&str], value: f64) {
        *self.numbers.entry(owned(labels)).or_default() += value;
    }

    /// Sets the histogram with these values.
    pub(super) fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        self.histograms.insert(owned(labels), histogram.read());
    }

    /// Adds observations to the histogram with these values. All of a family have the same bounds.
    pub(super) fn observations(
        &mut self,
        labels: &[&str],
        bounds_ns: &'static [u64],
        counts: &[u64],
        sum_ns: u64,
    ) {
        let empty = || Snapshot { bounds_ns, counts: vec![0; counts.len()], sum_ns: 0 };
        let histogram = self.histograms.entry(owned(labels)).or_insert_with(empty);
        for (sum, count) in histogram.counts.iter_mut().zip(counts) {
            *sum += count;
        }
        histogram.sum_ns = histogram.sum_ns.saturating_add(sum_ns);
    }

    /// Adds 1 for true, 0 for false.
    pub(super) fn flag(&mut self, labels: &[&str], value: bool) {
        self.measure(labels, f64::from(u8::from(value)));
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

/// Returns all metrics as text.
pub(super) fn exposition(reading: &Reading<'_>) -> String {
    let mut text = String::with_capacity(16 << 10);
    for metric in families::all() {
        let mut series = Series::default();
        (metric.collect)(reading, &mut series);
        // Writing to a String does not fail.
        let _ = write_metric(&mut text, &metric, &series);
    }
    text
}

fn write_metric(text: &mut String, metric: &Metric, series: &Series) -> fmt::Result {
    let Metric { name, kind, help, labels: names, .. } = metric;
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name())?;
    for (values, value) in &series.numbers {
        writeln!(text, "{name}{} {value}", Labels(names, values, None))?;
    }
    for (values, histogram) in &series.histograms {
        let mut count = 0;
        for (bucket, in_bucket) in histogram.counts.iter().enumerate() {
            count += in_bucket;
            let bound = histogram.bounds_ns.get(bucket);
            let bound = bound.map_or("+Inf".to_owned(), |bound| seconds(*bound).to_string());
            let labels = Labels(names, values, Some(&bound));
            writeln!(text, "{name}_bucket{labels} {count}")?;
        }
        let labels = Labels(names, values, None);
        writeln!(text, "{name}_sum{labels} {}", seconds(histogram.sum_ns))?;
        writeln!(text, "{name}_count{labels} {count}")?;
    }
    Ok(())
}

/// Converts nanoseconds to seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53 ns, 104 days; then to a part in it"
)]
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The labels of a series: names and values, and the upper bound of a bucket.
struct Labels<'a>(&'a [&'a str], &'a [String], Option<&'a str>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names, values, bound) = self;
        let labels = names.iter().copied().zip(values.iter().map(String::as_str));
        let mut opening = '{';
        for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            write!(f, "{opening}{name}=\"{}\"", Escaped(value))?;
            opening = ',';
        }
        if opening == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A label's value: backslash, quotation mark and line feed are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

/// Returns the page `docs/metrics.md`.
#[cfg(test)]
pub(super) fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `/metrics` of a running agent exposes these, in the text format of Prometheus. The page is \
         generated from the\ntables in `agent/src/telemetry/families` and, for the ledger, from \
         `agent/crates/ledger/src/stages.rs`: a test\nkeeps it up to date, and `UPDATE_DOCS=1 cargo test \
         -p tap53 --lib metrics` writes it.\n\n\
         | Name | Type | Labels | Meaning |\n|---|---|---|---|\n",
    );
    for Metric { name, kind, help, labels, .. } in families::all() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(text, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path, time::Duration};

    use super::*;

    #[test]
    fn the_document_of_the_metrics_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, document()).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == document(), "run `UPDATE_DOCS=1 cargo test -p tap53 --lib metrics`");
    }

    #[test]
    fn metrics_have_unique_names_in_prometheus_conventions() {
        let names: BTreeSet<&str> = families::all().map(|metric| metric.name).collect();
        assert_eq!(names.len(), families::all().count());
        for Metric { name, kind, help, .. } in families::all() {
            if kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert!(name.starts_with("tap53_") || name.starts_with("process_"), "{name}");
            assert!(!help.contains(['\n', '\\', '|']), "{name}: {help}");
        }
    }

    #[test]
    fn labels_are_escaped_and_series_with_the_same_labels_are_one() {
        let family = Family {
            name: "tap53_x_total",
            kind: Kind::Counter,
            help: "X.",
            labels: &["interface", "direction"],
            collect: |_, _| {},
        };
        let mut series = Series::default();
        series.count(&["a\"b\\\n", "ingress"], 2);
        series.count(&["a\"b\\\n", "ingress"], 3);
        series.measure(&["v0", "egress"], 0.25);
        let mut text = String::new();
        write_metric(&mut text, &Metric::from(&family), &series).unwrap();
        assert_eq!(
            text,
            "# HELP tap53_x_total X.\n# TYPE tap53_x_total counter\n\
             tap53_x_total{interface=\"a\\\"b\\\\\\n\",direction=\"ingress\"} 5\n\
             tap53_x_total{interface=\"v0\",direction=\"egress\"} 0.25\n"
        );
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up_to_the_last_which_is_the_count() {
        let family = Family {
            name: "tap53_x_seconds",
            kind: Kind::Histogram,
            help: "X.",
            labels: &["sink"],
            collect: |_, _| {},
        };
        let histogram = Histogram::new(&[1_000, 250_000_000, 10_000_000_000]);
        for ms in [1, 250, 251, 10_000, 11_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut series = Series::default();
        series.histogram(&["kafka"], &histogram);
        let mut text = String::new();
        write_metric(&mut text, &Metric::from(&family), &series).unwrap();
        assert_eq!(
            text,
            "# HELP tap53_x_seconds X.\n# TYPE tap53_x_seconds histogram\n\
             tap53_x_seconds_bucket{sink=\"kafka\",le=\"0.000001\"} 0\n\
             tap53_x_seconds_bucket{sink=\"kafka\",le=\"0.25\"} 2\n\
             tap53_x_seconds_bucket{sink=\"kafka\",le=\"10\"} 4\n\
             tap53_x_seconds_bucket{sink=\"kafka\",le=\"+Inf\"} 5\n\
             tap53_x_seconds_sum{sink=\"kafka\"} 21.502\n\
             tap53_x_seconds_count{sink=\"kafka\"} 5\n"
        );
    }
}
