//! The path that tap53 replaces: hickory-proto reads whole messages into trees of its own, their
//! names and RDATA become text, a hash map pairs them, and serde_json writes the record.

use std::{collections::HashMap, net::SocketAddr};

use hickory_proto::{op::Message, serialize::binary::BinDecodable};

/// The fields of a message that a record has.
pub(crate) struct Decoded {
    /// Transaction identifier.
    pub(crate) id: u16,
    /// Name and type of the question.
    pub(crate) question: Option<(String, u16)>,
    /// Owner, type, TTL and RDATA of each answer.
    pub(crate) answers: Vec<(String, u16, u32, String)>,
}

/// Reads a message.
pub(crate) fn decode(wire: &[u8]) -> Decoded {
    let message = Message::from_bytes(wire).expect("a whole message");
    let question = message.queries.first();
    Decoded {
        id: message.metadata.id,
        question: question.map(|query| (query.name().to_string(), query.query_type().into())),
        answers: message
            .answers
            .iter()
            .map(|record| {
                let rtype = record.record_type().into();
                (record.name.to_string(), rtype, record.ttl, record.data.to_string())
            })
            .collect(),
    }
}

/// Queries that wait for their responses.
pub(crate) type Pending = HashMap<(SocketAddr, SocketAddr, u16), Decoded>;
