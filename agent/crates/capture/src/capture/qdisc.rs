//! Rtnetlink requests for qdiscs and BPF filters.
//!
//! The clsact qdisc (kernel 4.5) has a list of filters for each direction, in order of their
//! priority. Constants are from linux/pkt_sched.h and linux/pkt_cls.h.

use std::os::fd::{AsRawFd, BorrowedFd};

use tap53_ebpf::settings::Direction;

use crate::interfaces::{
    Error,
    netlink::{Message, Request, Socket, attributes, flag, read_u32, text},
};

/// `TC_H_MAKE(TC_H_CLSACT, 0)`: the handle of clsact, and of its predecessor ingress.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `TC_H_CLSACT`: the parent of both.
const CLSACT_PARENT: u32 = 0xffff_fff1;

const TCMSG_BYTES: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program's return value is the verdict; no actions are run.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// Protocol of a filter that sees every packet: `ETH_P_ALL`, linux/if_ether.h.
pub(super) const ALL_PROTOCOLS: u16 = 3u16.to_be();

/// The qdisc at the parent of clsact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qdisc {
    /// None.
    Absent,
    /// clsact, created by us or by others.
    Clsact,
    /// ingress, which has no egress side and excludes clsact.
    Ingress,
}

/// A filter of a clsact or ingress qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Side of the qdisc.
    pub direction: Direction,
    /// Kind, such as `bpf` or `flower`.
    pub kind: String,
    /// Priority: the lowest runs first.
    pub priority: u16,
    /// Ethernet protocol in network byte order.
    pub protocol: u16,
    /// Handle within the priority; never 0.
    pub handle: u32,
    /// Name of a BPF filter.
    pub name: Option<String>,
    /// Program of a BPF filter.
    pub program_id: Option<u32>,
}

