//! Describes the rules to an operator.

use std::fmt::{self, Write as _};

use clap::ValueEnum as _;
use tap53_attribution::pod_selection::PodSelector;
use tap53_transactions::sampling::{Notable, SampleKey};

use super::config::KeepConfig;

impl fmt::Display for KeepConfig {
    /// Formats one sentence for each rule, separated by semicolons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keeps_everything() {
            return f.write_str("every transaction becomes a record");
        }
        let mut always: Vec<String> = self.always.iter().map(name).collect();
        always.extend(
            self.slower.map(|slower| format!("answers after {} ms or more", slower.as_millis())),
        );
        match always.is_empty() {
            true => f.write_str("nothing is always recorded")?,
            false => write!(f, "always recorded: {}", always.join(", "))?,
        }
        for (rule, number) in self.rules.iter().zip(0..) {
            let pods = describe(&rule.pods);
            write!(f, "; rules[{number}]: {} of the others of clients in {pods}", rule.share)?;
        }
        let together = match self.by {
            SampleKey::ClientAndName => "client and name",
            SampleKey::Name => "name",
            SampleKey::Exchange => "exchange",
        };
        let clients = if self.rules.is_empty() { "" } else { " of other clients" };
        write!(f, "; {} of the others{clients}, chosen by {together}", self.share)?;
        f.write_str("; the metrics count all of them")
    }
}

fn name(kind: Notable) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn describe(pods: &PodSelector) -> String {
    let mut text = String::new();
    let mut add = |key: &str, values: Vec<String>| {
        if !values.is_empty() {
            let and = if text.is_empty() { "" } else { " and " };
            let _ = write!(text, "{and}{key} {}", values.join(" or "));
        }
    };
    add("namespace", pods.namespaces.iter().map(ToString::to_string).collect());
    add("workload", pods.workloads.iter().map(ToString::to_string).collect());
    add("pods with", pods.pod_labels.iter().map(ToString::to_string).collect());
    text
}
