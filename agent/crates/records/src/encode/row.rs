//! The part of a record that people read, and that a follower selects by.
//!
//! It is read from a record, from the record's JSON, or from its own: fields have the names and values of
//! the record there, or short names, since a follower's queue has little room. So there is one way to
//! show a record and one way to select it, whether it is at hand, or was read back.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::SocketAddr};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};
use tap53_dns::{ParseStatus, opcode_name, rcode_name, type_name};
use tap53_transactions::{
    pair::{Anomaly, Nat, Observation},
    privacy::Side,
};

use super::{Identity, Record, address::AddressText};

/// A text of a record, or one that was read back.
type Text<'a> = Cow<'a, str>;

/// The fields of a record that are shown to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row<'a> {
    /// Name of the node.
    #[serde(rename = "n", alias = "node")]
    pub node: Text<'a>,
    /// Interface that saw the first message.
    #[serde(rename = "i", alias = "interface")]
    pub interface: Text<'a>,
    /// Interface that saw the response.
    #[serde(rename = "ri", alias = "response_interface", skip_serializing_if = "Option::is_none")]
    pub response_interface: Option<Text<'a>>,
    /// Symbol of the outcome.
    #[serde(rename = "o", alias = "outcome")]
    pub outcome: Text<'a>,
    /// Symbol of the relation to another record.
    #[serde(rename = "re", alias = "relation", skip_serializing_if = "Option::is_none")]
    pub relation: Option<Text<'a>>,
    /// Set if packets were lost around the transaction.
    #[serde(rename = "cg", alias = "capture_gap", skip_serializing_if = "is_default")]
    pub capture_gap: bool,
    /// Names of the anomalies.
    #[serde(rename = "an", alias = "anomalies", skip_serializing_if = "Vec::is_empty")]
    pub anomalies: Vec<Text<'a>>,
    /// Names of the signals.
    #[serde(
        rename = "sg",
        alias = "signals",
        deserialize_with = "or_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub signals: Vec<Text<'a>>,
    /// Time of the first query.
    #[serde(rename = "t", alias = "query_time", skip_serializing_if = "Option::is_none")]
    pub query_time: Option<Moment>,
    /// Time of the response.
    #[serde(rename = "rt", alias = "response_time", skip_serializing_if = "Option::is_none")]
    pub response_time: Option<Moment>,
    /// Nanoseconds from the first query to the response.
    #[serde(rename = "l", alias = "latency_ns", skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<i64>,
    /// Number of queries.
    #[serde(rename = "qc", alias = "query_count")]
    pub query_count: u32,
    /// Number of copies at other interfaces.
    #[serde(rename = "cc", alias = "copy_count", skip_serializing_if = "is_default")]
    pub copy_count: u32,
    /// `UDP` or `TCP`.
    #[serde(rename = "tr", alias = "transport", skip_serializing_if = "is_usual_transport")]
    pub transport: Text<'a>,
    /// Name of the tunnel's type.
    #[serde(rename = "tt", alias = "tunnel_type", skip_serializing_if = "Option::is_none")]
    pub tunnel_type: Option<Text<'a>>,
    /// Identifier of the tunnel.
    #[serde(rename = "ti", alias = "tunnel_id", skip_serializing_if = "Option::is_none")]
    pub tunnel_id: Option<i64>,
    /// The client's address as the privacy rules show it; empty if they hide it.
    #[serde(rename = "c", alias = "client_address")]
    pub client_address: Text<'a>,
    /// The client's port.
    #[serde(rename = "cp", alias = "client_port")]
    pub client_port: u16,
    /// Name of the client's pod.
    #[serde(rename = "cpo", alias = "client_pod_name", skip_serializing_if = "Option::is_none")]
    pub client_pod_name: Option<Text<'a>>,
    /// Namespace of the client's pod.
    #[serde(
        rename = "cns",
        alias = "client_pod_namespace",
        skip_serializing_if = "Option::is_none"
    )]
    pub client_pod_namespace: Option<Text<'a>>,
    /// Name of the client's workload.
    #[serde(
        rename = "cw",
        alias = "client_workload_name",
        skip_serializing_if = "Option::is_none"
    )]
    pub client_workload_name: Option<Text<'a>>,
    /// The configured labels of the client's pod.
    #[serde(rename = "cl", alias = "client_labels", skip_serializing_if = "Option::is_none")]
    pub client_labels: Option<Cow<'a, BTreeMap<String, String>>>,
    /// Name of the service with the client's address.
    #[serde(rename = "cs", alias = "client_service_name", skip_serializing_if = "Option::is_none")]
    pub client_service_name: Option<Text<'a>>,
    /// Namespace of that service.
    #[serde(
        rename = "csn",
        alias = "client_service_namespace",
        skip_serializing_if = "Option::is_none"
    )]
    pub client_service_namespace: Option<Text<'a>>,
    /// The server's address as the privacy rules show it; empty if they hide it.
    #[serde(rename = "s", alias = "server_address")]
    pub server_address: Text<'a>,
    /// The server's port.
    #[serde(rename = "sp", alias = "server_port")]
    pub server_port: u16,
    /// Name of the server's pod.
    #[serde(rename = "spo", alias = "server_pod_name", skip_serializing_if = "Option::is_none")]
    pub server_pod_name: Option<Text<'a>>,
    /// Namespace of the server's pod.
    #[serde(
        rename = "sns",
        alias = "server_pod_namespace",
        skip_serializing_if = "Option::is_none"
    )]
    pub server_pod_namespace: Option<Text<'a>>,
    /// Name of the server's workload.
    #[serde(
        rename = "sw",
        alias = "server_workload_name",
        skip_serializing_if = "Option::is_none"
    )]
    pub server_workload_name: Option<Text<'a>>,
    /// Name of the service with the server's address.
    #[serde(rename = "ss", alias = "server_service_name", skip_serializing_if = "Option::is_none")]
    pub server_service_name: Option<Text<'a>>,
    /// Namespace of that service.
    #[serde(
        rename = "ssn",
        alias = "server_service_namespace",
        skip_serializing_if = "Option::is_none"
    )]
    pub server_service_namespace: Option<Text<'a>>,
    /// Address of the server after address translation.
    #[serde(rename = "b", alias = "backend_address", skip_serializing_if = "Option::is_none")]
    pub backend_address: Option<Text<'a>>,
    /// Port of the server after address translation.
    #[serde(rename = "bp", alias = "backend_port", skip_serializing_if = "Option::is_none")]
    pub backend_port: Option<u16>,
    /// Address of the client after address translation.
    #[serde(
        rename = "x",
        alias = "translated_client_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub translated_client_address: Option<Text<'a>>,
    /// Port of the client after address translation.
    #[serde(
        rename = "xp",
        alias = "translated_client_port",
        skip_serializing_if = "Option::is_none"
    )]
    pub translated_client_port: Option<u16>,
    /// Symbol of what is known about address translation.
    #[serde(rename = "na", alias = "nat", skip_serializing_if = "is_usual_nat")]
    pub nat: Text<'a>,
    /// Mnemonic of the opcode.
    #[serde(rename = "op", alias = "opcode", skip_serializing_if = "is_usual_opcode")]
    pub opcode: Text<'a>,
    /// Set if the response is truncated.
    #[serde(rename = "tc", alias = "truncated", skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
    /// The name of the question.
    #[serde(rename = "q", alias = "qname", skip_serializing_if = "Option::is_none")]
    pub qname: Option<Text<'a>>,
    /// The type of the question.
    #[serde(rename = "qt", alias = "qtype", skip_serializing_if = "Option::is_none")]
    pub qtype: Option<Text<'a>>,
    /// Further questions.
    #[serde(rename = "mq", alias = "more_questions", skip_serializing_if = "Vec::is_empty")]
    pub more_questions: Vec<RowQuestion<'a>>,
    /// Mnemonic of the response code.
    #[serde(rename = "rc", alias = "rcode", skip_serializing_if = "Option::is_none")]
    pub rcode: Option<Text<'a>>,
    /// The answers.
    #[serde(rename = "a", alias = "answers", skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<RowAnswer<'a>>,
    /// Number of further answers, which the record does not contain.
    #[serde(rename = "ao", alias = "answers_omitted", skip_serializing_if = "is_default")]
    pub answers_omitted: u32,
    /// Number of updates of an UPDATE request.
    #[serde(rename = "u", alias = "updates", skip_serializing_if = "is_default")]
    pub updates: Length,
    /// The worse of both messages' parse statuses.
    #[serde(rename = "ps", alias = "parse_status", skip_serializing_if = "is_usual_parse_status")]
    pub parse_status: Text<'a>,
}

