//! Which records a follower sees.

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

/// What a follower chooses, as it is sent. Each list holds what any of its entries holds, and an
/// empty list holds everything; a record must be held by every list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Names, each with those below it.
    pub qnames: Vec<String>,
    /// Prefixes of the client's address.
    pub clients: Vec<IpNet>,
    /// Prefixes of the server's address.
    pub servers: Vec<IpNet>,
    /// Query types.
    pub qtypes: Vec<u16>,
    /// Response codes; together with `unanswered`: either.
    pub rcodes: Vec<u16>,
    /// What was not answered.
    pub unanswered: bool,
    /// Shell patterns of interface names.
    pub interfaces: Vec<String>,
}

/// Values of a kind: each costs every record a look.
const MOST_VALUES: usize = 32;

/// Bytes of a pattern of interface names, which have 15 at most: matching costs more than its length.
const LONGEST_PATTERN: usize = 32;

/// Why a selection cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More values of a kind than are looked at.
    #[error("at most {MOST_VALUES} values of a kind")]
    TooMany,
    /// A name or pattern that is none.
    #[error("{text:?} {reason}")]
    Malformed {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Choosing by what is not shown would show it.
    #[error("cannot choose by {0} address: the privacy section hides it")]
    Hidden(&'static str),
}

impl Selection {
    /// Checks the selection against what `policy` shows, and brings names into the form that records
    /// have.
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
        if counts.into_iter().any(|count| count > MOST_VALUES) {
            return Err(Refusal::TooMany);
        }
        for name in &mut self.qnames {
            *name =
                zone(name).map_err(|reason| Refusal::Malformed { text: name.clone(), reason })?;
        }
        for pattern in &self.interfaces {
            if pattern.len() > LONGEST_PATTERN {
                let reason = format!("is longer than {LONGEST_PATTERN} bytes");
                return Err(Refusal::Malformed { text: pattern.clone(), reason });
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

/// A selection, ready to be asked.
#[derive(Debug)]
pub(super) struct Chosen {
    selection: Selection,
    interfaces: Vec<Pattern>,
}

impl Chosen {
    /// Of a checked selection: a pattern that is none holds nothing.
    pub(super) fn new(selection: &Selection) -> Self {
        let patterns = selection.interfaces.iter().filter_map(|text| Pattern::new(text).ok());
        Self { selection: selection.clone(), interfaces: patterns.collect() }
    }

    pub(super) fn holds(&self, record: &Record<'_>) -> bool {
        let chosen = &self.selection;
        let transaction = record.transaction;
        let flow = &transaction.flow;
        let asked = &transaction.first().message;
        let questions = || asked.question().into_iter().chain(asked.more_questions());
        let policy = record.policy;
        (chosen.qtypes.is_empty()
            || questions().any(|question| chosen.qtypes.contains(&question.qtype)))
            && self.holds_outcome(record)
            && (self.selection.interfaces.is_empty()
                || self.interfaces.iter().any(|p| p.matches(record.observer.interface())))
            && holds_address(&chosen.clients, policy, Side::Client, flow.client.ip())
            && holds_address(&chosen.servers, policy, Side::Server, flow.server.ip())
            && (chosen.qnames.is_empty()
                || questions().any(|question| {
                    let name = policy.name(question.name);
                    chosen.qnames.iter().any(|zone| zone == "." || below(&name, zone).is_some())
                }))
    }

    fn holds_outcome(&self, record: &Record<'_>) -> bool {
        let Selection { rcodes, unanswered, .. } = &self.selection;
        match record.transaction.response() {
            _ if rcodes.is_empty() && !unanswered => true,
            Some(response) => rcodes.contains(&response.message.rcode),
            None => *unanswered,
        }
    }
}

fn holds_address(prefixes: &[IpNet], policy: &Policy, side: Side, address: IpAddr) -> bool {
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

/// A response code by its mnemonic, or `RCODE3841`, as records call it.
///
/// # Errors
/// When there is none of this name.
pub fn rcode(name: &str) -> Result<u16, String> {
    /// Twelve bits with those of EDNS (RFC 6891 §6.1.3).
    const LAST: u16 = 0xfff;
    let name = name.to_ascii_uppercase();
    let number = name.strip_prefix("RCODE").and_then(|digits| digits.parse().ok());
    number
        .filter(|code| *code <= LAST)
        .or_else(|| (0..=LAST).find(|code| rcode_name(*code) == name))
        .ok_or_else(|| "is not a response code: write its mnemonic, or RCODE3841".to_owned())
}
