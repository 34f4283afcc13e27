//! The transactions that are more than a plain answer.

use clap::ValueEnum;
use tap53_dns::ParseStatus;
use tap53_reasons::{Set, labels};

use crate::pair::{Outcome, Transaction};

labels! {
    /// A kind of transaction that is no plain answer: a matched QUERY with an untruncated, readable
    /// NOERROR response and without signs of tampering.
    #[derive(ValueEnum)]
    #[value(rename_all = "snake_case")]
    pub enum Notable {
        /// A response with another code than NOERROR and NXDOMAIN.
        Error = "error";
        /// A response with NXDOMAIN.
        Nxdomain = "nxdomain";
        /// A query without response, or a response without query.
        Unanswered = "unanswered";
        /// A truncated response.
        Truncated = "truncated";
        /// A transaction with an [`Anomaly`](crate::pair::Anomaly), such as a conflicting response.
        Anomaly = "anomaly";
        /// A message that could not be read as a whole.
        Malformed = "malformed";
        /// An opcode other than QUERY: an update, a notification.
        Operation = "operation";
        /// A transaction with a signal, such as a tunnel's. The code that looks for signals adds it.
        Signal = "signal";
    }
}

/// Kinds of transactions.
pub type Notables = Set<Notable>;

/// Response code of a name that does not exist (RFC 1035 §4.1.1).
const NXDOMAIN: u16 = 3;

impl Notable {
    /// Returns the kinds of a transaction without [`Notable::Signal`], which cannot be seen from it alone.
    #[inline]
    #[must_use]
    pub fn kinds_of(transaction: &Transaction<'_>) -> Notables {
        let messages = [transaction.query(), transaction.response()].into_iter().flatten();
        let is_malformed =
            messages.fold(false, |is, seen| is | (seen.message.parse_status != ParseStatus::Ok));
        let kinds = Notables::NONE
            .with(Self::Unanswered, transaction.outcome() != Outcome::Matched)
            .with(Self::Anomaly, !transaction.anomalies.is_empty())
            .with(Self::Operation, transaction.first().message.opcode != 0)
            .with(Self::Malformed, is_malformed);
        let Some(response) = transaction.response() else { return kinds };
        let rcode = response.message.rcode;
        kinds
            .with(Self::Truncated, response.message.flags.truncated)
            .with(Self::Nxdomain, rcode == NXDOMAIN)
            .with(Self::Error, rcode != 0 && rcode != NXDOMAIN)
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
        Notable::kinds_of(&transaction).iter().collect()
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

    /// The configuration and the ledger have one name for each kind.
    #[test]
    fn the_configuration_has_each_kind_by_its_name() {
        let values = Notable::value_variants().iter().map(|kind| kind.to_possible_value());
        let named = values.map(|value| value.expect("none is hidden").get_name().to_owned());
        assert!(named.eq(Notable::ALL.map(Notable::name)));
    }
}