/// A further question of a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowQuestion<'a> {
    /// The name.
    pub name: Text<'a>,
    /// Mnemonic of the type.
    #[serde(rename = "type")]
    pub qtype: Text<'a>,
}

/// An answer of a response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowAnswer<'a> {
    /// Mnemonic of the type.
    #[serde(rename = "type")]
    pub rtype: Text<'a>,
    /// The data in presentation format.
    pub rdata: Text<'a>,
}

/// One end of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct RowEnd<'a> {
    /// The address as the privacy rules show it; empty if they hide it.
    pub address: &'a str,
    /// The port.
    pub port: u16,
    /// Namespace and name of the pod.
    pub pod: [Option<&'a str>; 2],
    /// Name of the workload, which is in the namespace of the pod.
    pub workload: Option<&'a str>,
    /// Namespace and name of the service.
    pub service: [Option<&'a str>; 2],
}

/// A time in microseconds since 1970 UTC; read also from a text as in RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moment(pub i64);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Microseconds(i64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Microseconds(us) => Ok(Self(us)),
            Form::Text(text) => {
                let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
                Ok(Self(time.as_microsecond()))
            }
        }
    }
}

/// The number of items of a list, which is read from the list or from the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Length(pub u64);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or the number of its items")
            }

            fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
                Ok(number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(count)
            }
        }
        deserializer.deserialize_any(Items).map(Self)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_usual_transport(text: &str) -> bool {
    text == USUAL.transport
}

