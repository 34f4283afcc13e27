//! What the agent tells the kernel programs: per-interface settings, and the port sets.

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
    /// Bits of [`features`].
    pub features: u32,
}

const _: () = assert!(size_of::<InterfaceSettings>() == 20);

/// Bits of [`InterfaceSettings::features`]: what is followed beyond whole packets that are not in
/// tunnels.
pub mod features {
    /// Fragments of IP datagrams after the first.
    pub const FRAGMENTS: u32 = 1 << 0;
    /// VXLAN (RFC 7348), at the ports of [`PortSet::Vxlan`](super::PortSet::Vxlan).
    pub const VXLAN: u32 = 1 << 1;
    /// Geneve (RFC 8926), at the ports of [`PortSet::Geneve`](super::PortSet::Geneve).
    pub const GENEVE: u32 = 1 << 2;
    /// GRE (RFC 2784, RFC 2890).
    pub const GRE: u32 = 1 << 3;
}

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

const _: () = assert!(size_of::<NearSettings>() == 24);

/// Entries of the `INTERFACES_NEAR` array, a power of two: more than a node has interfaces, so that
/// few of them share a place; 96 KiB.
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

/// What a port can stand for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortSet {
    /// DNS, over UDP and TCP.
    Dns = 0,
    /// VXLAN tunnels, over UDP.
    Vxlan = 1,
    /// Geneve tunnels, over UDP.
    Geneve = 2,
}

impl PortSet {
    /// All sets, in the order of their places.
    pub const ALL: [Self; 3] = [Self::Dns, Self::Vxlan, Self::Geneve];
}

/// Words of a set: one bit for each of 65,536 ports.
const SET_WORDS: u32 = 65_536 / 64;

/// Words of the `PORTS` map: 8 KiB for each set.
pub const PORT_WORDS: u32 = SET_WORDS * 3;

const _: () = assert!(PORT_WORDS as usize == SET_WORDS as usize * PortSet::ALL.len());

/// Word and bit of a port in the `PORTS` map.
#[inline(always)]
#[must_use]
pub const fn port_bit(set: PortSet, port: u16) -> (u32, u64) {
    (set as u32 * SET_WORDS + (port >> 6) as u32, 1 << (port & 63))
}

/// What the `PORTS` map holds, to fill it from, and to ask without it. 24 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The words of the map.
    pub words: [u64; PORT_WORDS as usize],
}

impl Default for Ports {
    fn default() -> Self {
        Self { words: [0; PORT_WORDS as usize] }
    }
}

impl Ports {
    /// Adds a port to a set.
    pub const fn insert(&mut self, set: PortSet, port: u16) {
        let (word, bit) = port_bit(set, port);
        self.words[word as usize] |= bit;
    }

    /// True if the set has the port.
    #[must_use]
    pub const fn contains(&self, set: PortSet, port: u16) -> bool {
        let (word, bit) = port_bit(set, port);
        self.words[word as usize] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_every_set_has_its_own_bit() {
        let mut ports = Ports::default();
        for set in PortSet::ALL {
            for port in 0..=u16::MAX {
                assert!(!ports.contains(set, port), "port {port} of {set:?} shares a bit");
                ports.insert(set, port);
                assert!(ports.contains(set, port));
            }
        }
        assert!(ports.words.iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn directions_are_separate_bits() {
        let ingress_only = InterfaceSettings { directions: 1, ..Default::default() };
        assert!(ingress_only.wants(Direction::Ingress));
        assert!(!ingress_only.wants(Direction::Egress));
    }
}
