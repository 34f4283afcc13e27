//! The device of an interface: its driver, the devices that it is a part of, and its packet counts.

use std::{
    fmt,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{
    Error, IFINFOMSG_BYTES, Interface, Kind,
    netlink::{Request, Socket, attributes, read_u32, read_u64},
    parse,
};

/// The current state of the device of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name of its driver; `None` if it has none, or does not exist any more.
    pub driver: Option<String>,
    /// True if the link is up: enabled, and with a carrier.
    pub running: bool,
    /// The upper device that it is a part of.
    pub part_of: Option<Whole>,
    /// Name of the lower device whose packets it shows a part of, as a VLAN does.
    pub part_from: Option<String>,
    /// Packets that arrived and departed, as counted by the device. A TC hook may see several of
    /// them as one packet, where segments are already merged (GRO) or not yet split (GSO).
    pub packets: [u64; 2],
}

/// A device that others are parts of: each packet of a part passes it as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.kind {
            Kind::Bridge => "port",
            _ => "member",
        };
        write!(f, "{part} of {} {}", self.kind, self.name)
    }
}

impl Device {
    /// Queries the kernel; needs no privilege.
    ///
    /// # Errors
    ///
    /// Fails if the interface is gone, or the kernel does not respond.
    pub fn of(interface: &Interface) -> Result<Self, Error> {
        let mut socket = Socket::open()?;
        let link = link(&mut socket, interface.ifindex)?;
        let mut other = |ifindex: u32| self::link(&mut socket, ifindex).ok()?.parse();
        let part_of = link.number(libc::IFLA_MASTER).and_then(&mut other);
        let part_from = match interface.kind {
            // The peer of a veth; for a tunnel, the device that the outer packets leave by.
            Kind::Vlan if link.find(libc::IFLA_LINK_NETNSID).is_none() => {
                link.number(libc::IFLA_LINK).and_then(&mut other)
            }
            _ => None,
        };
        Ok(Self {
            driver: driver(&interface.name),
            running: link.is_running(),
            part_of: part_of.map(|whole| Whole { name: whole.name, kind: whole.kind }),
            part_from: part_from.map(|lower| lower.name),
            packets: link.packets(),
        })
    }
}

/// The kernel's description of one interface.
pub(crate) struct Link(Vec<u8>);

/// Queries one interface.
pub(crate) fn link(socket: &mut Socket, ifindex: u32) -> Result<Link, Error> {
    let mut header = [0; IFINFOMSG_BYTES];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let messages = socket.execute(Request::new(libc::RTM_GETLINK, 0, &header))?;
    let message = messages.into_iter().find(|m| m.message_type == libc::RTM_NEWLINK);
    message.map(|message| Link(message.payload)).ok_or(Error::Malformed)
}

impl Link {
    /// Wraps the payload of a link message.
    pub(crate) const fn new(payload: Vec<u8>) -> Self {
        Self(payload)
    }

    /// Returns the interface that it describes.
    pub(crate) fn parse(&self) -> Option<Interface> {
        parse(&self.0)
    }

    /// Returns the value of an attribute.
    pub(crate) fn find(&self, wanted: u16) -> Option<&[u8]> {
        attributes(self.0.get(IFINFOMSG_BYTES..)?)
            .find(|(attribute_type, _)| *attribute_type == wanted)
            .map(|(_, value)| value)
    }

    fn number(&self, wanted: u16) -> Option<u32> {
        read_u32(self.find(wanted)?, 0).filter(|number| *number != 0)
    }

    /// Returns the packets received and sent: the first two members of `struct rtnl_link_stats64`.
    pub(crate) fn packets(&self) -> [u64; 2] {
        let statistics = self.find(libc::IFLA_STATS64).unwrap_or_default();
        [0, 8].map(|offset| read_u64(statistics, offset).unwrap_or(0))
    }

    fn is_running(&self) -> bool {
        // ifinfomsg: the flags are at offset 8.
        let needed = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
        read_u32(&self.0, 8).is_some_and(|flags| flags & needed == needed)
    }
}

/// Returns the driver's name by ethtool: `/sys/class/net` may be of another namespace.
fn driver(interface: &str) -> Option<String> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_GDRVINFO: u32 = 3;
    /// `struct ethtool_drvinfo`, linux/ethtool.h.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    const _: () = assert!(size_of::<DriverInfo>() == 196);

    let socket: OwnedFd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    // Leave room for the NUL.
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        // Signed on x86-64, and not on arm64.
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request names an interface and points to a live structure of the command's size,
    // which the kernel may write.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    Errno::result(result).ok()?;
    let driver = super::text(&info.driver);
    (!driver.is_empty()).then_some(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_runs_and_is_part_of_nothing() {
        let lo = super::super::list().unwrap().into_iter().find(|i| i.name == "lo").unwrap();
        let device = Device::of(&lo).unwrap();
        assert_eq!((&device.part_of, &device.part_from), (&None, &None));
        assert_eq!(device.running, lo.up);
    }

    #[test]
    fn counts_and_state_are_read_where_the_kernel_puts_them() {
        let mut payload = vec![0; IFINFOMSG_BYTES];
        let running = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
        payload[8..12].copy_from_slice(&running.to_ne_bytes());
        for (attribute_type, value) in [
            (libc::IFLA_MASTER, 7u32.to_ne_bytes().to_vec()),
            (libc::IFLA_STATS64, [3u64, 5, 999].map(u64::to_ne_bytes).concat()),
        ] {
            let length = u16::try_from(4 + value.len()).unwrap();
            payload.extend(length.to_ne_bytes());
            payload.extend(attribute_type.to_ne_bytes());
            payload.extend(value);
        }
        let link = Link(payload);
        assert_eq!(link.packets(), [3, 5]);
        assert_eq!(link.number(libc::IFLA_MASTER), Some(7));
        assert!(link.is_running());
        assert_eq!(Link(vec![0; IFINFOMSG_BYTES]).packets(), [0, 0]);
    }

    #[test]
    fn an_upper_device_names_the_kind_of_its_parts() {
        let whole = |kind| Whole { name: "x0".to_owned(), kind }.to_string();
        assert_eq!(whole(Kind::Bridge), "port of bridge x0");
        assert_eq!(whole(Kind::Bond), "member of bond x0");
    }
}
