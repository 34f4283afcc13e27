//! Options that select transactions, which `tail` and `replay` share.

use std::time::Duration;

use clap::Args;
use glob::Pattern;
use ipnet::IpNet;
use jiff::SignedDuration;
use tap53::{
    config::{QueryType, prefix, zone},
    tail::{Selection, label, rcode, signal},
};

/// Options that select transactions. One that is repeated matches any of its values; a transaction must
/// match all options.
#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filters {
    /// Only this name and names below it; internationalized names are matched as their A-label
    /// (xn--…); may be repeated
    #[arg(long = "qname", value_name = "SUFFIX", value_parser = zone)]
    qnames: Vec<String>,
    /// Only this query type, such as AAAA or TYPE65; may be repeated
    #[arg(long = "qtype", value_name = "TYPE")]
    qtypes: Vec<QueryType>,
    /// Only this response code, such as SERVFAIL; may be repeated
    #[arg(long = "rcode", value_name = "RCODE", value_parser = rcode)]
    rcodes: Vec<u16>,
    /// Only transactions without a response
    #[arg(long)]
    unanswered: bool,
    /// Only responses that took at least this time, such as 50ms or 1s
    #[arg(long, value_name = "DURATION", value_parser = latency)]
    slower: Option<Duration>,
    /// Only answers with an address of this prefix, such as 203.0.113.0/24; may be repeated
    #[arg(long = "answer", value_name = "CIDR", value_parser = prefix)]
    answers: Vec<IpNet>,
    /// Only transactions with this signal, such as TUNNEL or NEW_DOMAIN_NODE; may be repeated
    #[arg(long = "signal", value_name = "NAME", value_parser = signal)]
    signals: Vec<String>,
    /// Only clients of this prefix, such as 10.1.0.0/16; may be repeated
    #[arg(long = "client", value_name = "CIDR", value_parser = prefix)]
    clients: Vec<IpNet>,
    /// Only servers of this prefix; may be repeated
    #[arg(long = "server", value_name = "CIDR", value_parser = prefix)]
    servers: Vec<IpNet>,
    /// Only transactions whose query or response was seen at this interface, by name or shell pattern;
    /// may be repeated
    #[arg(long = "interface", short, value_name = "PATTERN")]
    interfaces: Vec<Pattern>,
    /// Only clients in this namespace, by name or shell pattern; may be repeated
    #[arg(long = "namespace", short, value_name = "PATTERN", value_parser = namespace)]
    namespaces: Vec<Pattern>,
    /// Only clients that are this pod, by name or shell pattern; may be repeated
    #[arg(long = "pod", value_name = "PATTERN")]
    pods: Vec<Pattern>,
    /// Only clients of this workload, by name or shell pattern; may be repeated
    #[arg(long = "workload", value_name = "PATTERN")]
    workloads: Vec<Pattern>,
    /// Only clients whose pod has this label, one of kubernetes.labels; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl Filters {
    /// Returns the selection, as the agent or a replay applies it.
    pub(super) fn selection(&self) -> Selection {
        let texts = |patterns: &[Pattern]| {
            patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect()
        };
        Selection {
            qnames: self.qnames.clone(),
            clients: self.clients.clone(),
            servers: self.servers.clone(),
            qtypes: self.qtypes.iter().map(|qtype| qtype.0).collect(),
            rcodes: self.rcodes.clone(),
            unanswered: self.unanswered,
            interfaces: texts(&self.interfaces),
            namespaces: texts(&self.namespaces),
            pods: texts(&self.pods),
            workloads: texts(&self.workloads),
            labels: self.labels.clone(),
            answers: self.answers.clone(),
            signals: self.signals.clone(),
            slower_us: self
                .slower
                .map(|slower| u64::try_from(slower.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

/// Parses a duration such as `50ms`, `800us` or `1s`.
fn latency(text: &str) -> Result<Duration, String> {
    let duration: Result<SignedDuration, _> = text.parse();
    duration
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "is not a duration: write it like 50ms or 1s".to_owned())
}

/// Parses a pattern of namespaces. A number is refused: `-n` was the number of transactions once.
fn namespace(text: &str) -> Result<Pattern, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "is a number: use --count {text} to stop after {text} transactions, or -n '[{}]{}' for a \
             namespace of this name",
            &text[..1],
            &text[1..]
        ));
    }
    Pattern::new(text).map_err(|error| format!("is not a shell pattern: {}", error.msg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_a_duration() {
        assert_eq!(latency("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(latency("800us"), Ok(Duration::from_micros(800)));
        for wrong in ["", "50", "-1s", "fast"] {
            assert!(latency(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_is_no_namespace() {
        let error = namespace("100").unwrap_err();
        assert!(error.contains("--count 100") && error.contains("'[1]00'"), "{error}");
        assert!(namespace("[1]00").unwrap().matches("100"));
        assert!(namespace("shop-*").unwrap().matches("shop-eu"));
        assert!(namespace("[").is_err());
    }
}
