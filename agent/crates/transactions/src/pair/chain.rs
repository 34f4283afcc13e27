//! The place of a transaction in chains, which [`crate::chain`] finds.

use super::RecordId;

/// The origin of a resolver's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnsweredFrom {
    /// Upstream servers were queried for it.
    Upstream,
    /// Nothing upstream: the answer was stored.
    Cache,
    /// Nothing upstream: the answer is authoritative, or a refusal. The resolver's own data or rules.
    Local,
    /// Upstream exchanges may have been for this answer or for another one.
    Ambiguous,
    /// A message of the resolver's upstream side may have been missed.
    Unknown,
}

impl AnsweredFrom {
    /// All values.
    pub const ALL: [Self; 5] =
        [Self::Upstream, Self::Cache, Self::Local, Self::Ambiguous, Self::Unknown];

    /// Returns the symbol of the record's field.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Upstream => "UPSTREAM",
            Self::Cache => "CACHE",
            Self::Local => "LOCAL",
            Self::Ambiguous => "AMBIGUOUS",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl AnsweredFrom {
    /// Returns true if the tracker could decide.
    #[must_use]
    pub const fn is_decided(self) -> bool {
        matches!(self, Self::Upstream | Self::Cache | Self::Local)
    }
}

/// The upstream work of a resolver for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSource {
    /// Where the answer came from.
    pub from: AnsweredFrom,
    /// Number of upstream exchanges for it, with retries and those that other clients waited for too.
    pub upstream_count: u32,
    /// Nanoseconds of the exchange during which at least one of them was open.
    pub upstream_ns: u64,
    /// The rest of the exchange, in nanoseconds: the time of the resolver itself.
    pub resolver_ns: u64,
}

impl AnswerSource {
    /// Messages may have been missed.
    pub const UNKNOWN: Self =
        Self { from: AnsweredFrom::Unknown, upstream_count: 0, upstream_ns: 0, resolver_ns: 0 };
}

/// The clients' exchanges that an upstream exchange serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Record of the first client that waited; `None` if there is none, or if it is not known which.
    pub record: Option<RecordId>,
    /// Number of clients' exchanges that it serves; without a record, of those that it may serve.
    pub count: u32,
}

/// The place of an exchange in chains: it may be one of a client with a resolver, one of a resolver
/// with its upstream server, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where its answer came from, if its server is a resolver.
    pub source: Option<AnswerSource>,
    /// The query that it serves, if its client is a resolver.
    pub served: Option<Served>,
    /// Its place in a lookup through a search list.
    pub search: Option<SearchStep>,
}

/// A query's place in a lookup through the search list of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchStep {
    /// Record of the first query of the lookup.
    pub group: RecordId,
    /// Position of the name in the lookup, from 1 on.
    pub step: u32,
    /// True if the lookup ended with this name.
    pub is_winner: bool,
}
