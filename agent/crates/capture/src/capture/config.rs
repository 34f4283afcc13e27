//! The `capture` section: hooks, ports, fragments, tunnels and rings.

use std::{collections::HashSet, num::NonZero, thread};

use clap::ValueEnum;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use tap53_base::settings::{Section, Value, boolean, choice, whole_number};
use tap53_ebpf::{
    headers::MULTICAST_PORTS,
    record::MAX_CAPTURED_LENGTH,
    settings::{PortSet, Ports, features},
};

use crate::interfaces::{Interface, Selector};

/// Maximum number of workers. Each costs a thread and a ring; beyond a few dozen, sharding by flow
/// hash gains nothing for DNS.
const MAX_WORKERS: u32 = 64;

/// Maximum of the default number of workers: on a node with another purpose, capture must not use
/// every CPU.
const MAX_AUTOMATIC_WORKERS: u32 = 8;

/// Minimum size of a ring in bytes: the smallest power of two that holds the largest ring item
/// (65,664 bytes, and 8 of the ring's own header).
const MIN_RING_BYTES: u32 = 128 << 10;

/// Maximum size of a ring in bytes: the kernel allows more, but a packet should not wait after a
/// gibibyte.
const MAX_RING_BYTES: u32 = 1 << 30;

/// Default size of a ring in bytes: at 208 bytes per query and 400 per response, and 8 more each for the
/// ring's own header, 13,400 transactions.
const DEFAULT_RING_BYTES: u32 = 8 << 20;

/// Default maximum of interfaces: kubelet runs 110 pods on a node by default, and 256 at most with
/// the usual pod network of a node. Each takes 2 × 136 bytes of counters on each CPU: 140 KiB.
const DEFAULT_MAX_INTERFACES: u32 = 512;

/// Upper bound of the maximum: it takes 18 MiB of counters on each CPU.
const MAX_INTERFACES: u32 = 65_536;

/// Ports with a name: multicast DNS (RFC 6762) and link-local multicast name resolution (RFC 4795),
/// which use the format of DNS.
const NAMED_PORTS: [(&str, u16); 2] = [("mdns", MULTICAST_PORTS[0]), ("llmnr", MULTICAST_PORTS[1])];

/// The port of RFC 7348 §8, and the default of Linux, which flannel and others use.
const DEFAULT_VXLAN_PORTS: [u16; 2] = [4789, 8472];

/// The port of RFC 8926 §10.
const DEFAULT_GENEVE_PORT: u16 = 6081;

/// Configures how packets are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaptureConfig {
    /// Hook for arriving packets.
    pub hook: HookChoice,
    /// Mode of XDP.
    pub xdp_mode: XdpMode,
    /// The way in which TC programs are attached.
    pub tc: TcChoice,
    /// UDP and TCP ports that carry DNS; sorted, without duplicates, none is 0, at least one.
    pub ports: Vec<u16>,
    /// True if later fragments of IP datagrams are captured too, for reassembly.
    pub fragments: bool,
    /// Interfaces on which tunnels are decapsulated; none by default.
    pub tunnels: Vec<TunnelRule>,
    /// UDP ports of VXLAN: sorted, without duplicates, at least one, disjoint from the other sets.
    pub vxlan_ports: Vec<u16>,
    /// UDP ports of Geneve, with the same rules.
    pub geneve_ports: Vec<u16>,
    /// Maximum number of bytes to copy of a packet, from the link layer on; 1 to
    /// [`MAX_CAPTURED_LENGTH`].
    pub snap_length: u32,
    /// Number of worker threads, each with its own ring; at least 1.
    pub workers: u32,
    /// Size of each worker's ring in bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Maximum number of interfaces at a time; at least 1.
    pub max_interfaces: u32,
    /// True if the kernel programs log rare conditions.
    pub kernel_log: bool,
}

/// Selects tunnel types to decapsulate on some interfaces. If several rules match an interface, all
/// of their types apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TunnelRule {
    /// Names and kinds of interfaces; at least one.
    pub interfaces: Vec<Selector>,
    /// Tunnel types; at least one.
    pub types: Vec<TunnelType>,
}

/// A tunnel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TunnelType {
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GRE (RFC 2784, RFC 2890).
    Gre,
    /// IPv4 and IPv6 in IP (RFC 2003, RFC 4213), as of Calico.
    Ipip,
}

impl TunnelType {
    /// Returns its bit in [`InterfaceSettings::features`](tap53_ebpf::settings::InterfaceSettings).
    const fn feature(self) -> u32 {
        match self {
            Self::Vxlan => features::VXLAN,
            Self::Geneve => features::GENEVE,
            Self::Gre => features::GRE,
            Self::Ipip => features::IPIP,
        }
    }
}

/// Hook for arriving packets. Departing packets are always captured at TC egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HookChoice {
    /// XDP on physical devices, TC elsewhere.
    Auto,
    /// XDP on every device, TC where the device does not support it; an error if the kernel accepts no
    /// XDP program.
    Xdp,
    /// TC on every device.
    Tc,
}

/// Mode of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver supports it, generic elsewhere.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

/// The way in which TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TcChoice {
    /// TCX links where the kernel supports them (6.6), filters of a clsact qdisc elsewhere.
    Auto,
    /// TCX links.
    Tcx,
    /// Filters of a clsact qdisc (kernel 4.5).
    Clsact,
}

