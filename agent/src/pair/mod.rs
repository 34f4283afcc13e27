//! Queries and responses become transactions.
//!
//! Contract: memory is bounded by the capacity; every query leaves the table exactly once, as a
//! matched or unanswered transaction or as a counted eviction; the table never reads a clock. Time
//! is the capture time of the messages, handed in, so that an agent which was stopped and
//! continued does not call queries unanswered whose responses wait in the ring.
//!
//! A response belongs to a query when interface, transport, both endpoints and the identifier are
//! equal, and the question too, unless the response carries none (RFC 2136 §3.8 and header-only
//! error responses). The interface is part of the key: one packet that passes two interfaces makes
//! two transactions, each with its own interface.

mod table;

use std::{net::SocketAddr, time::Duration};

use tap53_ebpf::settings::Direction;

use crate::decode::{Message, Packet, Transport};

pub use table::{Observed, Table};

/// How queries and responses are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a query waits for its response.
    pub timeout: Duration,
    /// Pending queries at most. An entry takes about 0.5 KiB with its name, so the default of
    /// 65,536 bounds a worker's table to some 32 MiB under a flood of spoofed queries.
    pub capacity: usize,
}

impl Config {
    /// An empty table whose observation begins at `started_at_ns` (CLOCK_MONOTONIC).
    #[must_use]
    pub fn build(self, started_at_ns: u64) -> Table {
        Table::new(self, started_at_ns)
    }
}

/// Where a message travelled, seen from the query: client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Interface whose hook saw it.
    pub ifindex: u32,
    /// UDP or TCP.
    pub transport: Transport,
    /// Sender of the query.
    pub client: SocketAddr,
    /// Receiver of the query.
    pub server: SocketAddr,
}

/// A message with where and when it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Direction of this message at the interface.
    pub direction: Direction,
    /// VLAN identifiers, outer and inner.
    pub vlan_ids: [Option<u16>; 2],
    /// False where the hook could not see whether the wire carried a tag.
    pub vlan_visible: bool,
    /// The message.
    pub message: Message,
    /// The message as sent, where records are to carry it.
    pub wire: Option<Vec<u8>>,
}

impl Observation {
    /// A message found in a packet, and the flow it belongs to.
    #[must_use]
    pub fn new(packet: &Packet<'_>, message: Message, wire: Option<Vec<u8>>) -> (Flow, Self) {
        let source = SocketAddr::new(packet.source, packet.source_port);
        let destination = SocketAddr::new(packet.destination, packet.destination_port);
        let (client, server) =
            if message.response { (destination, source) } else { (source, destination) };
        let flow = Flow { ifindex: packet.ifindex, transport: packet.transport, client, server };
        let observation = Self {
            at_ns: packet.captured_at_ns,
            direction: packet.direction,
            vlan_ids: [packet.vlan_id, packet.vlan_inner_id],
            vlan_visible: packet.vlan_visible,
            message,
            wire,
        };
        (flow, observation)
    }
}

/// What became of a query, or of a response without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Query and response.
    Matched,
    /// A query whose time ran out.
    Unanswered,
    /// A response whose query was not pending.
    UnmatchedResponse,
}

impl Outcome {
    /// Symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Matched => "MATCHED",
            Self::Unanswered => "UNANSWERED",
            Self::UnmatchedResponse => "UNMATCHED_RESPONSE",
        }
    }
}

/// What was said, at least by one side.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a box would cost an allocation per transaction")]
pub enum Exchange {
    /// A query and its response.
    Matched(Observation, Observation),
    /// A query alone.
    Query(Observation),
    /// A response alone.
    Response(Observation),
}

/// A transaction, ready to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Endpoints and interface.
    pub flow: Flow,
    /// The messages.
    pub exchange: Exchange,
    /// Times the query was seen.
    pub query_count: u32,
    /// True when a message of this transaction may have been missed.
    pub capture_gap: bool,
}

impl Transaction {
    /// What became of it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self.exchange {
            Exchange::Matched(..) => Outcome::Matched,
            Exchange::Query(_) => Outcome::Unanswered,
            Exchange::Response(_) => Outcome::UnmatchedResponse,
        }
    }

    /// The query, where it was seen.
    #[must_use]
    pub const fn query(&self) -> Option<&Observation> {
        match &self.exchange {
            Exchange::Matched(query, _) | Exchange::Query(query) => Some(query),
            Exchange::Response(_) => None,
        }
    }

    /// The response, where it was seen.
    #[must_use]
    pub const fn response(&self) -> Option<&Observation> {
        match &self.exchange {
            Exchange::Matched(_, response) | Exchange::Response(response) => Some(response),
            Exchange::Query(_) => None,
        }
    }

    /// The message that came first.
    #[must_use]
    pub const fn first(&self) -> &Observation {
        match &self.exchange {
            Exchange::Matched(first, _) | Exchange::Query(first) | Exchange::Response(first) => {
                first
            }
        }
    }

    /// Messages that this transaction stands for, repeated queries included.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        match self.exchange {
            Exchange::Matched(..) => self.query_count + 1,
            Exchange::Query(_) => self.query_count,
            Exchange::Response(_) => 1,
        }
    }
}
