//! Signs of tampering. A sign is no verdict: `docs/decisions/messages.md` lists harmless causes.

use serde::{Serialize, Serializer, ser::SerializeSeq as _};
use tap53_reasons::labels;

labels! {
    /// A sign that somebody interferes with a transaction.
    pub enum Anomaly {
        /// The response passed the interface in the direction of its query.
        ResponseFromClientSide = "RESPONSE_FROM_CLIENT_SIDE";
        /// The response repeats the question in other case (draft-vixie-dnsext-dns0x20).
        CaseMismatch = "CASE_MISMATCH";
        /// The response says something else than an earlier one to the same query.
        ConflictingResponse = "CONFLICTING_RESPONSE";
        /// The response has the endpoints and question of a query that waits, and another identifier.
        WrongId = "WRONG_ID";
        /// The response has the client and question of a query that waits, and another sender.
        WrongServer = "WRONG_SERVER";
        /// A response of one of the two kinds above aimed at this query.
        ForgedResponseSeen = "FORGED_RESPONSE_SEEN";
        /// Bytes were sent twice in the TCP connection, and differ.
        TcpConflict = "TCP_CONFLICT";
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

    /// Returns the anomalies of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
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
