//! The selection of records for a follower, and for a replay.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use glob::Pattern;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tap53_dns::{below, rcode_name, type_name};
use tap53_records::encode::Row;
use tap53_signals::Signal;
use tap53_transactions::{
    filter::config::zone,
    privacy::{Policy, Side},
};

/// A follower's selection, as it is sent. A record must match every list. A list matches if any of its
/// entries does; an empty list matches every record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Names; each matches itself and the names below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub qnames: Vec<String>,
    /// Prefixes of the client's address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<IpNet>,
    /// Prefixes of the server's address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpNet>,
    /// Query types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub qtypes: Vec<u16>,
    /// Response codes. With `unanswered`, a record must match either.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rcodes: Vec<u16>,
    /// Selects transactions without a response.
    #[serde(skip_serializing_if = "is_false")]
    pub unanswered: bool,
    /// Shell patterns of the names of interfaces that saw the query or the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Shell patterns of namespaces of clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Shell patterns of names of clients' pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Shell patterns of names of clients' workloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
    /// Keys and values of labels of clients' pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// Prefixes of addresses among the answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<IpNet>,
    /// Names of signals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    /// Minimum latency in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_us: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// The properties of the records from which a follower selects.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Set if records have the pods of addresses.
    pub pods: bool,
    /// Keys of the labels that records have.
    pub labels: Vec<String>,
    /// Set if records have signals.
    pub signals: bool,
}

/// Maximum number of values in a list: each is compared with every record.
const MAX_VALUES: usize = 32;

/// Maximum size of a pattern of interface names, in bytes. Names have 15 at most, and matching a long
/// pattern is expensive.
const MAX_INTERFACE_PATTERN: usize = 32;

/// Maximum size of a pattern of names of Kubernetes, in bytes; names have 253 at most (RFC 1123).
const MAX_NAME_PATTERN: usize = 256;

/// The reason why a selection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A list has too many values.
    #[error("at most {MAX_VALUES} values of a kind")]
    TooMany,
    /// A name or pattern is malformed.
    #[error("{text:?} {reason}")]
    Malformed {
        /// The name or pattern.
        text: String,
        /// The problem.
        reason: String,
    },
    /// Records do not name pods.
    #[error(
        "cannot select by namespace, pod, workload or label: records name pods only if an agent \
         with kubernetes.enabled captures them live"
    )]
    NoPods,
    /// Records do not have the label.
    #[error(
        "cannot select by label {key:?}: records have {}; add it to kubernetes.labels",
        list(known)
    )]
    NoLabel {
        /// The label's key.
        key: String,
        /// The keys that records have.
        known: Vec<String>,
    },
    /// Records have no signals.
    #[error("cannot select by signal: the agent does not look for signals; set signals.enabled")]
    NoSignals,
    /// No interface has such a name.
    #[error("no interface matches {pattern:?}: there are {}", list(known))]
    NoInterface {
        /// The pattern.
        pattern: String,
        /// The interfaces that there are.
        known: Vec<String>,
    },
    /// Selecting by a hidden value would reveal it.
    #[error("cannot select by {0} address: the privacy section hides it")]
    Hidden(&'static str),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Selection {
    /// Returns true if every record matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the selection against the privacy rules and what records have, and normalizes names to the
    /// form of records.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check(&mut self, policy: &Policy, known: &Known) -> Result<(), Refusal> {
        let counts = [
            self.qnames.len(),
            self.clients.len(),
            self.servers.len(),
            self.qtypes.len(),
            self.rcodes.len(),
            self.interfaces.len(),
            self.namespaces.len(),
            self.pods.len(),
            self.workloads.len(),
            self.labels.len(),
            self.answers.len(),
            self.signals.len(),
        ];
        if counts.into_iter().any(|count| count > MAX_VALUES) {
            return Err(Refusal::TooMany);
        }
        for name in &mut self.qnames {
            *name =
                zone(name).map_err(|reason| Refusal::Malformed { text: name.clone(), reason })?;
        }
        for pattern in &self.interfaces {
            if pattern.contains(':') {
                let reason = "is no pattern of names: records have the names of interfaces, and not \
                              their kinds";
                return Err(Refusal::Malformed {
                    text: pattern.clone(),
                    reason: reason.to_owned(),
                });
            }
            check_pattern(pattern, MAX_INTERFACE_PATTERN)?;
        }
        for pattern in self.namespaces.iter().chain(&self.pods).chain(&self.workloads) {
            check_pattern(pattern, MAX_NAME_PATTERN)?;
        }
        self.check_pods(known)?;
        self.check_signals(known)?;
        for (side, prefixes, name) in [
            (Side::Client, &self.clients, "the client's"),
            (Side::Server, &self.servers, "the server's"),
        ] {
            if !prefixes.is_empty() && !policy.shows_addresses(side) {
                return Err(Refusal::Hidden(name));
            }
        }
        Ok(())
    }

    fn check_signals(&self, known: &Known) -> Result<(), Refusal> {
        if !self.signals.is_empty() && !known.signals {
            return Err(Refusal::NoSignals);
        }
        for name in &self.signals {
            signal(name).map_err(|reason| Refusal::Malformed { text: name.clone(), reason })?;
        }
        Ok(())
    }

    fn check_pods(&self, known: &Known) -> Result<(), Refusal> {
        let selects =
            [&self.namespaces, &self.pods, &self.workloads].iter().any(|it| !it.is_empty());
        if (selects || !self.labels.is_empty()) && !known.pods {
            return Err(Refusal::NoPods);
        }
        match self.labels.iter().find(|(key, _)| !known.labels.contains(key)) {
            Some((key, _)) => {
                Err(Refusal::NoLabel { key: key.clone(), known: known.labels.clone() })
            }
            None => Ok(()),
        }
    }

    /// Checks that each pattern of interfaces matches one of `names`.
    ///
    /// # Errors
    /// [`Refusal::NoInterface`].
    pub fn check_interfaces(&self, names: &[String]) -> Result<(), Refusal> {
        let is_unknown = |pattern: &&String| {
            let compiled = Pattern::new(pattern).ok();
            !names.iter().any(|name| compiled.as_ref().is_some_and(|it| it.matches(name)))
        };
        match self.interfaces.iter().find(is_unknown) {
            Some(pattern) => {
                Err(Refusal::NoInterface { pattern: pattern.clone(), known: names.to_vec() })
            }
            None => Ok(()),
        }
    }
}

