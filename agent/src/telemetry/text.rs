//! The text format of Prometheus, version 0.0.4, and the same table as a document.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use super::families::{FAMILIES, Reading};

/// Content-Type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric: what it is, and where its series come from.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) collect: fn(&Reading<'_>, &mut Series),
}

/// The series of one family by the values of their labels. Those with the same values are one: an
/// interface can bear the name of one that is gone.
#[derive(Debug, Default)]
pub(super) struct Series(BTreeMap<Vec<String>, f64>);

impl Series {
    /// Adds to the series with these values, in the order of the family's labels.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(super) fn count(&mut self, labels: &[&str], count: u64) {
        self.measure(labels, count as f64);
    }

    /// As [`count`](Self::count), for what is no count.
    pub(super) fn measure(&mut self, labels: &[&str], value: f64) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        *self.0.entry(labels).or_default() += value;
    }

    /// 1 for true.
    pub(super) fn flag(&mut self, labels: &[&str], value: bool) {
        self.measure(labels, f64::from(u8::from(value)));
    }
}

/// All metrics as text.
pub(super) fn exposition(reading: &Reading<'_>) -> String {
    let mut text = String::with_capacity(16 << 10);
    for family in FAMILIES {
        let mut series = Series::default();
        (family.collect)(reading, &mut series);
        // Writing to a String does not fail.
        let _ = write_family(&mut text, family, &series);
    }
    text
}

fn write_family(text: &mut String, family: &Family, series: &Series) -> fmt::Result {
    let Family { name, kind, help, .. } = family;
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name())?;
    for (values, value) in &series.0 {
        text.push_str(name);
        for (position, (label, of)) in family.labels.iter().zip(values).enumerate() {
            text.push(if position == 0 { '{' } else { ',' });
            write!(text, "{label}=\"{}\"", Escaped(of))?;
        }
        if !values.is_empty() {
            text.push('}');
        }
        writeln!(text, " {value}")?;
    }
    Ok(())
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

/// The table as `docs/metrics.md` has it.
#[cfg(test)]
pub(super) fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         What `/metrics` of a running agent tells, in the text format of Prometheus. Made from the \
         table in\n`agent/src/telemetry/families.rs`; a test keeps it so \
         (`UPDATE_DOCS=1 cargo test -p tap53 --lib metrics`\nwrites it anew).\n\n\
         | Name | Type | Labels | Meaning |\n|---|---|---|---|\n",
    );
    for Family { name, kind, help, labels, .. } in FAMILIES {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(text, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

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
    fn metrics_are_named_once_and_as_prometheus_asks() {
        let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
        for Family { name, kind, help, .. } in FAMILIES {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
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
        write_family(&mut text, &family, &series).unwrap();
        assert_eq!(
            text,
            "# HELP tap53_x_total X.\n# TYPE tap53_x_total counter\n\
             tap53_x_total{interface=\"a\\\"b\\\\\\n\",direction=\"ingress\"} 5\n\
             tap53_x_total{interface=\"v0\",direction=\"egress\"} 0.25\n"
        );
    }
}
