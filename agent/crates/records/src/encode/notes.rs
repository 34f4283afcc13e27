//! Unusual properties of a transaction, in words.

use std::{
    fmt::{self, Write},
    net::IpAddr,
};

use tap53_dns::ParseStatus;
use tap53_signals::Signal;
use tap53_transactions::pair::{Outcome, Relation};

use super::Row;

/// Separates two notes.
const SEPARATOR: &str = "  ";

/// Writes unusual properties, each in brackets.
pub(super) fn write_notes(row: &Row<'_>, out: &mut String) -> fmt::Result {
    let mut notes = Notes(out);
    if row.opcode != "QUERY" {
        notes.add(format_args!("{}", row.opcode))?;
    }
    notes.count("+", row.more_questions.len() as u64, "question")?;
    notes.count("", row.updates.0, "update")?;
    if let Some(kind) = &row.tunnel_type {
        let kind = kind.to_lowercase();
        match row.tunnel_id {
            Some(id) => notes.add(format_args!("{kind} {id}"))?,
            None => notes.add(format_args!("{kind}"))?,
        }
    }
    if let Some(text) = relation(row) {
        notes.add(format_args!("{text}"))?;
    }
    if row.truncated == Some(true) {
        notes.add(format_args!("truncated"))?;
    }
    if row.query_count > 1 {
        notes.add(format_args!("asked {} times", row.query_count))?;
    }
    write_translation(row, &mut notes)?;
    if row.capture_gap {
        notes.add(format_args!("capture gap"))?;
    }
    for anomaly in &row.anomalies {
        notes.add(format_args!("{anomaly}!"))?;
    }
    write_signals(row, &mut notes)?;
    if row.parse_status != ParseStatus::Ok.name() {
        notes.add(format_args!("{}", row.parse_status))?;
    }
    Ok(())
}

/// Writes the signals that are no anomalies.
fn write_signals(row: &Row<'_>, notes: &mut Notes<'_>) -> fmt::Result {
    let has = |wanted: Signal| row.signals.iter().any(|signal| signal == wanted.name());
    for signal in row.signals.iter().filter(|signal| !row.anomalies.contains(signal)) {
        match Signal::from_name(signal) {
            Some(Signal::NewDomainNode) => notes.add(format_args!("new domain"))?,
            Some(Signal::NewDomainWorkload) if has(Signal::NewDomainNode) => {}
            Some(Signal::NewDomainWorkload) => notes.add(format_args!("new to workload"))?,
            _ => notes.add(format_args!("{signal}!"))?,
        }
    }
    Ok(())
}

/// Writes what address translation changed.
fn write_translation(row: &Row<'_>, notes: &mut Notes<'_>) -> fmt::Result {
    if let Some(address) = &row.backend_address {
        let end = endpoint(address, row.backend_port);
        notes.add(format_args!("backend {end}"))?;
    }
    if let Some(address) = &row.translated_client_address {
        let end = endpoint(address, row.translated_client_port);
        notes.add(format_args!("client translated to {end}"))?;
    }
    if row.is_translation_undecided() {
        notes.add(format_args!("address translation undecided"))?;
    }
    Ok(())
}

/// Returns the relation to another record in words.
fn relation(row: &Row<'_>) -> Option<&'static str> {
    let Some(symbol) = row.relation.as_deref() else {
        let is_unmatched = row.outcome == Outcome::UnmatchedResponse.symbol();
        return is_unmatched.then_some("query not seen");
    };
    let is_transfer = || {
        // Further messages of a zone transfer may omit the question (RFC 5936 §2.2.1).
        row.transport == "TCP"
            && row.qtype.as_deref().is_none_or(|it| ["AXFR", "IXFR"].contains(&it))
    };
    [
        (Relation::LateResponse, "late: recorded as unanswered before"),
        (Relation::RepeatedResponse, "repeated response"),
        (Relation::TcpAfterTruncation, "again, after a truncated response"),
        (Relation::RetriedOverTcp, "asked again over TCP"),
        (Relation::WrongId, "wrong identifier for a query"),
        (Relation::WrongServer, "not who a query went to"),
        (Relation::Translated, "seen on one side of address translation"),
    ]
    .into_iter()
    .find(|(relation, _)| relation.symbol() == symbol)
    .map(|(relation, text)| match relation {
        Relation::RepeatedResponse if is_transfer() => "more of a zone transfer",
        _ => text,
    })
}

/// Formats an address as the policy shows it, with its port if there is one.
pub(super) fn endpoint(address: &str, port: Option<u16>) -> String {
    let Some(port) = port else {
        return if address.is_empty() { "-".to_owned() } else { address.to_owned() };
    };
    match address {
        "" => format!("-:{port}"),
        address if matches!(address.parse(), Ok(IpAddr::V6(_))) => format!("[{address}]:{port}"),
        address => format!("{address}:{port}"),
    }
}

struct Notes<'a>(&'a mut String);

impl Notes<'_> {
    fn add(&mut self, note: fmt::Arguments<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            self.0.push_str(SEPARATOR);
        }
        write!(self.0, "[{note}]")
    }

    /// Adds a number of things unless there are none.
    fn count(&mut self, prefix: &str, count: u64, noun: &str) -> fmt::Result {
        match count {
            0 => Ok(()),
            1 => self.add(format_args!("{prefix}1 {noun}")),
            count => self.add(format_args!("{prefix}{count} {noun}s")),
        }
    }
}
