//! The names of signals, and sets of them.

use serde::{Serialize, Serializer, ser::SerializeSeq as _};
use tap53_reasons::labels;

labels! {
    /// Something about an exchange that an analyst may want to look at. It is no verdict.
    pub enum Signal {
        /// The registrable domain resolved for the first time on this node.
        NewDomainNode = "NEW_DOMAIN_NODE";
        /// The registrable domain resolved for the first time for this workload.
        NewDomainWorkload = "NEW_DOMAIN_WORKLOAD";
        /// The client sends data in names below this registrable domain, or receives data from it.
        Tunnel = "TUNNEL";
        /// The client looks up many registrable domains that do not exist.
        Dga = "DGA";
        /// A public name has a private address.
        Rebinding = "REBINDING";
        /// The response differs from an earlier one to the same query.
        ConflictingResponse = "CONFLICTING_RESPONSE";
        /// The response repeats the name of the question in another case.
        CaseMismatch = "CASE_MISMATCH";
    }
}

impl Signal {
    /// Returns the signal with this name; case does not matter.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name().eq_ignore_ascii_case(name))
    }
}

/// The signals of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Signals(u8);

const _: () = assert!(Signal::ALL.len() <= 8);

impl Signals {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Adds a signal.
    #[inline]
    pub const fn add(&mut self, signal: Signal) {
        self.0 |= 1 << signal as u8;
    }

    /// Returns the set with `signal` added if `is_set`.
    #[inline]
    #[must_use]
    pub const fn with(self, signal: Signal, is_set: bool) -> Self {
        Self(self.0 | (is_set as u8) << signal as u8)
    }

    /// Returns the signals of both sets.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns true if `signal` is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & 1 << signal as u8 != 0
    }

    /// Returns true if the set is empty.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of signals.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Returns the signals, in index order.
    pub fn iter(self) -> impl Iterator<Item = Signal> + Clone {
        Signal::ALL.into_iter().filter(move |signal| self.contains(*signal))
    }

    /// Returns their names, in index order.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        self.iter().map(Signal::name)
    }

    /// Returns the set as bits, bit 0 for the signal with index 0.
    #[inline]
    #[must_use]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Returns the set of [`bits`](Self::bits). Bits without a signal are ignored.
    #[inline]
    #[must_use]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & ((1 << Signal::ALL.len()) - 1))
    }
}

impl FromIterator<Signal> for Signals {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> Self {
        let mut set = Self::NONE;
        signals.into_iter().for_each(|signal| set.add(signal));
        set
    }
}

/// Serializes as a list of names.
impl Serialize for Signals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(Some(self.len()))?;
        for name in self.names() {
            names.serialize_element(name)?;
        }
        names.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_iterates_to_names_in_index_order() {
        let set: Signals = [Signal::Rebinding, Signal::NewDomainNode].into_iter().collect();
        assert_eq!(set.names().collect::<Vec<_>>(), ["NEW_DOMAIN_NODE", "REBINDING"]);
        assert_eq!((set.len(), set.is_empty()), (2, false));
        assert_eq!(Signals::from_bits(set.bits()), set);
        assert_eq!(Signals::from_bits(u8::MAX).len(), Signal::ALL.len());
        assert_eq!(set.and(Signals::NONE.with(Signal::Dga, true)).len(), 3);
    }

    #[test]
    fn names_are_found_in_any_case() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_name(&signal.name().to_lowercase()), Some(signal));
        }
        assert_eq!(Signal::from_name("TUNNELS"), None);
    }
}
