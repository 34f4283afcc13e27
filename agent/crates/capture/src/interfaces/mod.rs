//! Lists the network interfaces of the agent's namespace, and selects those to capture from.
//!
//! It queries rtnetlink, not `/sys/class/net`: in a container `/sys` belongs to the namespace in
//! which it was mounted, which need not be the one that the agent runs in.

pub mod config;
pub(crate) mod device;
mod names;
pub(crate) mod netlink;
mod selector;
mod status;
mod switch;
mod wanted;
mod watch;

use std::fmt;

use netlink::{Request, Socket, attributes, read_u16, read_u32, text};

pub use device::{Device, Whole};
pub use names::{Names, Since};
pub use netlink::Error;
pub use selector::{Class, Selector};
pub use status::{Actual, InterfaceStatus, WantedBy};
pub use switch::{Switch, SwitchTo};
pub use wanted::{AnnotationError, TooManySwitches, Verdict, Wanted};
pub use watch::{Change, Watch};

use crate::interfaces::config::InterfacesConfig;

/// Size of `struct ifinfomsg`, the family header of link messages.
const IFINFOMSG_BYTES: usize = 16;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name, unique within the namespace at one time.
    pub name: String,
    /// Ifindex, unique within the namespace at one time; it survives a rename.
    pub ifindex: u32,
    /// Maximum size of a network-layer packet in bytes.
    pub mtu: u32,
    /// True if the interface is administratively up (`IFF_UP`).
    pub up: bool,
    /// Kind of the device.
    pub kind: Kind,
    /// True if packets at its hooks begin with an Ethernet header, as on `lo`, and unlike on tun,
    /// WireGuard or IPIP devices.
    pub ethernet: bool,
    /// Location of the other end of a veth or netkit pair; `None` for other kinds, and while the
    /// kernel is still creating the pair.
    pub peer: Option<Peer>,
}

/// Location of the other end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The interface of this namespace with this ifindex.
    Ifindex(u32),
    /// In another network namespace, such as a pod's.
    OtherNamespace,
}

impl Interface {
    /// Describes an interface of which only the name is known, so that no kind matches it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ifindex: 0,
            mtu: 0,
            up: false,
            kind: Kind::Other("unknown".to_owned()),
            ethernet: true,
            peer: None,
        }
    }
}

/// Kind of a device, as far as it affects where to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An Ethernet device with hardware: a NIC, also that of a virtual machine.
    Physical,
    /// `lo`.
    Loopback,
    /// One end of a virtual cable, such as that of a pod.
    Veth,
    /// The node's end of a netkit pair.
    NetkitPrimary,
    /// A bridge.
    Bridge,
    /// Several devices combined (`bond`, `team`).
    Bond,
    /// An 802.1Q or 802.1ad subinterface.
    Vlan,
    /// A tunnel, with the kernel's name of the kind (`vxlan`, `wireguard`, …).
    Tunnel(String),
    /// Any other kind, with the kernel's name of it, or `unknown`.
    Other(String),
}

impl Kind {
    /// Derives the kind from `IFLA_INFO_KIND`, which devices with a hardware driver lack.
    fn new(info: &Info, flags: u32, hardware_type: u16) -> Self {
        const TUNNELS: [&str; 19] = [
            "bareudp",
            "erspan",
            "geneve",
            "gre",
            "gretap",
            "gtp",
            "ip6erspan",
            "ip6gre",
            "ip6gretap",
            "ip6tnl",
            "ipip",
            "sit",
            "tun",
            "vti",
            "vti6",
            "vxlan",
            "wireguard",
            "xfrm",
            "amt",
        ];
        match info.kind.as_deref() {
            _ if flags & libc::IFF_LOOPBACK as u32 != 0 => Self::Loopback,
            Some("veth") => Self::Veth,
            Some("netkit") if info.is_netkit_primary => Self::NetkitPrimary,
            Some("bridge") => Self::Bridge,
            Some("bond" | "team") => Self::Bond,
            Some("vlan") => Self::Vlan,
            Some(kind) if TUNNELS.contains(&kind) => Self::Tunnel(kind.to_owned()),
            Some(kind) => Self::Other(kind.to_owned()),
            None if hardware_type == libc::ARPHRD_ETHER => Self::Physical,
            None => Self::Other("unknown".to_owned()),
        }
    }
}

