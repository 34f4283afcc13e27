//! Counters of all outcomes of a packet at a hook.
//!
//! Invariant per interface and direction: `seen = captured + Σ reasons`. `Seen` is counted on entry
//! and every other counter where the program ends, so the sum verifies the programs.

/// Index into a [`Counters`] value. `TRUNCATED` and `BYTES_CAPTURED` describe captured packets and
/// are not part of the sum.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Packets that entered the program.
    Seen,
    /// Packets submitted to a ring.
    Captured,
    /// Packets captured with less than their full length.
    Truncated,
    /// Bytes of submitted packets, including headers.
    BytesCaptured,
    /// The packet is not IPv4 or IPv6.
    NotIp,
    /// The packet is IP, but not UDP or TCP to or from a port of the set.
    NotDns,
    /// Capture is disabled for the interface or this direction.
    Disabled,
    /// The interface has no settings (counted in slot 0).
    Unconfigured,
    /// The frame has more than two VLAN tags.
    VlanDepth,
    /// A header exceeds the packet, or contradicts itself.
    MalformedHeader,
    /// There are more IPv6 extension headers than the program follows, or they are too long before
    /// a tunnel.
    ExtensionLimit,
    /// A fragment after the first: without ports, it is unknown whether it is DNS. If fragments are
    /// captured, its first fragment had not arrived before, and there were too many such fragments.
    LaterFragment,
    /// A fragment of a tunnel's packet, whose inner packet can only be read after reassembly.
    TunnelFragment,
    /// A tunnel header of another version, or with fields of unknown length: its content is
    /// unknown.
    UnknownTunnel,
    /// The ring was full.
    RingFull,
    /// The kernel refused to copy the packet.
    CopyFailed,
    /// A frame of a file with an unsupported link type. Hooks never count it: they see only
    /// Ethernet.
    UnsupportedLinkType,
    /// The packet is in an encapsulation that is not read, and that may contain DNS: PPPoE, MPLS,
    /// IP in IP, or GRE on an interface where it is not followed.
    UnreadEncapsulation,
}

/// The meaning of a counter for completeness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The packet entered or was captured: one side of the sum, or not part of it.
    Tally,
    /// The packet is rightly not captured: it is not DNS, or capture is disabled.
    Ignored,
    /// The packet is lost, and is or may be DNS.
    Lost,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: usize = Self::ALL.len();

    /// All counters, in index order.
    pub const ALL: [Self; 18] = [
        Self::Seen,
        Self::Captured,
        Self::Truncated,
        Self::BytesCaptured,
        Self::NotIp,
        Self::NotDns,
        Self::Disabled,
        Self::Unconfigured,
        Self::VlanDepth,
        Self::MalformedHeader,
        Self::ExtensionLimit,
        Self::LaterFragment,
        Self::TunnelFragment,
        Self::UnknownTunnel,
        Self::RingFull,
        Self::CopyFailed,
        Self::UnsupportedLinkType,
        Self::UnreadEncapsulation,
    ];

    /// Returns its name in the ledger and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Captured => "captured",
            Self::Truncated => "truncated",
            Self::BytesCaptured => "bytes_captured",
            Self::NotIp => "not_ip",
            Self::NotDns => "not_dns",
            Self::Disabled => "disabled",
            Self::Unconfigured => "unconfigured",
            Self::VlanDepth => "vlan_depth",
            Self::MalformedHeader => "malformed_header",
            Self::ExtensionLimit => "extension_limit",
            Self::LaterFragment => "later_fragment",
            Self::TunnelFragment => "tunnel_fragment",
            Self::UnknownTunnel => "unknown_tunnel",
            Self::RingFull => "ring_full",
            Self::CopyFailed => "copy_failed",
            Self::UnsupportedLinkType => "unsupported_link_type",
            Self::UnreadEncapsulation => "unread_encapsulation",
        }
    }

    /// Returns whether its packets were tallied, rightly ignored, or lost.
    #[must_use]
    pub const fn fate(self) -> Fate {
        match self {
            Self::Seen | Self::Captured | Self::Truncated | Self::BytesCaptured => Fate::Tally,
            Self::NotIp | Self::NotDns | Self::Disabled | Self::Unconfigured => Fate::Ignored,
            Self::VlanDepth
            | Self::MalformedHeader
            | Self::ExtensionLimit
            | Self::LaterFragment
            | Self::TunnelFragment
            | Self::UnknownTunnel
            | Self::RingFull
            | Self::CopyFailed
            | Self::UnsupportedLinkType
            | Self::UnreadEncapsulation => Fate::Lost,
        }
    }
}

/// Value of the `COUNTERS` per-CPU array; the index is
/// [`counter_index`](crate::settings::counter_index).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// One count for each [`Counter`], by its index.
    pub counts: [u64; Counter::COUNT],
}

impl Counters {
    /// Returns the count of one counter.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// Adds the counts of another CPU.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }

    /// Returns true if `seen = captured + Σ reasons`.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let reasons: u64 = Counter::ALL
            .iter()
            .filter(|counter| counter.fate() != Fate::Tally)
            .map(|counter| self.get(*counter))
            .sum();
        self.get(Counter::Seen) == self.get(Counter::Captured) + reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_positions_and_names_differ() {
        for (position, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, position);
            assert!(
                Counter::ALL.iter().filter(|other| other.name() == counter.name()).count() == 1
            );
        }
    }

    #[test]
    fn a_missing_reason_unbalances() {
        let mut counters = Counters::default();
        counters.counts[Counter::Seen as usize] = 3;
        counters.counts[Counter::Captured as usize] = 1;
        counters.counts[Counter::NotDns as usize] = 1;
        assert!(!counters.balanced());
        counters.counts[Counter::RingFull as usize] = 1;
        counters.counts[Counter::Truncated as usize] = 1;
        assert!(counters.balanced());
    }
}
