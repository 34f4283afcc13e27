//! What the agent tells the kernel programs: per-interface settings, and the port set.

/// Direction of a packet as the node sees it, also the index of its counters.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Arriving at the interface (XDP, TC ingress).
    Ingress = 0,
    /// Leaving through the interface (TC egress).
    Egress = 1,
}

impl Direction {
    /// Both directions, in counter order.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// From its number in a record; `None` for any other number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }

    /// Lower-case name, as configuration and metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Value of the `INTERFACES` map; the key is the ifindex. Written by the agent before it attaches,
/// replaced whole when an operator changes something, so that a program never sees half a change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Bit `1 << Direction`: capture in that direction. Zero switches the interface off.
    pub directions: u32,
    /// Longest part of a packet to copy, bytes from the link layer on;
    /// 1 to [`MAX_CAPTURED_LENGTH`](crate::record::MAX_CAPTURED_LENGTH).
    pub snap_length: u32,
    /// First of the two counter slots of this interface (see [`counter_index`]).
    pub counter_slot: u32,
    /// Copied into each record: tells a reused ifindex from its predecessor.
    pub generation: u32,
}

const _: () = assert!(size_of::<InterfaceSettings>() == 16);

impl InterfaceSettings {
    /// True if packets of `direction` are to be captured.
    #[must_use]
    pub const fn wants(&self, direction: Direction) -> bool {
        self.directions & (1 << direction as u32) != 0
    }
}

/// Value of the `INTERFACES_NEAR` array: the settings of one of the interfaces whose ifindexes share
/// a place there, for the kernel programs to find without the hash map, whose lookup would be most
/// of what a packet that is not DNS costs. `INTERFACES` holds all; who is not here is found there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearSettings {
    /// Interface that has the place; 0 if none has.
    pub ifindex: u32,
    /// Its settings, the same as in `INTERFACES`.
    pub settings: InterfaceSettings,
}

const _: () = assert!(size_of::<NearSettings>() == 20);

/// Entries of the `INTERFACES_NEAR` array, a power of two: more than a node has interfaces, so that
/// few of them share a place; 80 KiB.
pub const NEAR_ENTRIES: u32 = 4_096;

/// Place of an interface in the `INTERFACES_NEAR` array.
#[must_use]
pub const fn near_index(ifindex: u32) -> u32 {
    ifindex & (NEAR_ENTRIES - 1)
}

/// Index into the `COUNTERS` map for a slot and a direction. Slot 0 belongs to packets of
/// interfaces that have no settings.
#[must_use]
pub const fn counter_index(counter_slot: u32, direction: Direction) -> u32 {
    counter_slot * 2 + direction as u32
}

/// Counter slot for packets of interfaces without settings, e.g. while one is being removed.
pub const UNCONFIGURED_SLOT: u32 = 0;

/// Words of the `PORTS` map: one bit for each of 65,536 ports, 8 KiB in all.
pub const PORT_WORDS: u32 = 65_536 / 64;

/// Word and bit of a port in the `PORTS` map.
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_its_own_bit() {
        let mut words = vec![0u64; PORT_WORDS as usize];
        for port in 0..=u16::MAX {
            let (word, bit) = port_bit(port);
            assert_eq!(words[word as usize] & bit, 0, "port {port} shares a bit");
            words[word as usize] |= bit;
        }
        assert!(words.iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn directions_are_separate_bits() {
        let ingress_only = InterfaceSettings { directions: 1, ..Default::default() };
        assert!(ingress_only.wants(Direction::Ingress));
        assert!(!ingress_only.wants(Direction::Egress));
    }
}
