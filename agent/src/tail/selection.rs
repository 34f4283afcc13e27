//! The selection of records for a follower.

use std::net::IpAddr;

use glob::Pattern;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tap53_dns::{below, rcode_name};
use tap53_records::encode::Record;
use tap53_transactions::{
    filter::config::zone,
    privacy::{Policy, ShownAddress, Side},
};

/// A follower's selection, as it is sent. A record must match every list. A list matches if any of its
/// entries does; an empty list matches every record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Names; each matches itself and the names below it.
    pub qnames: Vec<String>,
    /// Prefixes of the client's address.
    pub clients: Vec<IpNet>,
    /// Prefixes of the server's address.
    pub servers: Vec<IpNet>,
    /// Query types.
    pub qtypes: Vec<u16>,
    /// Response codes. With `unanswered`, a record must match either.
    pub rcodes: Vec<u16>,
    /// Selects transactions without a response.
    pub unanswered: bool,
    /// Shell patterns of interface names.
    pub interfaces: Vec<String>,
}

/// Maximum number of values in a list: each is compared with every record.
const MAX_VALUES: usize = 32;

/// Maximum size of a pattern of interface names, in bytes. Names have 15 at most, and matching a long
/// pattern is expensive.
const MAX_PATTERN: usize = 32;

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
    /// Selecting by a hidden value would reveal it.
    #[error("cannot select by {0} address: the privacy section hides it")]
    Hidden(&'static str),
}

impl Selection {
    /// Checks the selection against the privacy rules, and normalizes names to the form of records.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check(&mut self, policy: &Policy) -> Result<(), Refusal> {
        let counts = [
            self.qnames.len(),
            self.clients.len(),
            self.servers.len(),
            self.qtypes.len(),
            self.rcodes.len(),
            self.interfaces.len(),
        ];
        if counts.into_iter().any(|count| count > MAX_VALUES) {
            return Err(Refusal::TooMany);
        }
        for name in &mut self.qnames {
            *name =
                zone(name).map_err(|reason| Refusal::Malformed { text: name.clone(), reason })?;
        }
        for pattern in &self.interfaces {
            if pattern.len() > MAX_PATTERN {
                let reason = format!("is longer than {MAX_PATTERN} bytes");
                return Err(Refusal::Malformed { text: pattern.clone(), reason });
            }
            if pattern.contains(':') {
                let reason = "is no pattern of names: records have the names of interfaces, and not \
                              their kinds";
                return Err(Refusal::Malformed {
                    text: pattern.clone(),
                    reason: reason.to_owned(),
                });
            }
            Pattern::new(pattern).map_err(|error| Refusal::Malformed {
                text: pattern.clone(),
                reason: format!("is not a shell pattern: {}", error.msg),
            })?;
        }
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
}

/// A selection with compiled patterns.
#[derive(Debug)]
pub(super) struct RecordFilter {
    selection: Selection,
    interfaces: Vec<Pattern>,
}

impl RecordFilter {
    /// Creates the filter of a checked selection; invalid patterns match nothing.
    pub(super) fn new(selection: &Selection) -> Self {
        let patterns = selection.interfaces.iter().filter_map(|text| Pattern::new(text).ok());
        Self { selection: selection.clone(), interfaces: patterns.collect() }
    }

    pub(super) fn matches(&self, record: &Record<'_>) -> bool {
        let selection = &self.selection;
        let transaction = record.transaction;
        let flow = &transaction.flow;
        let message = &transaction.first().message;
        let questions = || message.question().into_iter().chain(message.more_questions());
        let policy = record.policy;
        (selection.qtypes.is_empty()
            || questions().any(|question| selection.qtypes.contains(&question.qtype)))
            && self.matches_outcome(record)
            && (selection.interfaces.is_empty()
                || self.interfaces.iter().any(|p| p.matches(record.observer.interface())))
            && matches_address(&selection.clients, policy, Side::Client, flow.client.ip())
            && matches_address(&selection.servers, policy, Side::Server, flow.server.ip())
            && (selection.qnames.is_empty()
                || questions().any(|question| {
                    let name = policy.name(question.name);
                    selection.qnames.iter().any(|zone| zone == "." || below(&name, zone).is_some())
                }))
    }

    fn matches_outcome(&self, record: &Record<'_>) -> bool {
        let Selection { rcodes, unanswered, .. } = &self.selection;
        match record.transaction.response() {
            _ if rcodes.is_empty() && !unanswered => true,
            Some(response) => rcodes.contains(&response.message.rcode),
            None => *unanswered,
        }
    }
}

fn matches_address(prefixes: &[IpNet], policy: &Policy, side: Side, address: IpAddr) -> bool {
    if prefixes.is_empty() {
        return true;
    }
    match policy.address(side, address) {
        ShownAddress::Address(shown) => {
            // ::ffff:10.0.0.1 is 10.0.0.1 (RFC 4291 §2.5.5.2).
            let canonical = shown.to_canonical();
            prefixes.iter().any(|prefix| prefix.contains(&canonical) || prefix.contains(&shown))
        }
        ShownAddress::Pseudonym(_) | ShownAddress::Nothing => false,
    }
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