/// The `tcmsg` at the start of each message.
#[derive(Clone, Copy)]
struct Tcmsg {
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Tcmsg {
    fn to_bytes(self) -> [u8; TCMSG_BYTES] {
        let mut bytes = [0; TCMSG_BYTES];
        for (field, at) in [(self.ifindex, 4), (self.handle, 8), (self.parent, 12), (self.info, 16)]
        {
            bytes[at..at + 4].copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn read(message: &Message) -> Option<Self> {
        let field = |at| read_u32(&message.payload, at);
        Some(Self { ifindex: field(4)?, handle: field(8)?, parent: field(12)?, info: field(16)? })
    }
}

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS or TC_H_MIN_EGRESS)`.
fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

fn info(priority: u16, protocol: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(protocol)
}

/// Lists the interfaces that have a clsact or ingress qdisc, with the qdisc.
pub(super) fn list(socket: &mut Socket) -> Result<Vec<(u32, Qdisc)>, Error> {
    let header = Tcmsg { ifindex: 0, handle: 0, parent: 0, info: 0 };
    let messages = socket.dump(Request::new(libc::RTM_GETQDISC, 0, &header.to_bytes()))?;
    Ok(messages
        .iter()
        .filter_map(|message| {
            let header = Tcmsg::read(message)?;
            if header.handle != CLSACT_HANDLE {
                return None;
            }
            let qdisc = match kind(message)?.as_str() {
                "clsact" => Qdisc::Clsact,
                "ingress" => Qdisc::Ingress,
                _ => return None,
            };
            Some((header.ifindex, qdisc))
        })
        .collect())
}

/// Returns the clsact or ingress qdisc of one interface.
pub(super) fn get(socket: &mut Socket, ifindex: u32) -> Result<Qdisc, Error> {
    let found = list(socket)?.into_iter().find(|(of, _)| *of == ifindex);
    Ok(found.map_or(Qdisc::Absent, |(_, qdisc)| qdisc))
}

/// Creates a clsact qdisc; returns EEXIST if there is one.
pub(super) fn create(socket: &mut Socket, ifindex: u32) -> Result<(), Error> {
    let header = clsact(ifindex);
    let request =
        Request::new(libc::RTM_NEWQDISC, flag::CREATE | flag::EXCLUSIVE, &header.to_bytes());
    let request = request.attribute(TCA_KIND, b"clsact\0");
    socket.execute(request).map(drop)
}

/// Removes the clsact qdisc with all its filters.
pub(super) fn delete(socket: &mut Socket, ifindex: u32) -> Result<(), Error> {
    let header = clsact(ifindex);
    let request = Request::new(libc::RTM_DELQDISC, 0, &header.to_bytes());
    socket.execute(request).map(drop)
}

fn clsact(ifindex: u32) -> Tcmsg {
    Tcmsg { ifindex, handle: CLSACT_HANDLE, parent: CLSACT_PARENT, info: 0 }
}

/// Returns the filters of both directions.
pub(super) fn filters(socket: &mut Socket, ifindex: u32) -> Result<Vec<Filter>, Error> {
    let mut filters = Vec::new();
    for direction in Direction::ALL {
        let header = Tcmsg { ifindex, handle: 0, parent: parent(direction), info: 0 };
        let request = Request::new(libc::RTM_GETTFILTER, 0, &header.to_bytes());
        let messages = match socket.dump(request) {
            // The ingress qdisc has no egress side.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
            other => other?,
        };
        filters.extend(messages.iter().filter_map(|message| read(message, direction)));
    }
    Ok(filters)
}

/// Adds a BPF filter for all packets, and returns it with the handle that the kernel has assigned.
pub(super) fn add_filter(
    socket: &mut Socket,
    ifindex: u32,
    direction: Direction,
    priority: u16,
    name: &str,
    program: BorrowedFd<'_>,
) -> Result<Filter, Error> {
    let header = Tcmsg {
        ifindex,
        handle: 0,
        parent: parent(direction),
        info: info(priority, ALL_PROTOCOLS),
    };
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    let request = Request::new(
        libc::RTM_NEWTFILTER,
        flag::CREATE | flag::EXCLUSIVE | flag::ECHO,
        &header.to_bytes(),
    );
    let request = request.attribute(TCA_KIND, b"bpf\0").nested(TCA_OPTIONS, |options| {
        options
            .attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
            .attribute(TCA_BPF_NAME, &name)
            .attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes())
    });
    socket
        .execute(request)?
        .iter()
        .find_map(|message| read(message, direction))
        .ok_or(Error::Malformed)
}

/// Removes one filter.
pub(super) fn delete_filter(
    socket: &mut Socket,
    ifindex: u32,
    filter: &Filter,
) -> Result<(), Error> {
    // Handle 0 would remove every filter of the priority, including those of others.
    assert_ne!(filter.handle, 0, "a filter without a handle");
    let header = Tcmsg {
        ifindex,
        handle: filter.handle,
        parent: parent(filter.direction),
        info: info(filter.priority, filter.protocol),
    };
    let request = Request::new(libc::RTM_DELTFILTER, 0, &header.to_bytes());
    socket.execute(request).map(drop)
}

fn kind(message: &Message) -> Option<String> {
    attributes(message.payload.get(TCMSG_BYTES..)?)
        .find(|(attribute_type, _)| *attribute_type == TCA_KIND)
        .map(|(_, value)| text(value))
}

/// Parses a filter message; returns `None` for one that describes a whole priority (handle 0).
fn read(message: &Message, direction: Direction) -> Option<Filter> {
    let header = Tcmsg::read(message)?;
    if message.message_type != libc::RTM_NEWTFILTER || header.handle == 0 {
        return None;
    }
    let mut filter = Filter {
        direction,
        kind: kind(message)?,
        priority: u16::try_from(header.info >> 16).ok()?,
        protocol: u16::try_from(header.info & 0xffff).ok()?,
        handle: header.handle,
        name: None,
        program_id: None,
    };
    if filter.kind == "bpf" {
        let options = attributes(message.payload.get(TCMSG_BYTES..)?)
            .find(|(attribute_type, _)| *attribute_type == TCA_OPTIONS)
            .map_or(&[][..], |(_, value)| value);
        for (attribute_type, value) in attributes(options) {
            match attribute_type {
                TCA_BPF_NAME => filter.name = Some(text(value)),
                TCA_BPF_ID => filter.program_id = read_u32(value, 0),
                _ => {}
            }
        }
    }
    Some(filter)
}