fn is_usual_nat(text: &str) -> bool {
    text == USUAL.nat
}

fn is_usual_opcode(text: &str) -> bool {
    text == USUAL.opcode
}

fn is_usual_parse_status(text: &str) -> bool {
    text == USUAL.parse_status
}

/// Values that a row's own JSON leaves out.
struct Usual {
    transport: &'static str,
    nat: &'static str,
    opcode: &'static str,
    parse_status: &'static str,
}

const USUAL: Usual = Usual {
    transport: "UDP",
    nat: Nat::None.symbol(),
    opcode: "QUERY",
    parse_status: ParseStatus::Ok.name(),
};

impl Default for Row<'_> {
    /// Returns the row of a query over UDP about which nothing else is known.
    fn default() -> Self {
        Self {
            transport: USUAL.transport.into(),
            nat: USUAL.nat.into(),
            opcode: USUAL.opcode.into(),
            parse_status: USUAL.parse_status.into(),
            node: Default::default(),
            interface: Default::default(),
            response_interface: Default::default(),
            outcome: Default::default(),
            relation: Default::default(),
            capture_gap: Default::default(),
            anomalies: Default::default(),
            signals: Default::default(),
            query_time: Default::default(),
            response_time: Default::default(),
            latency_ns: Default::default(),
            query_count: Default::default(),
            copy_count: Default::default(),
            tunnel_type: Default::default(),
            tunnel_id: Default::default(),
            client_address: Default::default(),
            client_port: Default::default(),
            client_pod_name: Default::default(),
            client_pod_namespace: Default::default(),
            client_workload_name: Default::default(),
            client_labels: Default::default(),
            client_service_name: Default::default(),
            client_service_namespace: Default::default(),
            server_address: Default::default(),
            server_port: Default::default(),
            server_pod_name: Default::default(),
            server_pod_namespace: Default::default(),
            server_workload_name: Default::default(),
            server_service_name: Default::default(),
            server_service_namespace: Default::default(),
            backend_address: Default::default(),
            backend_port: Default::default(),
            translated_client_address: Default::default(),
            translated_client_port: Default::default(),
            truncated: Default::default(),
            qname: Default::default(),
            qtype: Default::default(),
            more_questions: Default::default(),
            rcode: Default::default(),
            answers: Default::default(),
            answers_omitted: Default::default(),
            updates: Default::default(),
        }
    }
}