impl CaptureConfig {
    /// Reads the section; `hook_flag` is `--hook`, which takes precedence.
    pub fn read(section: &mut Section<'_>, hook_flag: Option<HookChoice>) -> Self {
        let hook = section.read("hook", choice);
        let config = Self {
            hook: hook_flag.or(hook).unwrap_or(HookChoice::Auto),
            xdp_mode: section.read("xdp_mode", choice).unwrap_or(XdpMode::Auto),
            tc: section.read("tc", choice).unwrap_or(TcChoice::Auto),
            ports: ports(section, "ports", &[53], dns_port),
            fragments: section.read("fragments", boolean).unwrap_or(true),
            tunnels: section.sections("tunnels", TunnelRule::read),
            vxlan_ports: ports(section, "vxlan_ports", &DEFAULT_VXLAN_PORTS, port),
            geneve_ports: ports(section, "geneve_ports", &[DEFAULT_GENEVE_PORT], port),
            snap_length: section
                .read("snap_length", whole_number(1..=MAX_CAPTURED_LENGTH))
                .unwrap_or(MAX_CAPTURED_LENGTH),
            workers: section
                .read("workers", whole_number(0..=MAX_WORKERS))
                .filter(|workers| *workers != 0)
                .unwrap_or_else(automatic_workers),
            ring_bytes: section.read("ring_bytes", ring_bytes).unwrap_or(DEFAULT_RING_BYTES),
            max_interfaces: section
                .read("max_interfaces", whole_number(1..=MAX_INTERFACES))
                .unwrap_or(DEFAULT_MAX_INTERFACES),
            kernel_log: section.read("kernel_log", boolean).unwrap_or(false),
        };
        refuse_shared_ports(section, "vxlan_ports", &config.vxlan_ports, &config.ports, "ports");
        for (others, key) in [(&config.ports, "ports"), (&config.vxlan_ports, "vxlan_ports")] {
            refuse_shared_ports(section, "geneve_ports", &config.geneve_ports, others, key);
        }
        config
    }

    /// Returns the port sets, for the kernel programs and for readers of capture files.
    #[must_use]
    pub fn port_sets(&self) -> Ports {
        let mut sets = Ports::default();
        for (set, ports) in [
            (PortSet::Dns, &self.ports),
            (PortSet::Vxlan, &self.vxlan_ports),
            (PortSet::Geneve, &self.geneve_ports),
        ] {
            for port in ports {
                sets.insert(set, *port);
            }
        }
        sets
    }

    /// Returns the features that are enabled on an interface: bits of [`features`].
    #[must_use]
    pub fn features_of(&self, interface: &Interface) -> u32 {
        let fragments = if self.fragments { features::FRAGMENTS } else { 0 };
        self.tunnels
            .iter()
            .filter(|rule| rule.interfaces.iter().any(|selector| selector.matches(interface)))
            .flat_map(|rule| &rule.types)
            .fold(fragments, |bits, tunnel| bits | tunnel.feature())
    }
}

impl TunnelRule {
    fn read(section: &mut Section<'_>) -> Self {
        for key in ["interfaces", "types"] {
            if !section.has(key) {
                section.refuse(key, None, "missing");
            }
        }
        let mut types: Vec<TunnelType> = section.read_some("types", choice).unwrap_or_default();
        types.sort_unstable_by_key(|tunnel| tunnel.feature());
        types.dedup();
        Self {
            interfaces: section.read_some("interfaces", Selector::read).unwrap_or_default(),
            types,
        }
    }
}

/// Reads a list of ports; returns it sorted and without duplicates.
fn ports(
    section: &mut Section<'_>,
    key: &str,
    default: &[u16],
    check: impl Fn(&Value) -> Result<u16, String>,
) -> Vec<u16> {
    let mut ports = section.read_some(key, check).unwrap_or_else(|| default.to_vec());
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn port(value: &Value) -> Result<u16, String> {
    whole_number(1..=u16::MAX)(value)
}

/// Reads a port by its number, or one of [`NAMED_PORTS`].
fn dns_port(value: &Value) -> Result<u16, String> {
    let named = match value {
        Value::Text(text) => NAMED_PORTS.iter().find(|(name, _)| name == text),
        _ => None,
    };
    named.map_or_else(
        || port(value).map_err(|reason| format!("{reason}, or one of mdns, llmnr")),
        |(_, port)| Ok(*port),
    )
}

/// Reads a DNS port of a flag: its number, or a name that [`CaptureConfig::ports`] accepts.
///
/// # Errors
/// Returns the expected format.
pub fn port_of_flag(text: &str) -> Result<u16, String> {
    let number = text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer);
    dns_port(&number)
}

/// Refuses a port in two sets: a packet cannot have two protocols.
fn refuse_shared_ports(
    section: &mut Section<'_>,
    key: &str,
    ports: &[u16],
    others: &[u16],
    others_key: &str,
) {
    let taken: HashSet<&u16> = others.iter().collect();
    if let Some(port) = ports.iter().find(|port| taken.contains(port)) {
        section.refuse(key, Some(port.to_string()), format!("is in {others_key} as well"));
    }
}

fn automatic_workers() -> u32 {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cpus).map_or(MAX_AUTOMATIC_WORKERS, |cpus| cpus.min(MAX_AUTOMATIC_WORKERS))
}

/// Checks the kernel's rules for a ring (`ringbuf_map_alloc`): a power of two, in whole pages.
fn ring_bytes(value: &Value) -> Result<u32, String> {
    let bytes = whole_number(MIN_RING_BYTES..=MAX_RING_BYTES)(value)?;
    if !bytes.is_power_of_two() {
        return Err(format!(
            "must be a power of two, such as {}",
            bytes.next_power_of_two().min(MAX_RING_BYTES)
        ));
    }
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u32::try_from(bytes).ok())
        .unwrap_or(4096);
    if !bytes.is_multiple_of(page_bytes) {
        return Err(format!("must be a multiple of the page size, {page_bytes}"));
    }
    Ok(bytes)
}
