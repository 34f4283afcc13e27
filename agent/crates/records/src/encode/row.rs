//! The part of a record that people read, and that a follower selects by.
//!
//! It is read from a record, from the record's JSON, or from its own: fields have the names and values of
//! the record there, or short names, since a follower's queue has little room. So there is one way to
//! show a record and one way to select it, whether it is at hand, or was read back.

mod json;
mod of_record;

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use tap53_transactions::pair::Nat;

pub use json::{Length, Moment};
use json::{
    USUAL, is_default, is_usual_nat, is_usual_opcode, is_usual_parse_status, is_usual_transport,
    or_empty,
};

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

#[cfg(test)]
mod tests;
