//! One line per transaction, for people.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use tap53_dns::{ParseStatus, Transport, Tunnel, opcode_name, rcode_name, type_name};
use tap53_transactions::{
    pair::{Nat, Outcome, Relation, Transaction},
    privacy::{ShownAddress, Side},
};

use super::{Encode, Error, Record};

/// The heading of the columns. They are wide enough for IPv4 and common names; a longer value
/// shifts the rest of its line to the right instead of being cut.
pub const HEADING: &str = "TIME (UTC)       CLIENT                 SERVER           PROTO  TYPE   \
                           NAME                              RESULT         LATENCY  ANSWERS\n";

/// Maximum number of answers on a line.
const ANSWERS_SHOWN: usize = 3;

/// Maximum number of characters of an answer: a DNSKEY or a TXT record could fill several lines.
const ANSWER_WIDTH: usize = 48;

/// Encodes a record as aligned columns. Text from the wire is already escaped, so a name cannot
/// move the cursor.
pub struct Text {
    /// With ANSI colours.
    pub color: bool,
}

impl Encode for Text {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        // Writing to a Vec does not fail.
        let _ = self.write(record, out);
        out.push(b'\n');
        Ok(())
    }
}

impl Text {
    fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let transaction = record.transaction;
        let flow = &transaction.flow;
        let first = transaction.first();
        let of_day_us = record.clock.utc_us(first.at_ns).rem_euclid(86_400_000_000);
        let (seconds, us) = (of_day_us / 1_000_000, of_day_us % 1_000_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(out, "{hours:02}:{minutes:02}:{seconds:02}.{us:06}  ")?;
        let client = record.policy.address(Side::Client, flow.client.ip());
        write!(out, "{:<21}  ", endpoint(&client, Some(flow.client.port())))?;
        let server = record.policy.address(Side::Server, flow.server.ip());
        let port = Some(flow.server.port()).filter(|port| *port != 53);
        let transport = match flow.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        write!(out, "{:<15}  {transport:<5}  ", endpoint(&server, port))?;
        match first.message.question() {
            Some(question) => {
                let name = record.policy.name(question.name);
                write!(out, "{:<5}  {name:<32}  ", type_name(question.qtype))?;
            }
            None => write!(out, "{:<5}  {:<32}  ", "-", "-")?,
        }
        let (color, result) = result(record);
        if self.color {
            write!(out, "\x1b[{color}m{result:<10}\x1b[0m  ")?;
        } else {
            write!(out, "{result:<10}  ")?;
        }
        match record.latency_ns() {
            #[expect(clippy::cast_precision_loss, reason = "shown with three decimals")]
            Some(ns) => write!(out, "{:>7.3} ms", ns as f64 / 1e6)?,
            None => write!(out, "{:>10}", "-")?,
        }
        write_answers(record, out)?;
        write_notes(record, out)
    }
}

/// Formats an address as the policy shows it, with its port if there is one.
fn endpoint(address: &ShownAddress, port: Option<u16>) -> String {
    match (address, port) {
        (ShownAddress::Address(address), Some(port)) => SocketAddr::new(*address, port).to_string(),
        (ShownAddress::Nothing, Some(port)) => format!("-:{port}"),
        (ShownAddress::Nothing, None) => "-".into(),
        (address, Some(port)) => format!("{address}:{port}"),
        (address, None) => address.to_string(),
    }
}

/// Returns ANSI colour and text of the outcome.
fn result(record: &Record<'_>) -> (u8, String) {
    const RED: u8 = 31;
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    let transaction = record.transaction;
    match transaction.response() {
        None => (RED, transaction.outcome().symbol().into()),
        Some(response) => {
            let rcode = response.message.rcode;
            let color = match rcode {
                0 if transaction.outcome() == Outcome::Matched => GREEN,
                0 | 3 => YELLOW,
                _ => RED,
            };
            (color, rcode_name(rcode).into_owned())
        }
    }
}

fn write_answers(record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let Some(response) = record.transaction.response() else { return Ok(()) };
    let answers = response.message.answers();
    let omitted = response.message.answers_omitted as usize;
    let more = (answers.len() + omitted).saturating_sub(ANSWERS_SHOWN);
    for (position, answer) in answers.take(ANSWERS_SHOWN).enumerate() {
        let separator = if position == 0 { "  " } else { ", " };
        let rdata = record.policy.answer_rdata(answer.rdata);
        match rdata.char_indices().nth(ANSWER_WIDTH) {
            // The last character is replaced by the sign that the answer was cut.
            Some(_) => write!(out, "{separator}{:.*}…", ANSWER_WIDTH - 1, rdata)?,
            None => write!(out, "{separator}{rdata}")?,
        }
    }
    if more > 0 { write!(out, ", +{more}") } else { Ok(()) }
}

