//! Counters of all outcomes of a packet at a hook.
//!
//! Invariant per interface and direction: `seen = captured + Σ reasons`. `Seen` is counted on entry
//! and every other counter where the program ends, so the sum verifies the programs.

use tap53_reasons::{Fate, reasons};

reasons! {
    /// Index into a [`Counters`] value.
    #[repr(usize)]
    pub enum Counter {
        /// The packet entered the program.
        Seen = "seen", Taken;
        /// The packet was submitted to a ring.
        Captured = "captured", Passed;
        /// The packet was captured with less than its full length.
        Truncated = "truncated", Outside;
        /// Bytes of packet were submitted, headers included.
        BytesCaptured = "bytes_captured", Outside;
        /// The packet is neither IPv4 nor IPv6.
        NotIp = "not_ip", Ignored;
        /// The packet is not UDP or TCP to or from a configured port.
        NotDns = "not_dns", Ignored, "nothing; if DNS is missing, check `capture.ports` and `capture.tunnels`";
        /// Capture is switched off for the interface or this direction.
        Disabled = "disabled", Ignored, "`tap53 status` shows who switched it off";
        /// The interface has no settings yet, or has none any more.
        Unconfigured = "unconfigured", Ignored, "nothing, if it stays small";
        /// The packet has more than two VLAN tags.
        VlanDepth = "vlan_depth", Lost, "capture at another point";
        /// A header runs past the end of the packet, or contradicts itself.
        MalformedHeader = "malformed_header", Lost, "look for who sends it; usually hostile";
        /// The packet has more IPv6 extension headers than the program follows, or longer ones in front of
        /// a tunnel.
        ExtensionLimit = "extension_limit", Lost, "look for who sends it; usually hostile";
        /// A later fragment has no ports, and its first fragment was not seen.
        LaterFragment = "later_fragment", Lost, "check that both directions and all paths are captured";
        /// A fragment of a tunnel's outer packet hides the inner packet.
        TunnelFragment = "tunnel_fragment", Lost, "lower the MTU inside the tunnel, or capture the tunnel's own device";
        /// A tunnel header has another version, or fields of unknown length.
        UnknownTunnel = "unknown_tunnel", Lost, "capture the tunnel's own device";
        /// The ring had no room: the worker is slower than the traffic.
        RingFull = "ring_full", Lost, "raise `capture.ring_bytes` for bursts, `capture.workers` for steady load";
        /// The kernel refused the copy out of the packet.
        CopyFailed = "copy_failed", Lost, "report it";
        /// The link type of a frame in a capture file is not read. Hooks count none: they see Ethernet.
        UnsupportedLinkType = "unsupported_link_type", Lost, "convert the file";
        /// The packet is in an encapsulation that is not read and may hold DNS: PPPoE, MPLS, IP in IP, or
        /// GRE that `capture.tunnels` does not name.
        UnreadEncapsulation = "unread_encapsulation", Lost, "name GRE or IPIP in `capture.tunnels`; else capture at another point";
    }
}

impl Counter {
    /// Number of counters.
    pub const COUNT: usize = Self::ALL.len();
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
            .filter(|counter| matches!(counter.fate(), Fate::Ignored | Fate::Lost))
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
