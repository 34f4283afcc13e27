//! Settings of the kernel programs: per interface, and the port sets.

/// Direction of a packet from the node's view, also the index of its counters.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Arriving at the interface (XDP, TC ingress).
    Ingress = 0,
    /// Departing from the interface (TC egress).
    Egress = 1,
}

impl Direction {
    /// Both directions, in counter order.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Returns the direction with a number in a ring item; `None` for any other number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }

    /// Returns its lower-case name in configuration and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Value of the `INTERFACES` map; the key is the ifindex. The agent writes it before it attaches,
/// and replaces it atomically when an operator changes something, so that a program never sees half
/// a change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Bit `1 << Direction` enables capture in that direction. Zero disables the interface.
    pub directions: u32,
    /// Maximum number of bytes to copy of a packet, from the link layer on; 1 to
    /// [`MAX_CAPTURED_LENGTH`](crate::record::MAX_CAPTURED_LENGTH).
    pub snap_length: u32,
    /// First of the two counter slots of this interface (see [`counter_index`]).
    pub counter_slot: u32,
    /// Copied into each ring item: distinguishes a reused ifindex from its predecessor.
    pub generation: u32,
    /// Bits of [`features`].
    pub features: u32,
}

const _: () = assert!(size_of::<InterfaceSettings>() == 20);

/// Bits of [`InterfaceSettings::features`]: what is followed in addition to complete packets
/// outside of tunnels.
pub mod features {
    /// Fragments of IP datagrams after the first.
    pub const FRAGMENTS: u32 = 1 << 0;
    /// VXLAN (RFC 7348), at the ports of [`PortSet::Vxlan`](super::PortSet::Vxlan).
    pub const VXLAN: u32 = 1 << 1;
    /// Geneve (RFC 8926), at the ports of [`PortSet::Geneve`](super::PortSet::Geneve).
    pub const GENEVE: u32 = 1 << 2;
    /// GRE (RFC 2784, RFC 2890).
    pub const GRE: u32 = 1 << 3;
    /// IPv4 and IPv6 in IP (RFC 2003, RFC 4213).
    pub const IPIP: u32 = 1 << 4;
}

impl InterfaceSettings {
    /// Returns true if packets of `direction` are to be captured.
    #[must_use]
    pub const fn wants(&self, direction: Direction) -> bool {
        self.directions & (1 << direction as u32) != 0
    }
}

/// Value of the `INTERFACES_NEAR` array: the settings of one of the interfaces whose ifindexes
/// share a slot. It saves the kernel programs the lookup in the hash map, which would be most of
/// the cost of a packet that is not DNS. `INTERFACES` contains all interfaces, including those that
/// are not here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearSettings {
    /// Ifindex that owns the slot; 0 if it is free.
    pub ifindex: u32,
    /// Its settings, the same as in `INTERFACES`.
    pub settings: InterfaceSettings,
}

const _: () = assert!(size_of::<NearSettings>() == 24);

/// Number of entries of the `INTERFACES_NEAR` array, a power of two: more than a node has
/// interfaces, so that few of them share a slot; 96 KiB.
pub const NEAR_ENTRIES: u32 = 4_096;

/// Returns the slot of an interface in the `INTERFACES_NEAR` array.
#[must_use]
pub const fn near_index(ifindex: u32) -> u32 {
    ifindex & (NEAR_ENTRIES - 1)
}

/// Returns the index into the `COUNTERS` map for a slot and a direction. Slot 0 is for packets of
/// interfaces without settings.
#[must_use]
pub const fn counter_index(counter_slot: u32, direction: Direction) -> u32 {
    counter_slot * 2 + direction as u32
}

/// Counter slot for packets of interfaces without settings, e.g. while one is being removed.
pub const UNCONFIGURED_SLOT: u32 = 0;

/// The protocols that a port can belong to.
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
    /// All sets, in the order of their words.
    pub const ALL: [Self; 3] = [Self::Dns, Self::Vxlan, Self::Geneve];
}

/// Number of words per set: one bit for each of 65,536 ports.
const SET_WORDS: u32 = 65_536 / 64;

/// Number of words of the `PORTS` map: 8 KiB per set.
pub const PORT_WORDS: u32 = SET_WORDS * 3;

const _: () = assert!(PORT_WORDS as usize == SET_WORDS as usize * PortSet::ALL.len());

/// Returns word and bit of a port in the `PORTS` map.
#[inline(always)]
#[must_use]
pub const fn port_bit(set: PortSet, port: u16) -> (u32, u64) {
    (set as u32 * SET_WORDS + (port >> 6) as u32, 1 << (port & 63))
}

/// The content of the `PORTS` map, to fill it and to query it without the map. 24 KiB.
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

    /// Returns true if the set contains the port.
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
