//! Selects the transactions that become records.
//!
//! ```text
//!  transaction ─▶ clients ─▶ servers ─▶ qtypes ─▶ qnames ─▶ sample ─▶ record
//!                    └──────────┴──────────┴─────────┴─────────┴────▶ one FilterReason, counted
//! ```
//!
//! - One decision per transaction, when it would be recorded: query and response share it, and
//!   pairing sees every message.
//! - Names and addresses: the most specific matching entry decides, whichever list contains it, so
//!   that a part of a denied range can be allowed and vice versa. A subject without a match passes
//!   unless there is an `allow` list: such a list promises that nothing else is recorded. Query
//!   types have no hierarchy, so their entries are equal.
//! - A transaction without a readable question has no name and no type: it matches no `allow` list
//!   and no `deny` list of these.
//! - If there are several questions, each must pass.
//! - Only the first reason in the order above is counted, so that the reasons add up.
//! - Without a configured filter a decision is one branch.

mod address;
pub mod config;
mod name;
mod sample;

use std::net::IpAddr;

use tap53_dns::Question;
use tap53_reasons::reasons;

use crate::filter::config::FilterConfig;
use address::Addresses;
use name::Names;
use sample::Sample;

reasons! {
    /// Why a transaction is in no record, in the order of the decision.
    pub enum FilterReason {
        /// `filter.clients.deny` holds the client's address.
        ClientDenied = "client_denied", Filtered;
        /// No entry of `filter.clients.allow` holds the client's address.
        ClientNotAllowed = "client_not_allowed", Filtered;
        /// `filter.servers.deny` holds the server's address.
        ServerDenied = "server_denied", Filtered;
        /// No entry of `filter.servers.allow` holds the server's address.
        ServerNotAllowed = "server_not_allowed", Filtered;
        /// `filter.qtypes.deny` holds the query type.
        QtypeDenied = "qtype_denied", Filtered;
        /// `filter.qtypes.allow` does not hold the query type, or there is none.
        QtypeNotAllowed = "qtype_not_allowed", Filtered;
        /// `filter.qnames.deny` holds the name.
        QnameDenied = "qname_denied", Filtered;
        /// No entry of `filter.qnames.allow` holds the name, or there is none.
        QnameNotAllowed = "qname_not_allowed", Filtered;
        /// The transaction is outside of the share of `filter.sample`.
        SampledOut = "sampled_out", Filtered;
        /// The client is a pod of another node, which records the exchange (`record.observations`).
        OtherNode = "other_node", Filtered;
        /// `filter.namespaces.deny` matches the namespace of the client's pod.
        NamespaceDenied = "namespace_denied", Filtered;
        /// No entry of `filter.namespaces.allow` matches it, or the client is no known pod.
        NamespaceNotAllowed = "namespace_not_allowed", Filtered;
        /// `filter.workloads.deny` matches the client's workload.
        WorkloadDenied = "workload_denied", Filtered;
        /// No entry of `filter.workloads.allow` matches it, or the client is no known pod.
        WorkloadNotAllowed = "workload_not_allowed", Filtered;
        /// `filter.pod_labels.deny` selects the client's pod.
        PodLabelsDenied = "pod_labels_denied", Filtered;
        /// No entry of `filter.pod_labels.allow` selects it, or the client is no known pod.
        PodLabelsNotAllowed = "pod_labels_not_allowed", Filtered;
        /// The options of `tap53 replay` do not select the transaction.
        NotSelected = "not_selected", Filtered;
        /// `record.keep` leaves it out: it is a plain answer outside of the share. The metrics of the DNS
        /// count it.
        NotKept = "not_kept", Filtered;
    }
}

/// Decides whether a transaction becomes a record.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` if everything passes.
    rules: Option<Box<Rules>>,
}

#[derive(Clone, Debug)]
struct Rules {
    clients: Addresses,
    servers: Addresses,
    qtypes: Types,
    qnames: Names,
    sample: Sample,
}