/// Writes what address translation changed.
fn write_translation(record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let Transaction { flow, sightings, .. } = record.transaction;
    let shown =
        |side, end: SocketAddr| endpoint(&record.policy.address(side, end.ip()), Some(end.port()));
    if let Some(backend) = sightings.backend(flow) {
        write!(out, "  [backend {}]", shown(Side::Server, backend))?;
    }
    if let Some(client) = sightings.translated_client(flow) {
        write!(out, "  [client translated to {}]", shown(Side::Client, client))?;
    }
    if sightings.nat == Nat::Undecided {
        write!(out, "  [address translation undecided]")?;
    }
    Ok(())
}

/// Writes unusual properties, each in brackets.
fn write_notes(record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let transaction = record.transaction;
    let first = &transaction.first().message;
    if first.opcode != 0 {
        write!(out, "  [{}]", opcode_name(first.opcode))?;
    }
    match first.more_questions().len() {
        0 => {}
        more => write!(out, "  [+{more} {}]", plural(more, "question"))?,
    }
    match first.updates().len() {
        0 => {}
        updates => write!(out, "  [{updates} {}]", plural(updates, "update"))?,
    }
    match transaction.flow.tunnel {
        Some(Tunnel { kind, id: Some(id) }) => {
            write!(out, "  [{} {id}]", kind.name().to_lowercase())?;
        }
        Some(Tunnel { kind, id: None }) => write!(out, "  [{}]", kind.name().to_lowercase())?,
        None => {}
    }
    match transaction.related.map(|related| related.relation) {
        Some(Relation::LateResponse) => write!(out, "  [late: recorded as unanswered before]")?,
        // Further messages of a zone transfer may omit the question (RFC 5936 §2.2.1).
        Some(Relation::RepeatedResponse)
            if transaction.flow.transport == Transport::Tcp
                && first.question().is_none_or(|question| question.is_transfer()) =>
        {
            write!(out, "  [more of a zone transfer]")?;
        }
        Some(Relation::RepeatedResponse) => write!(out, "  [repeated response]")?,
        Some(Relation::TcpAfterTruncation) => write!(out, "  [again, after a truncated response]")?,
        Some(Relation::RetriedOverTcp) => write!(out, "  [asked again over TCP]")?,
        Some(Relation::WrongId) => write!(out, "  [wrong identifier for a query]")?,
        Some(Relation::WrongServer) => write!(out, "  [not who a query went to]")?,
        Some(Relation::Translated) => write!(out, "  [seen on one side of address translation]")?,
        None if transaction.outcome() == Outcome::UnmatchedResponse => {
            write!(out, "  [query not seen]")?;
        }
        None => {}
    }
    if transaction.response().is_some_and(|response| response.message.flags.truncated) {
        write!(out, "  [truncated]")?;
    }
    if transaction.query_count > 1 {
        write!(out, "  [asked {} times]", transaction.query_count)?;
    }
    match transaction.copy_count {
        0 => {}
        1 => write!(out, "  [1 copy]")?,
        copies => write!(out, "  [{copies} copies]")?,
    }
    write_translation(record, out)?;
    if transaction.capture_gap {
        write!(out, "  [capture gap]")?;
    }
    for anomaly in transaction.anomalies.iter() {
        write!(out, "  [{}!]", anomaly.name())?;
    }
    match record.parse_status() {
        ParseStatus::Ok => Ok(()),
        status => write!(out, "  [{}]", status.name()),
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples;
    use tap53_dns::{TunnelKind, build::Build};
    use tap53_transactions::pair::{Exchange, Observation, RecordId, Related, Transaction};

    fn line_of(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        Text { color: false }.encode(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn line(name: &str) -> String {
        samples::with_record(name, line_of)
    }

    /// Returns the line of the sample called `name`, after `change`.
    fn changed(name: &str, change: impl FnOnce(&mut Transaction<'_>)) -> String {
        samples::with_record(name, |record| {
            let mut transaction = *record.transaction;
            change(&mut transaction);
            line_of(&Record { transaction: &transaction, ..*record })
        })
    }

    #[test]
    fn columns_are_aligned_with_their_headings() {
        let line = line("matched");
        for (heading, value) in [
            ("CLIENT", "192.0.2.1:40000"),
            ("SERVER", "192.0.2.53"),
            ("PROTO", "UDP"),
            ("TYPE", "A"),
            ("NAME", "www.example.test"),
            ("RESULT", "NOERROR"),
        ] {
            let column = HEADING.find(heading).unwrap();
            assert!(line[column..].starts_with(value), "{heading} in {line:?}");
        }
        assert!(line.ends_with("  0.250 ms  192.0.2.80\n"), "{line:?}");
    }

    #[test]
    fn unusual_properties_are_noted() {
        assert!(line("unanswered").contains("UNANSWERED"));
        assert!(line("unanswered").ends_with(
            "[asked 2 times]  [backend 203.0.113.53:5353]  [client translated to \
             198.51.100.1:61234]  [capture gap]  [FORGED_RESPONSE_SEEN!]  [TCP_CONFLICT!]\n"
        ));
        assert!(line("response").ends_with("[query not seen]\n"), "{:?}", line("response"));
    }

    #[test]
    fn a_relation_takes_precedence_over_an_unseen_query() {
        for (relation, note) in [
            (Relation::LateResponse, "[late: recorded as unanswered before]"),
            (Relation::RepeatedResponse, "[repeated response]"),
            (Relation::TcpAfterTruncation, "[again, after a truncated response]"),
            (Relation::RetriedOverTcp, "[asked again over TCP]"),
            (Relation::WrongId, "[wrong identifier for a query]"),
            (Relation::WrongServer, "[not who a query went to]"),
        ] {
            let line = changed("response", |transaction| {
                transaction.related = Some(Related { relation, record: RecordId([0; 16]) });
            });
            assert!(line.ends_with(&format!("  192.0.2.80  {note}\n")), "{line:?}");
        }
    }

    #[test]
    fn the_messages_of_a_zone_transfer_are_no_repetitions() {
        let record = Related { relation: Relation::RepeatedResponse, record: RecordId([0; 16]) };
        let note = |transport, question: Option<u16>| {
            let message = Build::message(1, true);
            let message = match question {
                Some(qtype) => message.question("test", qtype),
                None => message,
            };
            let response = Observation { message: message.parse(), ..Default::default() };
            let line = changed("response", |transaction| {
                transaction.flow.transport = transport;
                transaction.related = Some(record);
                let response: &'static Observation = Box::leak(Box::new(response));
                transaction.exchange = Exchange::Response(response);
            });
            line.rsplit_once("  ").map(|(_, note)| note.trim_end().to_owned()).unwrap()
        };
        for question in [Some(252), Some(251), None] {
            assert_eq!(note(Transport::Tcp, question), "[more of a zone transfer]");
            // Over UDP a transfer is one message (RFC 1995 §2).
            assert_eq!(note(Transport::Udp, question), "[repeated response]");
        }
        assert_eq!(note(Transport::Tcp, Some(1)), "[repeated response]");
    }

    #[test]
    fn transport_tunnel_and_copies_are_shown() {
        let line = changed("matched", |transaction| {
            transaction.flow.transport = Transport::Tcp;
            transaction.flow.tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(42) });
            transaction.copy_count = 2;
        });
        assert!(line.contains("  TCP    A  "), "{line:?}");
        assert!(line.ends_with("  [vxlan 42]  [2 copies]\n"), "{line:?}");
        let line = changed("matched", |transaction| {
            transaction.flow.tunnel = Some(Tunnel { kind: TunnelKind::Gre, id: None });
            transaction.copy_count = 1;
        });
        assert!(line.ends_with("  [gre]  [1 copy]\n"), "{line:?}");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let text = [vec![200], vec![b'x'; 200]].concat();
        let message = Build::message(1, true).question("a.test", 16).answer(16, 60, &text);
        let response = Observation { message: message.parse(), ..Default::default() };
        let line = samples::with_record("matched", |record| {
            let exchange = Exchange::Response(&response);
            let transaction = Transaction { exchange, ..*record.transaction };
            line_of(&Record { transaction: &transaction, ..*record })
        });
        let cut = format!("  \"{}…  [query not seen]\n", "x".repeat(ANSWER_WIDTH - 2));
        assert!(line.ends_with(&cut), "{line:?}");
    }

    #[test]
    fn other_opcodes_are_named() {
        let mut wire = Build::message(1, false).question("a.test", 6).wire();
        wire[2] |= 4 << 3;
        let message = tap53_dns::Message::parse(&wire).unwrap();
        let query = Observation { message, ..Default::default() };
        let line = samples::with_record("matched", |record| {
            let exchange = Exchange::Query(&query);
            let transaction = Transaction { exchange, ..*record.transaction };
            line_of(&Record { transaction: &transaction, ..*record })
        });
        assert!(line.ends_with("  [NOTIFY]\n"), "{line:?}");
    }
}
