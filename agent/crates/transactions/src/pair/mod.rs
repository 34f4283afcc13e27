//! Pairs queries and responses to transactions.
//!
//! Contract: memory is bounded by the capacity; every query leaves the table exactly once, as a
//! matched or unanswered transaction, even if the table is full; in the steady state nothing is
//! allocated; the table never reads a clock. Time is the capture time of the messages, as an
//! argument, so that an agent that was stopped and continued does not report queries as unanswered
//! whose responses wait in the ring.
//!
//! - A response belongs to a query if transport, both endpoints, tunnel and identifier are equal,
//!   and the question too, unless the response has none (RFC 2136 §3.8 and header-only error
//!   responses).
//! - A repetition of a pending query is part of the same transaction, and is counted.
//! - The same message at another interface, or in the other direction of one, is a *copy*: a packet
//!   that passes veth, bridge and NIC. It is counted and makes no record; the record has the first
//!   interface that saw it. So is a packet that a mirror port shows twice: equal bytes and IPv4
//!   identification at the same point within a millisecond. [`recent`] describes how copies are
//!   found after their transaction was recorded. If interfaces are not merged, the interface is
//!   part of the identity instead, and each has its own record.
//! - A response to a recorded query names that record: it is late, or a repetition.
//! - A response to a query to a multicast group (LLMNR, mDNS) comes from a single host:
//!   [`multicast`] describes how the two are matched. The host that responds is the server of the
//!   transaction; further responses count as repeated.
//! - The same query before and after address translation, or in a tunnel, is one transaction, if
//!   the evidence leaves no other explanation: `table/sightings.rs`.
//! - A truncated response over UDP and the same question over TCP refer to each other.

mod anomaly;
mod chain;
mod config;
mod id;
mod multicast;
mod recent;
mod shared;
mod table;
mod translation;
mod truncation;

use tap53_dns::{Flow, Message};
use tap53_ebpf::{record::Sender, settings::Direction};

pub use anomaly::{Anomalies, Anomaly};
pub use chain::{AnswerSource, AnsweredFrom, Chain, SearchStep, Served};
pub use config::Config;
pub use id::{RecordId, RecordIds};
pub use shared::SharedNotes;
pub use table::{Observed, Table};
pub use translation::{Nat, Sightings};

/// An observation point: the interface and direction of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Interface.
    pub ifindex: u32,
    /// Direction at the interface.
    pub direction: Direction,
}

/// A message with the place and time of its capture. Its buffers are reused.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// The hook that captured it.
    pub point: Point,
    /// The frame that completed it in a replayed file, see [`tap53_dns::frames`]; 0 elsewhere.
    pub frame: u64,
    /// Outer and inner VLAN identifier.
    pub vlan_ids: [Option<u16>; 2],
    /// False if the hook could not see whether the packet was tagged on the wire.
    pub vlan_visible: bool,
    /// True if the snap length cut the message: its end is unknown.
    pub cut: bool,
    /// Identification of the IPv4 packet of a message over UDP; 0 elsewhere.
    pub identification: u16,
    /// Time to live or hop limit of its packet where it was seen first; of several packets, the one
    /// that completed it.
    pub hop_limit: u8,
    /// The socket that sent it, where one of its sightings saw it.
    pub sender: Sender,
    /// The message.
    pub message: Message,
    /// The message's bytes, if records contain them; otherwise empty.
    pub wire: Vec<u8>,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            at_ns: 0,
            point: Point { ifindex: 0, direction: Direction::Ingress },
            frame: 0,
            vlan_ids: [None; 2],
            vlan_visible: false,
            cut: false,
            identification: 0,
            hop_limit: 0,
            sender: Sender::UNKNOWN,
            message: Message::default(),
            wire: Vec::new(),
        }
    }
}

impl Observation {
    /// Returns the memory of its buffers in bytes.
    fn buffer_bytes(&self) -> usize {
        self.message.buffer_bytes() + self.wire.capacity()
    }
}

/// The outcome of a query, or of a response without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A query and its response.
    Matched,
    /// A query that timed out.
    Unanswered,
    /// A response without a pending query.
    UnmatchedResponse,
}

impl Outcome {
    /// Returns the symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Matched => "MATCHED",
            Self::Unanswered => "UNANSWERED",
            Self::UnmatchedResponse => "UNMATCHED_RESPONSE",
        }
    }
}

