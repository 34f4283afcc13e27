//! One line for each transaction, for people.

use std::io::Write;

use super::{Encode, Error, Record};
use crate::{
    decode::{ParseStatus, Transport, rcode_name, type_name},
    pair::Outcome,
};

/// The line above the first transaction. Columns are wide enough for IPv4 and common names; what
/// is longer pushes the rest of its line to the right rather than losing its end.
pub const HEADING: &str = "TIME (UTC)       CLIENT                 SERVER           PROTO  TYPE   \
                           NAME                              RESULT         LATENCY  ANSWERS\n";

/// Answers shown on a line.
const ANSWERS_SHOWN: usize = 3;

/// Aligned columns; all text of the wire is escaped before it comes here, so a name cannot move
/// the cursor.
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
    fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
        let transaction = record.transaction;
        let flow = &transaction.flow;
        let first = transaction.first();
        let of_day_us = record.clock.utc_us(first.at_ns).rem_euclid(86_400_000_000);
        let (seconds, us) = (of_day_us / 1_000_000, of_day_us % 1_000_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(out, "{hours:02}:{minutes:02}:{seconds:02}.{us:06}  ")?;
        write!(out, "{:<21}  ", flow.client.to_string())?;
        let server = if flow.server.port() == 53 {
            flow.server.ip().to_string()
        } else {
            flow.server.to_string()
        };
        let transport = match flow.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        write!(out, "{server:<15}  {transport:<5}  ")?;
        match first.message.question() {
            Some(question) => {
                write!(out, "{:<5}  {:<32}  ", type_name(question.qtype), question.name)?;
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

/// ANSI colour and text of the outcome.
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

fn write_answers(record: &Record<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(response) = record.transaction.response() else { return Ok(()) };
    let answers = response.message.answers();
    let more = answers.len().saturating_sub(ANSWERS_SHOWN);
    for (position, answer) in answers.take(ANSWERS_SHOWN).enumerate() {
        let separator = if position == 0 { "  " } else { ", " };
        write!(out, "{separator}{}", answer.rdata)?;
    }
    if more > 0 { write!(out, ", +{more}") } else { Ok(()) }
}

/// What is out of the ordinary.
fn write_notes(record: &Record<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    let transaction = record.transaction;
    if transaction.outcome() == Outcome::UnmatchedResponse {
        write!(out, "  [query not seen]")?;
    }
    if transaction.query_count > 1 {
        write!(out, "  [asked {} times]", transaction.query_count)?;
    }
    if transaction.capture_gap {
        write!(out, "  [capture gap]")?;
    }
    match record.parse_status() {
        ParseStatus::Ok => Ok(()),
        status => write!(out, "  [{}]", status.symbol()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples;

    fn line(name: &str) -> String {
        let mut out = Vec::new();
        samples::with_record(name, |record| {
            Text { color: false }.encode(record, &mut out).unwrap()
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let line = line("matched");
        for (heading, value) in [
            ("CLIENT", "192.0.2.1:40000"),
            ("SERVER", "192.0.2.53"),
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
    fn what_is_out_of_the_ordinary_is_said() {
        assert!(line("unanswered").contains("UNANSWERED"));
        assert!(line("unanswered").ends_with("[asked 2 times]  [capture gap]\n"));
        assert!(line("response").ends_with("[query not seen]\n"), "{:?}", line("response"));
    }
}
