//! Queries and responses become transactions.
//!
//! Contract: memory is bounded by the capacity; every query leaves the table exactly once, as a
//! matched or unanswered transaction, also where the table is full; in the steady state nothing is
//! allocated; the table never reads a clock. Time is the capture time of the messages, handed in,
//! so that an agent which was stopped and continued does not call queries unanswered whose
//! responses wait in the ring.
//!
//! - A response belongs to a query when transport, both endpoints, tunnel and identifier are equal,
//!   and the question too, unless the response carries none (RFC 2136 §3.8 and header-only error
//!   responses).
//! - The same query again, while it waits, is one transaction with a count.
//! - The same message at another interface, or in the other direction of one, is a *copy*: a packet
//!   on its way over veth, bridge and NIC. It is counted and makes no record; the first interface
//!   that saw it is the record's. So is a packet that a mirror port shows twice: equal bytes and
//!   IPv4 identification at the same point within a millisecond. [`recent`] says how copies are
//!   found after their transaction was recorded. Where interfaces are not merged, the interface is part of the
//!   identity instead, and each makes a record of its own.
//! - A response to what was recorded already names that record: it came late, or again.
//! - A response to a query that went to a multicast group (LLMNR, mDNS) comes from a host of its
//!   own: [`multicast`] says what the two have in common. The host that answered is the server of
//!   the transaction; further ones repeat the response.
//! - A truncated response over UDP and the same question over TCP name each other.

mod anomaly;
pub mod config;
mod id;
mod multicast;
mod recent;
mod table;
mod truncation;

use std::time::Duration;

use tap53_dns::{Flow, Message};
use tap53_ebpf::settings::Direction;

pub use anomaly::{Anomalies, Anomaly};
pub use id::{RecordId, RecordIds};
pub use table::{Observed, Table};
pub use truncation::Truncations;

/// How queries and responses are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a query over UDP waits for its response.
    pub udp_timeout: Duration,
    /// How long a query over TCP waits for its response.
    pub tcp_timeout: Duration,
    /// Pending queries at most. An entry takes about 0.6 KiB with its name, so the default of
    /// 65,536 bounds a worker's table to some 40 MiB under a flood of spoofed queries.
    pub capacity: usize,
    /// Whether one packet on its way over several interfaces is one message.
    pub merge_interfaces: bool,
}

impl Config {
    /// An empty table whose observation begins at `started_at_ns` (CLOCK_MONOTONIC).
    #[must_use]
    pub fn build(self, started_at_ns: u64, ids: RecordIds, truncations: Truncations) -> Table {
        Table::new(self, started_at_ns, ids, truncations)
    }
}

/// Where a hook sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Interface.
    pub ifindex: u32,
    /// Direction at the interface.
    pub direction: Direction,
}

/// A message with where and when it was seen. Its buffers are used again.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Hook that saw it.
    pub point: Point,
    /// The frame that completed it, in a replayed file, see [`tap53_dns::frames`]; 0 elsewhere.
    pub frame: u64,
    /// VLAN identifiers, outer and inner.
    pub vlan_ids: [Option<u16>; 2],
    /// False where the hook could not see whether the wire carried a tag.
    pub vlan_visible: bool,
    /// True if the snap length cut the message: what was behind is not known.
    pub cut: bool,
    /// Identification of the IPv4 packet that carried a message over UDP; 0 elsewhere.
    pub identification: u16,
    /// The message.
    pub message: Message,
    /// The message as sent, where records are to carry it; empty elsewhere.
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
            message: Message::default(),
            wire: Vec::new(),
        }
    }
}

impl Observation {
    /// Bytes of memory that its buffers take.
    fn buffer_bytes(&self) -> usize {
        self.message.buffer_bytes() + self.wire.capacity()
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

/// What one record has to do with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A response to a query that the other records as unanswered.
    LateResponse,
    /// A response to a query whose response the other records: sent again, by somebody else, or a
    /// further message of a zone transfer.
    RepeatedResponse,
    /// Asks over TCP what the other's truncated response over UDP did not tell.
    TcpAfterTruncation,
    /// A truncated response over UDP; the other asks again over TCP and was recorded first.
    RetriedOverTcp,
    /// A response that aims at the other's query with another identifier. Behind the position of
    /// the schema's symbol OTHER.
    WrongId = 5,
    /// A response that aims at the other's query from another address.
    WrongServer,
}

impl Relation {
    /// Symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::LateResponse => "LATE_RESPONSE",
            Self::RepeatedResponse => "REPEATED_RESPONSE",
            Self::TcpAfterTruncation => "TCP_AFTER_TRUNCATION",
            Self::RetriedOverTcp => "RETRIED_OVER_TCP",
            Self::WrongId => "WRONG_ID",
            Self::WrongServer => "WRONG_SERVER",
        }
    }
}

/// Another record that this one has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Related {
    /// How.
    pub relation: Relation,
    /// Which.
    pub record: RecordId,
}

/// What was said, at least by one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exchange<'a> {
    /// A query and its response. The query is the first of those that are equal.
    Matched(&'a Observation, &'a Observation),
    /// A query alone.
    Query(&'a Observation),
    /// A response alone.
    Response(&'a Observation),
}

/// A transaction, ready to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transaction<'a> {
    /// Identifier of its record.
    pub id: RecordId,
    /// Endpoints.
    pub flow: Flow,
    /// The messages.
    pub exchange: Exchange<'a>,
    /// Times the query was seen where it was seen first.
    pub query_count: u32,
    /// When the query was seen there last, CLOCK_MONOTONIC nanoseconds; 0 without one.
    pub latest_query_ns: u64,
    /// Times the query was seen elsewhere while it waited, or shown twice by a mirror port.
    pub copy_count: u32,
    /// True when a message of this transaction may have been missed.
    pub capture_gap: bool,
    /// A record that this one has to do with.
    pub related: Option<Related>,
    /// Signs of tampering.
    pub anomalies: Anomalies,
}

impl<'a> Transaction<'a> {
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
    pub const fn query(&self) -> Option<&'a Observation> {
        match self.exchange {
            Exchange::Matched(query, _) | Exchange::Query(query) => Some(query),
            Exchange::Response(_) => None,
        }
    }

    /// The response, where it was seen.
    #[must_use]
    pub const fn response(&self) -> Option<&'a Observation> {
        match self.exchange {
            Exchange::Matched(_, response) | Exchange::Response(response) => Some(response),
            Exchange::Query(_) => None,
        }
    }

    /// The message that came first.
    #[must_use]
    pub const fn first(&self) -> &'a Observation {
        match self.exchange {
            Exchange::Matched(first, _) | Exchange::Query(first) | Exchange::Response(first) => {
                first
            }
        }
    }

    /// Messages that this transaction stands for: repeated queries included, copies not.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        match self.exchange {
            Exchange::Matched(..) => self.query_count + 1,
            Exchange::Query(_) => self.query_count,
            Exchange::Response(_) => 1,
        }
    }
}