impl<'a> Row<'a> {
    /// Returns the row of a record, as its privacy rules show it.
    #[must_use]
    pub fn of(record: &'a Record<'_>) -> Self {
        let (transaction, policy) = (record.transaction, record.policy);
        let (flow, first) = (&transaction.flow, transaction.first());
        let (query, response) = (transaction.query(), transaction.response());
        let question = first.message.question();
        let question_of = |question: tap53_dns::Question<'a>| RowQuestion {
            name: policy.name(question.name),
            qtype: type_name(question.qtype),
        };
        let answer_of = |answer: tap53_dns::Answer<'a>| RowAnswer {
            rtype: type_name(answer.rtype),
            rdata: policy.answer_rdata(answer.rdata),
        };
        let portion = record.portion;
        let omitted = |seen: Option<&Observation>| seen.map_or(0, |it| it.message.answers_omitted);
        let moment = |at_ns| Moment(record.clock.utc_us(at_ns));
        let shown = |side, end: SocketAddr| {
            let text = AddressText::shown(&policy.address(side, end.ip()));
            Cow::Owned(text.as_str().to_owned())
        };
        let sightings = &transaction.sightings;
        let backend = sightings.backend(flow);
        let translated = sightings.translated_client(flow);
        let mut row =
            Self {
                node: record.observer.node().into(),
                interface: record.observer.interface().into(),
                response_interface: response.map(|_| record.response_observer.interface().into()),
                outcome: transaction.outcome().symbol().into(),
                relation: transaction.related.map(|related| related.relation.symbol().into()),
                capture_gap: transaction.capture_gap,
                anomalies: transaction.anomalies.iter().map(Anomaly::name).map(Cow::from).collect(),
                signals: record.signals.iter().flat_map(|it| it.names()).map(Cow::from).collect(),
                query_time: query.map(|seen| moment(seen.at_ns)),
                response_time: response.map(|seen| moment(seen.at_ns)),
                latency_ns: record.latency_ns(),
                query_count: transaction.query_count,
                copy_count: transaction.copy_count,
                transport: match flow.transport {
                    tap53_dns::Transport::Udp => "UDP".into(),
                    tap53_dns::Transport::Tcp => "TCP".into(),
                },
                tunnel_type: flow.tunnel.map(|tunnel| tunnel.kind.name().into()),
                tunnel_id: flow.tunnel.and_then(|tunnel| tunnel.id).map(i64::from),
                client_address: shown(Side::Client, flow.client),
                client_port: flow.client.port(),
                server_address: shown(Side::Server, flow.server),
                server_port: flow.server.port(),
                backend_address: backend.map(|end| shown(Side::Server, end)),
                backend_port: backend.map(|end| end.port()),
                translated_client_address: translated.map(|end| shown(Side::Client, end)),
                translated_client_port: translated.map(|end| end.port()),
                nat: sightings.nat.symbol().into(),
                opcode: opcode_name(first.message.opcode),
                truncated: response.map(|seen| seen.message.flags.truncated),
                qname: question.map(|question| policy.name(question.name)),
                qtype: question.map(|question| type_name(question.qtype)),
                more_questions: first
                    .message
                    .more_questions()
                    .take(record.first_portion().questions)
                    .map(question_of)
                    .collect(),
                rcode: response.map(|seen| rcode_name(seen.message.rcode)),
                answers: response.map_or_else(Vec::new, |seen| {
                    let answers = seen.message.answers().take(portion.response.answers);
                    answers.map(answer_of).collect()
                }),
                answers_omitted: omitted(query)
                    .saturating_add(omitted(response))
                    .saturating_add(portion.omitted.answers),
                updates: Length(query.map_or(0, |seen| {
                    seen.message.updates().len().min(portion.query.updates) as u64
                })),
                parse_status: record.parse_status().name().into(),
                ..Self::default()
            };
        row.set_client(record.client.identity());
        row.set_server(record.server.identity());
        row
    }

    fn set_client(&mut self, known: &'a Identity) {
        self.client_pod_name = text(known.pod_name.as_ref());
        self.client_pod_namespace = text(known.pod_namespace.as_ref());
        self.client_workload_name = text(known.workload_name.as_ref());
        self.client_labels = known.labels.as_ref().map(Cow::Borrowed);
        self.client_service_name = text(known.service_name.as_ref());
        self.client_service_namespace = text(known.service_namespace.as_ref());
    }

    fn set_server(&mut self, known: &'a Identity) {
        self.server_pod_name = text(known.pod_name.as_ref());
        self.server_pod_namespace = text(known.pod_namespace.as_ref());
        self.server_workload_name = text(known.workload_name.as_ref());
        self.server_service_name = text(known.service_name.as_ref());
        self.server_service_namespace = text(known.service_namespace.as_ref());
    }

    /// Reads a row back from a record in JSON, or from a row in JSON.
    ///
    /// # Errors
    /// When `json` is neither.
    pub fn from_json(json: &[u8]) -> Result<Row<'static>, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Returns the start of the transaction in microseconds since 1970 UTC.
    #[must_use]
    pub fn began_us(&self) -> i64 {
        self.query_time.or(self.response_time).unwrap_or_default().0
    }

    /// Returns true if the transaction has a response.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.rcode.is_some()
    }

    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> RowEnd<'_> {
        RowEnd {
            address: &self.client_address,
            port: self.client_port,
            pod: [self.client_pod_namespace.as_deref(), self.client_pod_name.as_deref()],
            workload: self.client_workload_name.as_deref(),
            service: [
                self.client_service_namespace.as_deref(),
                self.client_service_name.as_deref(),
            ],
        }
    }

    /// Returns the server.
    #[must_use]
    pub fn server(&self) -> RowEnd<'_> {
        RowEnd {
            address: &self.server_address,
            port: self.server_port,
            pod: [self.server_pod_namespace.as_deref(), self.server_pod_name.as_deref()],
            workload: self.server_workload_name.as_deref(),
            service: [
                self.server_service_namespace.as_deref(),
                self.server_service_name.as_deref(),
            ],
        }
    }

    /// Returns true if nothing is decided about address translation.
    #[must_use]
    pub fn is_translation_undecided(&self) -> bool {
        self.nat == Nat::Undecided.symbol()
    }
}

/// Reads a list that may be null.
fn or_empty<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Text<'static>>, D::Error> {
    let texts: Option<Vec<String>> = Deserialize::deserialize(value)?;
    Ok(texts.unwrap_or_default().into_iter().map(Cow::Owned).collect())
}

fn text(name: Option<&String>) -> Option<Cow<'_, str>> {
    name.map(|name| Cow::Borrowed(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Encode, JsonLine, samples};

    #[test]
    fn a_row_equals_the_one_that_is_read_back_from_the_record_in_json() {
        for name in samples::NAMES {
            samples::with_record(name, |record| {
                let row = Row::of(record);
                let mut json = Vec::new();
                JsonLine.encode(record, &mut json).unwrap();
                assert_eq!(Row::from_json(&json).unwrap(), row, "{name}");
                let own = serde_json::to_vec(&row).unwrap();
                assert_eq!(Row::from_json(&own).unwrap(), row, "{name}");
                // A queue has room for some thousands.
                assert!(own.len() < 420, "{} bytes", own.len());
            });
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(Row::from_json(b"{\"query_time\":\"yesterday\"}").is_err());
        assert!(Row::from_json(b"[").is_err());
    }
}
