//! Signs of tampering. A sign is no verdict: `docs/decisions/messages.md` lists harmless causes.

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

/// A sign that a third party interferes with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anomaly {
    /// The response passed the interface in the same direction as its query.
    ResponseFromClientSide,
    /// The response repeats the question in different case (draft-vixie-dnsext-dns0x20).
    CaseMismatch,
    /// The response differs from an earlier one to the same query.
    ConflictingResponse,
    /// The response has the endpoints and question of a pending query, but another identifier.
    WrongId,
    /// The response has the client and question of a pending query, but another sender.
    WrongServer,
    /// A response of one of the two kinds above was sent for this query.
    ForgedResponseSeen,
    /// Bytes were sent twice in the TCP connection, with different content.
    TcpConflict,
}

impl Anomaly {
    /// All kinds, in index order.
    pub const ALL: [Self; 7] = [
        Self::ResponseFromClientSide,
        Self::CaseMismatch,
        Self::ConflictingResponse,
        Self::WrongId,
        Self::WrongServer,
        Self::ForgedResponseSeen,
        Self::TcpConflict,
    ];

    /// Returns its name in records and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResponseFromClientSide => "RESPONSE_FROM_CLIENT_SIDE",
            Self::CaseMismatch => "CASE_MISMATCH",
            Self::ConflictingResponse => "CONFLICTING_RESPONSE",
            Self::WrongId => "WRONG_ID",
            Self::WrongServer => "WRONG_SERVER",
            Self::ForgedResponseSeen => "FORGED_RESPONSE_SEEN",
            Self::TcpConflict => "TCP_CONFLICT",
        }
    }
}

/// The anomalies of one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anomalies(u8);

const _: () = assert!(Anomaly::ALL.len() <= 8);

impl Anomalies {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Adds an anomaly.
    pub const fn add(&mut self, anomaly: Anomaly) {
        self.0 |= 1 << anomaly as u8;
    }

    /// Returns true if there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the anomalies, in index order.
    pub fn iter(self) -> impl Iterator<Item = Anomaly> + Clone {
        Anomaly::ALL.into_iter().filter(move |anomaly| self.0 & 1 << *anomaly as u8 != 0)
    }

    /// Returns the number of anomalies.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl FromIterator<Anomaly> for Anomalies {
    fn from_iter<I: IntoIterator<Item = Anomaly>>(kinds: I) -> Self {
        let mut anomalies = Self::NONE;
        kinds.into_iter().for_each(|anomaly| anomalies.add(anomaly));
        anomalies
    }
}

/// Serializes as a list of names, which is usually empty.
impl Serialize for Anomalies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(Some(self.len()))?;
        for anomaly in self.iter() {
            names.serialize_element(anomaly.name())?;
        }
        names.end()
    }
}
