//! The events that workers report to the tracker, and its verdicts.

use std::net::IpAddr;

use super::Names;
use crate::pair::{Chain, RecordId};

/// An event of an exchange in which a resolver may take part, or which may belong to a lookup through a search
/// list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A query.
    Opened(Opened),
    /// A response, or the end of the time that the query waits for one.
    Closed(Closed),
    /// Packets may have been missed between two times, in nanoseconds of CLOCK_MONOTONIC.
    Gap {
        /// Time of the last packet before it.
        from_ns: u64,
        /// Time of the first packet after it.
        until_ns: u64,
    },
    /// Capture on an interface began or ended.
    Switched {
        /// CLOCK_MONOTONIC nanoseconds.
        at_ns: u64,
    },
}

impl Event {
    /// Returns its time in nanoseconds of CLOCK_MONOTONIC.
    #[must_use]
    pub const fn at_ns(&self) -> u64 {
        match self {
            Self::Opened(opened) => opened.at_ns,
            Self::Closed(closed) => closed.at_ns,
            Self::Gap { from_ns, .. } => *from_ns,
            Self::Switched { at_ns } => *at_ns,
        }
    }
}

/// The sender of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its address.
    pub address: IpAddr,
    /// Cgroup of its socket; 0 if unknown.
    pub cgroup: u64,
    /// True if responses came from this address lately, and a resolver can be recognised by it.
    pub answers_by_address: bool,
    /// True if responses came from this cgroup lately, and from no query of its own.
    pub answers_by_cgroup: bool,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Identifier that its record will have.
    pub record: RecordId,
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Its sender.
    pub client: Party,
    /// The address that it was sent to.
    pub server: IpAddr,
    /// Its question.
    pub names: Names,
}

/// The end of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Identifier of its record.
    pub record: RecordId,
    /// Time of the response at its client, or of the end of the wait for it: CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// Time of the response at its server: before `at_ns` if its addresses were translated in between.
    pub answered_ns: u64,
    /// The address that the query was sent to.
    pub server: IpAddr,
    /// True if a message of the exchange may have been missed.
    pub gap: bool,
    /// The response; `None` if none was seen.
    pub response: Option<Response>,
}

impl Response {
    /// Returns true if it has records, false if it says that there are none (NODATA, NXDOMAIN), and `None`
    /// if it is another error.
    pub(super) const fn has_records(&self) -> Option<bool> {
        match self.rcode {
            0 => Some(self.has_answers),
            3 => Some(false),
            _ => None,
        }
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Cgroup of the socket that sent it, if a resolver can be recognised by it; 0 otherwise.
    pub cgroup: u64,
    /// The flag AA.
    pub authoritative: bool,
    /// Response code.
    pub rcode: u16,
    /// True if it has answers.
    pub has_answers: bool,
    /// Hashes of the names that the CNAME records of the answer point to.
    pub targets: Box<[u64]>,
}

/// The verdict on one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its record.
    pub record: RecordId,
    /// Its place in chains.
    pub chain: Chain,
}
