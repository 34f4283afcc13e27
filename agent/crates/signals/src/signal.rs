//! The names of signals, and sets of them.

use tap53_reasons::{Set, labels};

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
pub type Signals = Set<Signal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_name(&signal.name().to_lowercase()), Some(signal));
        }
        assert_eq!(Signal::from_name("TUNNELS"), None);
    }
}