/// The relation between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A late response to a query that the other records as unanswered.
    LateResponse,
    /// Another response to a query whose response the other records: a repetition, a response of
    /// another host, or a further message of a zone transfer.
    RepeatedResponse,
    /// A query over TCP for which the other's response over UDP was truncated.
    TcpAfterTruncation,
    /// A truncated response over UDP; the other is the retry over TCP and was recorded first.
    RetriedOverTcp,
    /// A response to the other's query with another identifier. Its value follows that of the
    /// schema's symbol OTHER.
    WrongId = 5,
    /// A response to the other's query from another address.
    WrongServer,
    /// The query of the other before or after address translation, whose response was not seen on
    /// both sides.
    Translated,
}

impl Relation {
    /// Returns the symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::LateResponse => "LATE_RESPONSE",
            Self::RepeatedResponse => "REPEATED_RESPONSE",
            Self::TcpAfterTruncation => "TCP_AFTER_TRUNCATION",
            Self::RetriedOverTcp => "RETRIED_OVER_TCP",
            Self::WrongId => "WRONG_ID",
            Self::WrongServer => "WRONG_SERVER",
            Self::Translated => "TRANSLATED",
        }
    }
}

/// A reference to a related record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Related {
    /// The relation.
    pub relation: Relation,
    /// The identifier of the other record.
    pub record: RecordId,
}

/// The messages of a transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exchange<'a> {
    /// A query and its response. The query is the first of several equal ones.
    Matched(&'a Observation, &'a Observation),
    /// A query without a response.
    Query(&'a Observation),
    /// A response without a query.
    Response(&'a Observation),
}

impl<'a> Exchange<'a> {
    /// Returns the query, if it was seen.
    #[inline]
    #[must_use]
    pub const fn query(self) -> Option<&'a Observation> {
        match self {
            Self::Matched(query, _) | Self::Query(query) => Some(query),
            Self::Response(_) => None,
        }
    }

    /// Returns the response, if it was seen.
    #[inline]
    #[must_use]
    pub const fn response(self) -> Option<&'a Observation> {
        match self {
            Self::Matched(_, response) | Self::Response(response) => Some(response),
            Self::Query(_) => None,
        }
    }
}

/// A transaction, ready to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transaction<'a> {
    /// Identifier of its record.
    pub id: RecordId,
    /// Endpoints.
    pub flow: Flow,
    /// The query, the response, or both.
    pub exchange: Exchange<'a>,
    /// Number of times that the query was seen at the point where it was seen first.
    pub query_count: u32,
    /// Time when the query was last seen there, in CLOCK_MONOTONIC nanoseconds; 0 without a query.
    pub latest_query_ns: u64,
    /// Number of copies of the query at other points, or from a mirror port, while it was pending.
    pub copy_count: u32,
    /// True if a message of this transaction may have been missed.
    pub capture_gap: bool,
    /// A related record.
    pub related: Option<Related>,
    /// Signs of tampering.
    pub anomalies: Anomalies,
    /// The sightings that it stands for.
    pub sightings: Sightings,
    /// Its place in chains, where it is known.
    pub chain: Option<&'a Chain>,
}

impl<'a> Transaction<'a> {
    /// Returns the outcome.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self.exchange {
            Exchange::Matched(..) => Outcome::Matched,
            Exchange::Query(_) => Outcome::Unanswered,
            Exchange::Response(_) => Outcome::UnmatchedResponse,
        }
    }

    /// Returns the query, if it was seen.
    #[inline]
    #[must_use]
    pub const fn query(&self) -> Option<&'a Observation> {
        self.exchange.query()
    }

    /// Returns the response, if it was seen.
    #[inline]
    #[must_use]
    pub const fn response(&self) -> Option<&'a Observation> {
        self.exchange.response()
    }

    /// Returns the socket that sent the response, where one of the sightings saw it.
    #[must_use]
    pub fn responder(&self) -> Sender {
        let sender = self.response().map_or(Sender::UNKNOWN, |response| response.sender);
        if sender.is_known() { sender } else { self.sightings.responder }
    }

    /// Returns the message that was captured first.
    #[must_use]
    pub const fn first(&self) -> &'a Observation {
        match self.exchange {
            Exchange::Matched(first, _) | Exchange::Query(first) | Exchange::Response(first) => {
                first
            }
        }
    }

    /// Returns the number of messages in this transaction: repeated queries count, copies do not.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        match self.exchange {
            Exchange::Matched(..) => self.query_count + 1,
            Exchange::Query(_) => self.query_count,
            Exchange::Response(_) => 1,
        }
    }
}