fn check_pattern(pattern: &str, max_bytes: usize) -> Result<(), Refusal> {
    let malformed = |reason: String| Refusal::Malformed { text: pattern.to_owned(), reason };
    if pattern.len() > max_bytes {
        return Err(malformed(format!("is longer than {max_bytes} bytes")));
    }
    Pattern::new(pattern)
        .map(|_| ())
        .map_err(|error| malformed(format!("is not a shell pattern: {}", error.msg)))
}

/// A selection in the form in which rows are compared with it.
#[derive(Debug)]
pub struct RecordFilter {
    selection: Selection,
    qtypes: Vec<Cow<'static, str>>,
    rcodes: Vec<Cow<'static, str>>,
    interfaces: Vec<Pattern>,
    namespaces: Vec<Pattern>,
    pods: Vec<Pattern>,
    workloads: Vec<Pattern>,
}

impl RecordFilter {
    /// Creates the filter of a checked selection; invalid patterns match nothing.
    #[must_use]
    pub fn new(selection: &Selection) -> Self {
        let patterns = |texts: &[String]| {
            // A pattern that is malformed has been refused by `Selection::check`.
            texts.iter().map(|text| Pattern::new(text).unwrap_or_default()).collect()
        };
        Self {
            qtypes: selection.qtypes.iter().map(|qtype| type_name(*qtype)).collect(),
            rcodes: selection.rcodes.iter().map(|rcode| rcode_name(*rcode)).collect(),
            interfaces: patterns(&selection.interfaces),
            namespaces: patterns(&selection.namespaces),
            pods: patterns(&selection.pods),
            workloads: patterns(&selection.workloads),
            selection: selection.clone(),
        }
    }

    /// Returns true if the record of this row is selected.
    #[must_use]
    pub fn matches(&self, row: &Row<'_>) -> bool {
        let selection = &self.selection;
        self.matches_question(row)
            && self.matches_outcome(row)
            && self.matches_interface(row)
            && self.matches_client(row)
            && matches_address(&selection.clients, &row.client_address)
            && matches_address(&selection.servers, &row.server_address)
            && matches_answer(&selection.answers, row)
            && matches_signal(&selection.signals, row)
            && selection.slower_us.is_none_or(|slower_us| {
                let latency = row.latency_ns.and_then(|ns| u64::try_from(ns).ok());
                latency
                    .is_some_and(|ns| Duration::from_nanos(ns) >= Duration::from_micros(slower_us))
            })
    }

