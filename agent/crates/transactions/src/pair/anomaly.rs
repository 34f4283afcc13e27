//! Signs of tampering. A sign is no verdict: `docs/decisions/messages.md` lists harmless causes.

use tap53_reasons::{Set, labels};

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
pub type Anomalies = Set<Anomaly>;
