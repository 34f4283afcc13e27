//! Owners of the hooks of an interface, for error messages and for `tap53 interfaces`.

use std::{
    fmt,
    io::{self, ErrorKind},
};

use tap53_ebpf::settings::Direction;

use super::{
    Error, bpf,
    qdisc::{self, Filter, Qdisc},
};
use crate::interfaces::{
    Interface,
    device::{self, Link},
    netlink::{Socket, attributes, read_u32},
};

/// Name of the program with which libxdp occupies the slot, and which calls several others in turn.
const DISPATCHER: &str = "xdp_dispatcher";

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The kernel's id.
    pub id: u32,
    /// Its name, at most 15 bytes; `None` if it has none, or if reading it needs CAP_SYS_ADMIN and
    /// that is missing.
    pub name: Option<String>,
}

impl Program {
    pub(super) fn new(id: u32) -> Self {
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

/// The mode in which XDP is attached.
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

/// The programs and filters at the hooks of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOwners {
    /// XDP programs by mode; usually at most one.
    pub xdp: Vec<(XdpAttached, Program)>,
    /// TCX programs of ingress and egress in the order in which they run; `None` if the kernel has
    /// no TCX, or denies the query.
    pub tcx: Option<[Vec<Program>; 2]>,
    /// True if the kernel denies the query for TCX programs, which needs CAP_NET_ADMIN.
    pub tcx_hidden: bool,
    /// The clsact or ingress qdisc.
    pub qdisc: Qdisc,
    /// The filters of the qdisc.
    pub filters: Vec<Filter>,
}

impl HookOwners {
    /// Queries the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`] if the interface is gone, [`Error::Netlink`] if the kernel does
    /// not respond. Listing TCX programs needs CAP_NET_ADMIN; without it they are omitted.
    pub fn of(interface: &Interface) -> Result<Self, Error> {
        let failed =
            |error| Error::netlink(&interface.name, "querying the owners of the hooks", error);
        let mut socket = Socket::open().map_err(failed)?;
        let qdisc = qdisc::get(&mut socket, interface.ifindex).map_err(failed)?;
        let tcx = tcx(interface.ifindex);
        Ok(Self {
            xdp: device::link(&mut socket, interface.ifindex)
                .map_err(failed)?
                .xdp()
                .into_iter()
                .map(|(mode, id)| (mode, Program::new(id)))
                .collect(),
            tcx_hidden: tcx
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied),
            tcx: tcx.ok(),
            qdisc,
            filters: match qdisc {
                Qdisc::Absent => Vec::new(),
                _ => qdisc::filters(&mut socket, interface.ifindex).map_err(failed)?,
            },
        })
    }

    /// Describes the XDP programs; returns `None` if there are none.
    #[must_use]
    pub fn describe_xdp(&self) -> Option<String> {
        let describe = |(mode, program): &(XdpAttached, Program)| {
            let dispatcher = match program.name.as_deref() {
                Some(DISPATCHER) => " (libxdp's dispatcher)",
                _ => "",
            };
            format!("{program}{dispatcher} in {mode} mode")
        };
        let owners: Vec<_> = self.xdp.iter().map(describe).collect();
        (!owners.is_empty()).then(|| owners.join(", "))
    }
}

/// Queries the programs of both TCX hooks; kernels without TCX refuse it.
fn tcx(ifindex: u32) -> io::Result<[Vec<Program>; 2]> {
    let programs = |direction| {
        let ids = bpf::tcx_programs(ifindex, direction)?;
        io::Result::Ok(ids.into_iter().map(Program::new).collect())
    };
    Ok([programs(Direction::Ingress)?, programs(Direction::Egress)?])
}

impl HookOwners {
    /// Describes all programs and filters, TCX programs and filters in the order in which they run;
    /// returns `None` if there are none.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let mut held: Vec<String> = Vec::new();
        held.extend(self.describe_xdp().map(|xdp| format!("xdp: {xdp}")));
        for (direction, programs) in Direction::ALL.iter().zip(self.tcx.iter().flatten()) {
            let direction = direction.name();
            held.extend(programs.iter().map(|program| format!("tcx {direction}: {program}")));
        }
        for filter in &self.filters {
            let name = filter.name.as_deref().unwrap_or(&filter.kind);
            held.push(format!("tc {}: {name}", filter.direction.name()));
        }
        (!held.is_empty()).then(|| held.join(", "))
    }
}

impl Link {
    /// Returns the ids of the XDP programs in a link message (linux/if_link.h).
    pub(super) fn xdp(&self) -> Vec<(XdpAttached, u32)> {
        const IFLA_XDP_DRV_PROG_ID: u16 = 5;
        const IFLA_XDP_SKB_PROG_ID: u16 = 6;
        const IFLA_XDP_HW_PROG_ID: u16 = 7;
        attributes(self.find(libc::IFLA_XDP).unwrap_or_default())
            .filter_map(|(attribute_type, value)| {
                let mode = match attribute_type {
                    IFLA_XDP_DRV_PROG_ID => XdpAttached::Native,
                    IFLA_XDP_SKB_PROG_ID => XdpAttached::Generic,
                    IFLA_XDP_HW_PROG_ID => XdpAttached::Offloaded,
                    _ => return None,
                };
                Some((mode, read_u32(value, 0)?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatcher_is_known_by_its_name() {
        let held_by = |name: &str| {
            let program = Program { id: 7, name: Some(name.to_owned()) };
            HookOwners {
                xdp: vec![(XdpAttached::Native, program)],
                tcx: None,
                tcx_hidden: false,
                qdisc: Qdisc::Absent,
                filters: Vec::new(),
            }
            .describe_xdp()
            .unwrap()
        };
        assert_eq!(
            held_by("xdp_dispatcher"),
            "program 7 `xdp_dispatcher` (libxdp's dispatcher) in native mode"
        );
        assert_eq!(held_by("cil_xdp_entry"), "program 7 `cil_xdp_entry` in native mode");
    }
}