    fn matches_question(&self, row: &Row<'_>) -> bool {
        let qnames = &self.selection.qnames;
        let types = || {
            let more = row.more_questions.iter().map(|question| &*question.qtype);
            row.qtype.as_deref().into_iter().chain(more)
        };
        let names = || {
            let more = row.more_questions.iter().map(|question| &*question.name);
            row.qname.as_deref().into_iter().chain(more)
        };
        let is_below =
            |name: &str| qnames.iter().any(|zone| zone == "." || below(name, zone).is_some());
        (self.qtypes.is_empty() || types().any(|qtype| self.qtypes.iter().any(|it| it == qtype)))
            && (qnames.is_empty() || names().any(is_below))
    }

    fn matches_outcome(&self, row: &Row<'_>) -> bool {
        match row.rcode.as_deref() {
            _ if self.rcodes.is_empty() && !self.selection.unanswered => true,
            Some(rcode) => self.rcodes.iter().any(|it| it == rcode),
            None => self.selection.unanswered,
        }
    }

    fn matches_interface(&self, row: &Row<'_>) -> bool {
        let seen_at = [Some(&*row.interface), row.response_interface.as_deref()];
        self.interfaces.is_empty()
            || seen_at.into_iter().flatten().any(|name| matches_any(&self.interfaces, Some(name)))
    }

    fn matches_client(&self, row: &Row<'_>) -> bool {
        let is = |patterns: &[Pattern], name| patterns.is_empty() || matches_any(patterns, name);
        let label = |(key, value): &(String, String)| {
            let labels = row.client_labels.as_deref();
            labels.and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
        };
        is(&self.namespaces, row.client_pod_namespace.as_deref())
            && is(&self.pods, row.client_pod_name.as_deref())
            && is(&self.workloads, row.client_workload_name.as_deref())
            && (self.selection.labels.is_empty() || self.selection.labels.iter().any(label))
    }
}

fn matches_any(patterns: &[Pattern], name: Option<&str>) -> bool {
    name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
}

/// Compares an address as the privacy rules show it, which is none if they hide it.
fn matches_address(prefixes: &[IpNet], shown: &str) -> bool {
    prefixes.is_empty() || shown.parse().is_ok_and(|address| is_within(prefixes, address))
}

fn matches_answer(prefixes: &[IpNet], row: &Row<'_>) -> bool {
    let is_address = |rtype: &str| rtype == "A" || rtype == "AAAA";
    prefixes.is_empty()
        || row
            .answers
            .iter()
            .filter(|answer| is_address(&answer.rtype))
            .any(|answer| matches_address(prefixes, &answer.rdata))
}

fn matches_signal(names: &[String], row: &Row<'_>) -> bool {
    names.is_empty() || row.signals.iter().any(|signal| names.iter().any(|it| it == signal))
}

fn is_within(prefixes: &[IpNet], address: IpAddr) -> bool {
    // ::ffff:10.0.0.1 is 10.0.0.1 (RFC 4291 §2.5.5.2).
    let canonical = address.to_canonical();
    prefixes.iter().any(|prefix| prefix.contains(&canonical) || prefix.contains(&address))
}

/// Parses a label, `KEY=VALUE`.
///
/// # Errors
/// If there is no `=`, or nothing before it.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not a label: write KEY=VALUE, such as app=checkout".to_owned()),
    }
}

/// Parses the name of a signal, in any case, and returns it as in records.
///
/// # Errors
/// If there is no such signal.
pub fn signal(name: &str) -> Result<String, String> {
    Signal::from_name(name).map(|signal| signal.name().to_owned()).ok_or_else(|| {
        format!("is not a signal; there are {}", Signal::ALL.map(Signal::name).join(", "))
    })
}

/// Parses a response code from its mnemonic, or from a text such as `RCODE3841`, as in records.
///
/// # Errors
/// If there is no code of this name.
pub fn rcode(name: &str) -> Result<u16, String> {
    /// The greatest code of twelve bits, including those of EDNS (RFC 6891 §6.1.3).
    const LAST: u16 = 0xfff;
    let name = name.to_ascii_uppercase();
    let number = name.strip_prefix("RCODE").and_then(|digits| digits.parse().ok());
    number
        .filter(|code| *code <= LAST)
        .or_else(|| (0..=LAST).find(|code| rcode_name(*code) == name))
        .ok_or_else(|| {
            "is not a response code: use a mnemonic such as SERVFAIL, or RCODE3841".to_owned()
        })
}