/// Names of the kinds that are one end of a pair, see [`Kind::is_pair`].
pub const PAIR_KINDS: [&str; 2] = ["veth", "netkit"];

impl Kind {
    /// Returns true for one end of a pair, of which there is one for each pod.
    #[must_use]
    pub const fn is_pair(&self) -> bool {
        matches!(self, Self::Veth | Self::NetkitPrimary)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Physical => "physical",
            Self::Loopback => "loopback",
            Self::Veth => PAIR_KINDS[0],
            Self::NetkitPrimary => PAIR_KINDS[1],
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Vlan => "vlan",
            Self::Tunnel(kind) | Self::Other(kind) => kind,
        })
    }
}

/// Returns every interface of this thread's network namespace, by ifindex.
///
/// # Errors
///
/// Fails if the kernel does not respond. It needs no privilege.
pub fn list() -> Result<Vec<Interface>, Error> {
    let request = Request::new(libc::RTM_GETLINK, 0, &[0; IFINFOMSG_BYTES]);
    let messages = Socket::open()?.dump(request)?;
    let mut interfaces: Vec<_> = messages
        .iter()
        .filter(|message| message.message_type == libc::RTM_NEWLINK)
        .filter_map(|message| parse(&message.payload))
        .collect();
    interfaces.sort_by_key(|interface| interface.ifindex);
    Ok(interfaces)
}

/// Packet counts of the device of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketCounts {
    /// Name of the interface.
    pub name: String,
    /// Its ifindex.
    pub ifindex: u32,
    /// True for one end of a pair, see [`Kind::is_pair`].
    pub is_pair: bool,
    /// Packets that arrived and that departed.
    pub packets: [u64; 2],
}

/// Returns the packet counts of all devices.
///
/// # Errors
///
/// The same as [`list`].
pub fn packet_counts() -> Result<Vec<PacketCounts>, Error> {
    let request = Request::new(libc::RTM_GETLINK, 0, &[0; IFINFOMSG_BYTES]);
    let messages = Socket::open()?.dump(request)?;
    let links = messages.into_iter().filter(|message| message.message_type == libc::RTM_NEWLINK);
    let counts = links.filter_map(|message| {
        let Interface { name, ifindex, kind, .. } = parse(&message.payload)?;
        let packets = device::Link::new(message.payload).packets();
        Some(PacketCounts { name, ifindex, is_pair: kind.is_pair(), packets })
    });
    Ok(counts.collect())
}

