//! Who holds the hooks of an interface: for error messages, and for `tap53 interfaces`.

use std::fmt;

use tap53_ebpf::settings::Direction;

use super::{
    Error, bpf,
    hook::{Hook, Plan},
    qdisc::{self, Filter, Qdisc},
};
use crate::{
    config::{CaptureConfig, TcChoice},
    interfaces::{
        Error as NetlinkError, Interface,
        netlink::{Request, Socket, attributes, read_u32},
    },
};

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The kernel's number for it.
    pub id: u32,
    /// Its name, at most 15 bytes; `None` if it has none, or if we may not ask, which takes
    /// CAP_SYS_ADMIN.
    pub name: Option<String>,
}

impl Program {
    fn new(id: u32) -> Self {
        Self { id, name: bpf::program_name(id).ok().filter(|name| !name.is_empty()) }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "program {} `{name}`", self.id),
            None => write!(f, "program {}", self.id),
        }
    }
}

/// Mode in which XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttached {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// In the device.
    Offloaded,
}

impl fmt::Display for XdpAttached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        })
    }
}

/// Who holds the hooks of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// XDP programs by mode; usually at most one.
    pub xdp: Vec<(XdpAttached, Program)>,
    /// TCX programs of ingress and egress in the order in which they run; `None` where the kernel
    /// has no TCX, or does not let us ask.
    pub tcx: Option<[Vec<Program>; 2]>,
    /// The qdisc in clsact's place.
    pub qdisc: Qdisc,
    /// Its filters.
    pub filters: Vec<Filter>,
}

impl Holders {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`] if it is gone, [`Error::Netlink`] if the kernel does not answer.
    /// Listing TCX programs needs CAP_NET_ADMIN; without it they are left out.
    pub fn of(interface: &Interface) -> Result<Self, Error> {
        let failed = |error| Error::netlink(&interface.name, "asking who holds the hooks", error);
        let mut socket = Socket::open().map_err(failed)?;
        let qdisc = qdisc::get(&mut socket, interface.ifindex).map_err(failed)?;
        Ok(Self {
            xdp: xdp(&mut socket, interface.ifindex).map_err(failed)?,
            tcx: tcx(interface.ifindex),
            qdisc,
            filters: match qdisc {
                Qdisc::Absent => Vec::new(),
                _ => qdisc::filters(&mut socket, interface.ifindex).map_err(failed)?,
            },
        })
    }

    /// Who holds XDP, in words; `None` if nobody does.
    #[must_use]
    pub fn describe_xdp(&self) -> Option<String> {
        let holders: Vec<_> =
            self.xdp.iter().map(|(mode, program)| format!("{program} in {mode} mode")).collect();
        (!holders.is_empty()).then(|| holders.join(", "))
    }

    /// The hooks that a direction would be captured at, best first: all that may be tried, without
    /// those that are known to be taken.
    #[must_use]
    pub fn candidates(
        &self,
        config: &CaptureConfig,
        interface: &Interface,
        direction: Direction,
    ) -> Vec<Hook> {
        let mut hooks = Vec::new();
        if direction == Direction::Ingress && self.xdp.is_empty() {
            hooks.extend(Plan::new(config, &interface.kind).xdp);
        }
        match (config.tc, self.tcx.is_some()) {
            (TcChoice::Tcx, _) | (TcChoice::Auto, true) => hooks.push(Hook::Tcx),
            (TcChoice::Clsact, _) | (TcChoice::Auto, false) => hooks.push(Hook::Clsact),
        }
        hooks
    }
}

/// The programs of both TCX hooks, by asking: kernels without TCX refuse the question.
fn tcx(ifindex: u32) -> Option<[Vec<Program>; 2]> {
    let programs = |direction| {
        let ids = bpf::tcx_programs(ifindex, direction).ok()?;
        Some(ids.into_iter().map(Program::new).collect())
    };
    Some([programs(Direction::Ingress)?, programs(Direction::Egress)?])
}

/// The XDP programs that a link message tells of (linux/if_link.h).
fn xdp(socket: &mut Socket, ifindex: u32) -> Result<Vec<(XdpAttached, Program)>, NetlinkError> {
    const IFINFOMSG_BYTES: usize = 16;
    const IFLA_XDP_DRV_PROG_ID: u16 = 5;
    const IFLA_XDP_SKB_PROG_ID: u16 = 6;
    const IFLA_XDP_HW_PROG_ID: u16 = 7;
    let mut header = [0; IFINFOMSG_BYTES];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let messages = socket.execute(Request::new(libc::RTM_GETLINK, 0, &header))?;
    let mut holders = Vec::new();
    for message in &messages {
        let link = message.payload.get(IFINFOMSG_BYTES..).unwrap_or_default();
        let xdp = attributes(link)
            .find(|(attribute_type, _)| *attribute_type == libc::IFLA_XDP)
            .map_or(&[][..], |(_, value)| value);
        for (attribute_type, value) in attributes(xdp) {
            let mode = match attribute_type {
                IFLA_XDP_DRV_PROG_ID => XdpAttached::Native,
                IFLA_XDP_SKB_PROG_ID => XdpAttached::Generic,
                IFLA_XDP_HW_PROG_ID => XdpAttached::Offloaded,
                _ => continue,
            };
            if let Some(id) = read_u32(value, 0) {
                holders.push((mode, Program::new(id)));
            }
        }
    }
    Ok(holders)
}
