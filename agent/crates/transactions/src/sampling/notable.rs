//! The transactions that are more than a plain answer.

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use tap53_dns::ParseStatus;

use crate::pair::{Outcome, Transaction};

/// A kind of transaction that is no plain answer: a matched QUERY with an untruncated, readable NOERROR
/// response and without signs of tampering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Notable {
    /// A response with another code than NOERROR and NXDOMAIN.
    Error,
    /// A response with NXDOMAIN.
    Nxdomain,
    /// A query without response, or a response without query.
    Unanswered,
    /// A truncated response.
    Truncated,
    /// A transaction with an [`Anomaly`](crate::pair::Anomaly), such as a conflicting response.
    Anomaly,
    /// A message that could not be read as a whole.
    Malformed,
    /// An opcode other than QUERY: an update, a notification.
    Operation,
    /// A transaction with a signal, such as a tunnel's. Who looks for signals adds it; see [`Notables::with`].
    Signal,
}

impl Notable {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Response code of a name that does not exist (RFC 1035 §4.1.1).
const NXDOMAIN: u16 = 3;

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notables(u8);

impl Notables {
    /// All kinds.
    pub const ALL: Self = Self(0xff);

    /// Returns the kinds of a transaction without [`Notable::Signal`], which cannot be seen from it alone.
    #[inline]
    #[must_use]
    pub fn of(transaction: &Transaction<'_>) -> Self {
        let mut kinds = 0;
        let mut add = |is: bool, kind: Notable| kinds |= if is { kind.bit() } else { 0 };
        add(transaction.outcome() != Outcome::Matched, Notable::Unanswered);
        add(!transaction.anomalies.is_empty(), Notable::Anomaly);
        add(transaction.first().message.opcode != 0, Notable::Operation);
        for seen in [transaction.query(), transaction.response()].into_iter().flatten() {
            add(seen.message.parse_status != ParseStatus::Ok, Notable::Malformed);
        }
        if let Some(response) = transaction.response() {
            add(response.message.flags.truncated, Notable::Truncated);
            match response.message.rcode {
                0 => {}
                NXDOMAIN => add(true, Notable::Nxdomain),
                _ => add(true, Notable::Error),
            }
        }
        Self(kinds)
    }

    /// Returns the set with a kind added if `is` holds.
    #[inline]
    #[must_use]
    pub const fn with(self, kind: Notable, is: bool) -> Self {
        Self(self.0 | if is { kind.bit() } else { 0 })
    }

    /// Returns true if both sets have a kind in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the kinds in order.
    pub fn iter(self) -> impl Iterator<Item = Notable> {
        Notable::value_variants().iter().copied().filter(move |kind| self.0 & kind.bit() != 0)
    }
}

impl FromIterator<Notable> for Notables {
    fn from_iter<I: IntoIterator<Item = Notable>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |all, kind| all | kind.bit()))
    }
}

impl Serialize for Notables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use tap53_dns::{Flow, Message, Transport, build::Build};

    use super::*;
    use crate::pair::{Anomalies, Anomaly, Exchange, Observation, RecordId, Sightings};

    fn seen(message: Message) -> Observation {
        Observation { message, ..Observation::default() }
    }

    fn kinds(exchange: Exchange<'_>, anomalies: Anomalies) -> Vec<Notable> {
        let flow = Flow {
            transport: Transport::Udp,
            client: ([192, 0, 2, 1], 40_000).into(),
            server: ([192, 0, 2, 53], 53).into(),
            tunnel: None,
            ifindex: 7,
        };
        let transaction = Transaction {
            id: RecordId([0; 16]),
            flow,
            exchange,
            query_count: 1,
            latest_query_ns: 0,
            copy_count: 0,
            capture_gap: false,
            related: None,
            anomalies,
            sightings: Sightings::single(&flow),
            chain: None,
        };
        Notables::of(&transaction).iter().collect()
    }

    fn message(response: bool) -> Message {
        Build::message(7, response).question("a.test", 1).parse()
    }

    #[test]
    fn a_plain_answer_is_of_no_kind_and_each_other_transaction_of_its_own() {
        let query = seen(message(false));
        let of = |change: &dyn Fn(&mut Message)| {
            let mut response = seen(message(true));
            change(&mut response.message);
            kinds(Exchange::Matched(&query, &response), Anomalies::NONE)
        };
        assert_eq!(of(&|_| {}), []);
        assert_eq!(of(&|it| it.rcode = 3), [Notable::Nxdomain]);
        for rcode in [1, 2, 5, 16, 23] {
            assert_eq!(of(&|it| it.rcode = rcode), [Notable::Error], "{rcode}");
        }
        assert_eq!(of(&|it| it.flags.truncated = true), [Notable::Truncated]);
        let broken = |it: &mut Message| it.parse_status = ParseStatus::MalformedAnswer;
        assert_eq!(of(&broken), [Notable::Malformed]);
        let response = seen(message(true));
        let conflict = [Anomaly::ConflictingResponse].into_iter().collect();
        assert_eq!(kinds(Exchange::Matched(&query, &response), conflict), [Notable::Anomaly]);
        for alone in [Exchange::Query(&query), Exchange::Response(&response)] {
            assert_eq!(kinds(alone, Anomalies::NONE), [Notable::Unanswered]);
        }
        let mut update = message(false);
        update.opcode = 5;
        let found = kinds(Exchange::Matched(&seen(update), &response), Anomalies::NONE);
        assert_eq!(found, [Notable::Operation]);
    }

    #[test]
    fn the_set_of_all_kinds_has_each_kind() {
        assert_eq!(Notables::ALL, Notable::value_variants().iter().copied().collect());
        let both: Notables = [Notable::Operation, Notable::Error].into_iter().collect();
        assert_eq!(both.iter().collect::<Vec<_>>(), [Notable::Error, Notable::Operation]);
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"["error","operation"]"#);
        assert!(!both.overlaps([Notable::Nxdomain].into_iter().collect()));
    }
}
