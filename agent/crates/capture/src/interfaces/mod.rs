//! Lists the network interfaces of the agent's namespace, and selects those to capture from.
//!
//! It queries rtnetlink, not `/sys/class/net`: in a container `/sys` belongs to the namespace in
//! which it was mounted, which need not be the one that the agent runs in.

pub mod config;
pub(crate) mod device;
mod names;
pub(crate) mod netlink;
mod status;
mod switch;
mod wanted;
mod watch;

use std::fmt;

use netlink::{Request, Socket, attributes, read_u16, read_u32, text};

pub use device::{Device, Whole};
pub use names::{Names, Since};
pub use netlink::Error;
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
    fn new(info_kind: Option<&str>, flags: u32, hardware_type: u16) -> Self {
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
        match info_kind {
            _ if flags & libc::IFF_LOOPBACK as u32 != 0 => Self::Loopback,
            Some("veth") => Self::Veth,
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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Physical => "physical",
            Self::Loopback => "loopback",
            Self::Veth => "veth",
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
        let Interface { name, ifindex, .. } = parse(&message.payload)?;
        Some(PacketCounts { name, ifindex, packets: device::Link::new(message.payload).packets() })
    });
    Ok(counts.collect())
}

/// Returns true if the configuration selects an interface of this name; exclusion takes precedence.
#[must_use]
pub fn selects(config: &InterfacesConfig, name: &str) -> bool {
    let matches = |patterns: &[glob::Pattern]| patterns.iter().any(|p| p.matches(name));
    matches(&config.include) && !matches(&config.exclude)
}

/// Parses a link message; returns `None` if it has no name.
fn parse(payload: &[u8]) -> Option<Interface> {
    // ifinfomsg: family u8 · padding · type u16 · index i32 · flags u32 · change u32
    let hardware_type = read_u16(payload, 2)?;
    let ifindex = read_u32(payload, 4)?;
    let flags = read_u32(payload, 8)?;
    let mut name = None;
    let mut mtu = 0;
    let mut info_kind = None;
    for (attribute_type, value) in attributes(payload.get(IFINFOMSG_BYTES..)?) {
        match attribute_type {
            libc::IFLA_IFNAME => name = Some(text(value)),
            libc::IFLA_MTU => mtu = read_u32(value, 0)?,
            libc::IFLA_LINKINFO => {
                info_kind = attributes(value)
                    .find(|(inner_type, _)| *inner_type == libc::IFLA_INFO_KIND)
                    .map(|(_, kind)| text(kind));
            }
            _ => {}
        }
    }
    Some(Interface {
        name: name?,
        ifindex,
        mtu,
        up: flags & libc::IFF_UP as u32 != 0,
        kind: Kind::new(info_kind.as_deref(), flags, hardware_type),
        ethernet: matches!(hardware_type, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
    })
}

#[cfg(test)]
mod tests {
    use glob::Pattern;

    use super::*;
    use crate::interfaces::config::Directions;

    #[test]
    fn exclusion_wins_over_inclusion() {
        let patterns = |texts: &[&str]| texts.iter().map(|t| Pattern::new(t).unwrap()).collect();
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
            assert_eq!(selects(&config, name), selected, "{name}");
        }
    }

    #[test]
    fn kinds_follow_the_kernels_names() {
        let kind = |info| Kind::new(info, 0, libc::ARPHRD_ETHER);
        assert_eq!(kind(None), Kind::Physical);
        assert_eq!(kind(Some("veth")), Kind::Veth);
        assert_eq!(kind(Some("vxlan")), Kind::Tunnel("vxlan".to_owned()));
        assert_eq!(kind(Some("dummy")).to_string(), "dummy");
        assert_eq!(
            Kind::new(None, libc::IFF_LOOPBACK as u32, libc::ARPHRD_LOOPBACK),
            Kind::Loopback
        );
    }

    #[test]
    fn the_loopback_interface_is_listed() {
        let interfaces = list().unwrap();
        let lo = interfaces.iter().find(|i| i.name == "lo").unwrap();
        assert_eq!((lo.ifindex, &lo.kind), (1, &Kind::Loopback));
        assert!(lo.mtu >= 1_500);
    }
}