/// Returns the interface with this ifindex; `None` if there is none.
///
/// # Errors
///
/// Fails if the kernel does not respond. It needs no privilege.
pub fn get(ifindex: u32) -> Result<Option<Interface>, Error> {
    match device::link(&mut Socket::open()?, ifindex) {
        Ok(link) => Ok(link.parse()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The reason why a configuration selects an interface, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The first entry of `include` that selects it.
    Included(&'a Selector),
    /// The first entry of `exclude` that matches it.
    Excluded(&'a Selector),
    /// Only this kind matches, and packets of the device have no Ethernet header.
    NoEthernet(&'a Selector),
    /// Nothing matches.
    Unmatched,
}

impl<'a> Choice<'a> {
    /// Decides on an interface; exclusion takes precedence.
    #[must_use]
    pub fn of(config: &'a InterfacesConfig, interface: &Interface) -> Self {
        let excluded = config.exclude.iter().find(|selector| selector.matches(interface));
        let included = config.include.iter().find(|selector| selector.includes(interface));
        let matched = || config.include.iter().find(|selector| selector.matches(interface));
        match (excluded, included) {
            (Some(selector), _) => Self::Excluded(selector),
            (None, Some(selector)) => Self::Included(selector),
            (None, None) => matched().map_or(Self::Unmatched, Self::NoEthernet),
        }
    }
}

impl fmt::Display for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Included(selector) => write!(f, "by {selector}"),
            Self::Excluded(selector) => write!(f, "excluded by {selector}"),
            Self::NoEthernet(selector) => write!(f, "{selector}, but no Ethernet header"),
            Self::Unmatched => f.write_str("no match"),
        }
    }
}

/// Returns true if the configuration selects the interface; exclusion takes precedence.
#[must_use]
pub fn selects(config: &InterfacesConfig, interface: &Interface) -> bool {
    matches!(Choice::of(config, interface), Choice::Included(_))
}

/// Contents of `IFLA_LINKINFO`.
#[derive(Debug, Default)]
struct Info {
    kind: Option<String>,
    is_netkit_primary: bool,
}

impl Info {
    fn parse(value: &[u8]) -> Self {
        // linux/if_link.h
        const IFLA_NETKIT_PRIMARY: u16 = 2;
        let find = |within, wanted: u16| {
            attributes(within).find(|(inner_type, _)| *inner_type == wanted).map(|(_, value)| value)
        };
        let kind = find(value, libc::IFLA_INFO_KIND).map(text);
        let data = find(value, libc::IFLA_INFO_DATA).unwrap_or_default();
        let primary = find(data, IFLA_NETKIT_PRIMARY).and_then(<[u8]>::first);
        let is_netkit_primary = kind.as_deref() == Some("netkit") && primary == Some(&1);
        Self { kind, is_netkit_primary }
    }

    fn is_pair(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }
}

/// Parses a link message; returns `None` if it has no name.
fn parse(payload: &[u8]) -> Option<Interface> {
    // ifinfomsg: family u8 · padding · type u16 · index i32 · flags u32 · change u32
    let hardware_type = read_u16(payload, 2)?;
    let ifindex = read_u32(payload, 4)?;
    let flags = read_u32(payload, 8)?;
    let mut name = None;
    let mut mtu = 0;
    let mut info = Info::default();
    let (mut linked_to, mut other_namespace) = (None, false);
    for (attribute_type, value) in attributes(payload.get(IFINFOMSG_BYTES..)?) {
        match attribute_type {
            libc::IFLA_IFNAME => name = Some(text(value)),
            libc::IFLA_MTU => mtu = read_u32(value, 0)?,
            libc::IFLA_LINKINFO => info = Info::parse(value),
            libc::IFLA_LINK => linked_to = read_u32(value, 0).filter(|ifindex| *ifindex != 0),
            libc::IFLA_LINK_NETNSID => other_namespace = true,
            _ => {}
        }
    }
    // The kernel announces the end that it creates first before it knows the other one.
    let peer = match linked_to {
        _ if !info.is_pair() => None,
        _ if other_namespace => Some(Peer::OtherNamespace),
        other => other.map(Peer::Ifindex),
    };
    Some(Interface {
        name: name?,
        ifindex,
        mtu,
        up: flags & libc::IFF_UP as u32 != 0,
        kind: Kind::new(&info, flags, hardware_type),
        ethernet: matches!(hardware_type, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
        peer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::config::Directions;

    #[test]
    fn exclusion_wins_over_inclusion() {
        let patterns = |texts: &[&str]| texts.iter().map(|t| Selector::parse(t).unwrap()).collect();
        let config = InterfacesConfig {
            include: patterns(&["eth*", "veth[0-3]", "br-?"]),
            exclude: patterns(&["eth1*"]),
            directions: Directions::Both,
        };
        for (name, selected) in [
            ("eth0", true),
            ("eth", true),
            ("eth1", false),
            ("eth10", false),
            ("veth3", true),
            ("veth4", false),
            ("br-a", true),
            ("br-ab", false),
            ("lo", false),
        ] {
            assert_eq!(selects(&config, &Interface::named(name)), selected, "{name}");
        }
    }

    #[test]
    fn kinds_follow_the_kernels_names() {
        let info = |kind: Option<&str>| Info { kind: kind.map(str::to_owned), ..Info::default() };
        let kind = |name| Kind::new(&info(name), 0, libc::ARPHRD_ETHER);
        assert_eq!(kind(None), Kind::Physical);
        assert_eq!(kind(Some("veth")), Kind::Veth);
        assert_eq!(kind(Some("vxlan")), Kind::Tunnel("vxlan".to_owned()));
        assert_eq!(kind(Some("dummy")).to_string(), "dummy");
        assert_eq!(
            Kind::new(&info(None), libc::IFF_LOOPBACK as u32, libc::ARPHRD_LOOPBACK),
            Kind::Loopback
        );
    }

    /// A link message with these attributes.
    fn message(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut payload = vec![0; IFINFOMSG_BYTES];
        payload[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        payload[4..8].copy_from_slice(&7u32.to_ne_bytes());
        payload.extend(attributes_of(list));
        payload
    }

    fn attributes_of(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (attribute_type, value) in list {
            bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            bytes.extend(attribute_type.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// A veth or netkit end; `data` are the attributes of its kind.
    fn pair_end(kind: &str, data: &[(u16, Vec<u8>)], more: &[(u16, Vec<u8>)]) -> Interface {
        let info = attributes_of(&[
            (libc::IFLA_INFO_KIND, kind.as_bytes().to_vec()),
            (libc::IFLA_INFO_DATA, attributes_of(data)),
        ]);
        let common = [(libc::IFLA_IFNAME, b"x0\0".to_vec()), (libc::IFLA_LINKINFO, info)];
        parse(&message(&[&common[..], more].concat())).unwrap()
    }

    #[test]
    fn the_other_end_of_a_pair_is_here_or_in_another_namespace_or_not_known_yet() {
        let link = |ifindex: u32| (libc::IFLA_LINK, ifindex.to_ne_bytes().to_vec());
        let namespace = (libc::IFLA_LINK_NETNSID, 0u32.to_ne_bytes().to_vec());
        for (more, peer) in [
            (&[][..], None),
            (&[link(0)], None),
            (&[link(9)], Some(Peer::Ifindex(9))),
            (&[link(9), namespace.clone()], Some(Peer::OtherNamespace)),
            (&[namespace.clone(), link(9)], Some(Peer::OtherNamespace)),
        ] {
            assert_eq!(pair_end("veth", &[], more).peer, peer);
        }
        let vlan = pair_end("vlan", &[], &[link(9), namespace]);
        assert_eq!(vlan.peer, None, "its lower device is no other end");
    }

    #[test]
    fn the_two_ends_of_a_netkit_pair_differ() {
        let namespace = (libc::IFLA_LINK_NETNSID, 0u32.to_ne_bytes().to_vec());
        let end =
            |primary| pair_end("netkit", &[(2, vec![primary])], std::slice::from_ref(&namespace));
        assert_eq!((end(1).kind, end(1).peer), (Kind::NetkitPrimary, Some(Peer::OtherNamespace)));
        assert_eq!(end(0).kind, Kind::Other("netkit".to_owned()));
        assert_eq!(pair_end("netkit", &[], &[]).kind, Kind::Other("netkit".to_owned()));
    }

    #[test]
    fn a_choice_names_the_entry_that_decides() {
        let list = |texts: &[&str]| texts.iter().map(|t| Selector::parse(t).unwrap()).collect();
        let config = InterfacesConfig {
            include: list(&["kind:pods", "kind:tunnels", "x*"]),
            exclude: list(&["kind:veths", "y0"]),
            directions: Directions::Both,
        };
        let pod = Interface {
            kind: Kind::Veth,
            peer: Some(Peer::OtherNamespace),
            ..Interface::named("x0")
        };
        let tunnel =
            |name| Interface { kind: Kind::Tunnel("tun".to_owned()), ..Interface::named(name) };
        let raw = Interface { ethernet: false, ..tunnel("tun0") };
        for (interface, text) in [
            (&pod, "excluded by kind:veths"),
            (&tunnel("t0"), "by kind:tunnels"),
            (&tunnel("y0"), "excluded by y0"),
            (&raw, "kind:tunnels, but no Ethernet header"),
            (&Interface::named("x1"), "by x*"),
            (&Interface::named("z0"), "no match"),
        ] {
            assert_eq!(Choice::of(&config, interface).to_string(), text);
        }
    }

    #[test]
    fn the_loopback_interface_is_listed() {
        let interfaces = list().unwrap();
        let lo = interfaces.iter().find(|i| i.name == "lo").unwrap();
        assert_eq!((lo.ifindex, &lo.kind), (1, &Kind::Loopback));
        assert!(lo.mtu >= 1_500);
    }
}
