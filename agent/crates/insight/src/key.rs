//! Keys of series, and the labels that their codes stand for.

use std::borrow::Cow;

use tap53_dns::{Transport, rcode_mnemonic, rcode_name, type_mnemonic, type_name};
use tap53_transactions::pair::{Outcome, Transaction};

/// The label of everything that has no series of its own. No name in Kubernetes begins with a tilde.
pub const OTHER: &str = "~other";

/// The tag of a client or server that is counted as [`OTHER`].
pub(crate) const OTHER_TAG: u64 = 0;

/// Client and server of a series, each by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) client: u64,
    pub(crate) server: u64,
}

impl Ends {
    pub(crate) const OTHER: Self = Self { client: OTHER_TAG, server: OTHER_TAG };
}

/// Key of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeriesKey {
    pub(crate) ends: Ends,
    pub(crate) codes: Codes,
}

impl SeriesKey {
    /// The series of everything that has none of its own.
    pub(crate) const OTHER: Self = Self { ends: Ends::OTHER, codes: Codes(u64::MAX) };
}

/// Query type, response code, transport and outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Codes(u64);

/// A query type or response code that is absent.
const ABSENT: u64 = 1 << 16;
/// A query type or response code without a mnemonic.
const UNNAMED: u64 = 1 << 17;
/// Bits of a query type or response code.
const CODE_BITS: u32 = 18;
const CODE_MASK: u64 = (1 << CODE_BITS) - 1;
const TRANSPORT_SHIFT: u32 = 2 * CODE_BITS;
const OUTCOME_SHIFT: u32 = TRANSPORT_SHIFT + 4;

impl Codes {
    #[inline]
    pub(crate) fn of(transaction: &Transaction<'_>) -> Self {
        let qtype = transaction.first().message.question().map(|question| question.qtype);
        let rcode = transaction.response().map(|response| response.message.rcode);
        let [qtype, rcode] = [qtype, rcode].map(|code| code.map_or(ABSENT, u64::from));
        let transport = u64::from(transaction.flow.transport as u8) << TRANSPORT_SHIFT;
        let outcome = u64::from(transaction.outcome() as u8) << OUTCOME_SHIFT;
        Self(qtype | rcode << CODE_BITS | transport | outcome)
    }

    /// Replaces codes without a mnemonic by one, since a client can send 65,536 of them.
    #[must_use]
    pub(crate) fn folded(self) -> Self {
        let is_unnamed = |code: u64, mnemonic: fn(u16) -> Option<&'static str>| {
            u16::try_from(code).is_ok_and(|code| mnemonic(code).is_none())
        };
        let mut folded = self.0;
        if is_unnamed(self.qtype(), type_mnemonic) {
            folded = folded & !CODE_MASK | UNNAMED;
        }
        if is_unnamed(self.rcode(), rcode_mnemonic) {
            folded = folded & !(CODE_MASK << CODE_BITS) | UNNAMED << CODE_BITS;
        }
        Self(folded)
    }

    /// Returns the labels: query type, response code, transport, outcome. Those of an absent code are empty.
    pub(crate) fn labels(self) -> [Cow<'static, str>; 4] {
        if self == SeriesKey::OTHER.codes {
            return [const { Cow::Borrowed(OTHER) }; 4];
        }
        let name = |code: u64, name: fn(u16) -> Cow<'static, str>| match u16::try_from(code) {
            Ok(code) => name(code),
            Err(_) if code == ABSENT => Cow::Borrowed(""),
            Err(_) => Cow::Borrowed(OTHER),
        };
        let transport = match self.0 >> TRANSPORT_SHIFT & 0xf {
            code if code == Transport::Udp as u64 => "udp",
            _ => "tcp",
        };
        let outcome = match self.0 >> OUTCOME_SHIFT {
            code if code == Outcome::Matched as u64 => "matched",
            code if code == Outcome::Unanswered as u64 => "unanswered",
            _ => "unmatched_response",
        };
        [
            name(self.qtype(), type_name),
            name(self.rcode(), rcode_name),
            transport.into(),
            outcome.into(),
        ]
    }

    const fn qtype(self) -> u64 {
        self.0 & CODE_MASK
    }

    const fn rcode(self) -> u64 {
        self.0 >> CODE_BITS & CODE_MASK
    }
}