/// The result of a pair of lists that refuse a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Denied,
    NotAllowed,
}

/// The list that contains an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Allow,
    Deny,
}

impl List {
    /// Returns the refusal, given the list of the most specific entry, if there is one.
    const fn refusal(decides: Option<Self>, has_allow: bool) -> Option<Refusal> {
        match decides {
            Some(Self::Deny) => Some(Refusal::Denied),
            None if has_allow => Some(Refusal::NotAllowed),
            Some(Self::Allow) | None => None,
        }
    }
}

impl Refusal {
    const fn reason(self, denied: FilterReason, not_allowed: FilterReason) -> FilterReason {
        match self {
            Self::Denied => denied,
            Self::NotAllowed => not_allowed,
        }
    }
}

impl Filter {
    /// Creates a filter from checked lists.
    #[must_use]
    pub fn new(config: &FilterConfig) -> Self {
        let rules = (!config.keeps_everything()).then(|| {
            Box::new(Rules {
                clients: Addresses::new(&config.clients),
                servers: Addresses::new(&config.servers),
                qtypes: Types {
                    allow: config.qtypes.allow.iter().map(|qtype| qtype.0).collect(),
                    deny: config.qtypes.deny.iter().map(|qtype| qtype.0).collect(),
                },
                qnames: Names::new(&config.qnames),
                sample: Sample::new(config.sample),
            })
        });
        Self { rules }
    }

    /// Returns true if every transaction passes.
    #[must_use]
    pub const fn keeps_everything(&self) -> bool {
        self.rules.is_none()
    }

    /// Returns the reason why a transaction between `client` and `server` about `questions` is not
    /// recorded, or `None` if it is. The first question is checked first.
    #[must_use]
    pub fn decide<'a>(
        &self,
        client: IpAddr,
        server: IpAddr,
        questions: impl IntoIterator<Item = Question<'a>>,
    ) -> Option<FilterReason> {
        let rules = self.rules.as_ref()?;
        rules.decide(client, server, questions.into_iter())
    }
}

impl Rules {
    fn decide<'a>(
        &self,
        client: IpAddr,
        server: IpAddr,
        mut questions: impl Iterator<Item = Question<'a>>,
    ) -> Option<FilterReason> {
        use FilterReason as Reason;
        if let Some(refusal) = self.clients.refusal(client) {
            return Some(refusal.reason(Reason::ClientDenied, Reason::ClientNotAllowed));
        }
        if let Some(refusal) = self.servers.refusal(server) {
            return Some(refusal.reason(Reason::ServerDenied, Reason::ServerNotAllowed));
        }
        let first = questions.next();
        // The loop runs once even without a question, for the allow lists.
        let mut question = first;
        loop {
            if let Some(refusal) = self.qtypes.refusal(question.map(|question| question.qtype)) {
                return Some(refusal.reason(Reason::QtypeDenied, Reason::QtypeNotAllowed));
            }
            if let Some(refusal) = self.qnames.refusal(question.map(|question| question.name)) {
                return Some(refusal.reason(Reason::QnameDenied, Reason::QnameNotAllowed));
            }
            question = questions.next();
            if question.is_none() {
                break;
            }
        }
        let name = first.map_or("", |question| question.name);
        (!self.sample.holds(client, server, name)).then_some(Reason::SampledOut)
    }
}

/// The lists of query types. They are short, so a linear search suffices.
#[derive(Clone, Debug)]
struct Types {
    allow: Box<[u16]>,
    deny: Box<[u16]>,
}

impl Types {
    fn refusal(&self, qtype: Option<u16>) -> Option<Refusal> {
        let list = qtype.and_then(|qtype| {
            let denied = self.deny.contains(&qtype).then_some(List::Deny);
            denied.or_else(|| self.allow.contains(&qtype).then_some(List::Allow))
        });
        List::refusal(list, !self.allow.is_empty())
    }
}

#[cfg(test)]
mod tests;
