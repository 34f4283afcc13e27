//! Network namespaces and the veth pairs that join them.
//!
//! The pairs are silent: no ARP, no neighbour discovery, no multicast reports. So every packet on
//! them is one that a test sent or provoked, and packet counts can be compared exactly.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    process::{self, Command},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::{process::run, scratch};

/// Directory in which iproute2 keeps the names of network namespaces.
const NETNS_DIRECTORY: &str = "/run/netns";

/// A network namespace; dropping it removes it, with every interface in it.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Creates an empty namespace with its loopback up.
    ///
    /// The first call in a process also removes what processes that were killed have left.
    ///
    /// # Errors
    /// Without root, or where network namespaces are not to be had.
    pub fn new() -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        crate::require_root()?;
        SWEEP.call_once(sweep);

        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", scratch::PREFIX, process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NETNS_DIRECTORY).join(&name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let namespace = Self { name, file };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A descriptor of the namespace, for setns(2).
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// A command that will run `program` in this namespace, with its own view of `/sys/class/net`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }

    /// Runs `ip` with `arguments` in this namespace and returns its output.
    ///
    /// # Errors
    /// When `ip` refuses; with its message.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Runs `tc` with `arguments` in this namespace and returns its output.
    ///
    /// # Errors
    /// When `tc` refuses; with its message.
    pub fn tc(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("tc").args(["-n", &self.name]).args(arguments))
    }

    /// Calls `work` on a thread inside this namespace. A socket that it opens stays in the
    /// namespace, whichever thread uses it afterwards.
    ///
    /// # Errors
    /// Those of `work`, and of setns(2).
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("enter namespace {}", self.name))?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// The kernel's description of an interface: `ip -json -details -statistics link show`.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn link(&self, interface: &str) -> Result<Value> {
        let arguments = ["-j", "-d", "-s", "link", "show", "dev", interface];
        let links: Value = serde_json::from_str(&self.ip(&arguments)?)?;
        Ok(links[0].clone())
    }

    /// Packets that the interface itself counted.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn packets(&self, interface: &str) -> Result<PacketCounts> {
        let link = self.link(interface)?;
        let count = |direction: &str| {
            link["stats64"][direction]["packets"]
                .as_u64()
                .with_context(|| format!("{interface} has no {direction} packet count"))
        };
        Ok(PacketCounts { received: count("rx")?, sent: count("tx")? })
    }
}

impl Namespace {
    /// Returns the names of the namespaces that this process has created and that still exist.
    ///
    /// # Errors
    /// When the directory of names cannot be read.
    pub fn left_by_this_process() -> Result<Vec<String>> {
        let own = format!("{}{}-", scratch::PREFIX, process::id());
        let mut left = Vec::new();
        for entry in fs::read_dir(NETNS_DIRECTORY).context("list network namespaces")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&own) {
                left.push(name);
            }
        }
        Ok(left)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing to be done about a failure here; the next run sweeps.
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// An interface's own packet counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCounts {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
}

/// Removes what processes that no longer exist have left.
pub(crate) fn sweep() {
    for entry in fs::read_dir(NETNS_DIRECTORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if scratch::is_stale(&name) {
            // Another process may sweep at the same time.
            let _ = run(Command::new("ip").args(["netns", "delete"]).arg(&name));
        }
    }
    scratch::sweep();
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Interface name.
    pub interface: &'static str,
    /// Link-layer address.
    pub mac: [u8; 6],
    /// IPv4 address in a /24.
    pub ipv4: Ipv4Addr,
    /// IPv6 address in a /64.
    pub ipv6: Ipv6Addr,
}

/// The usual client's end: addresses of the documentation ranges (RFC 5737, RFC 3849).
pub const CLIENT_END: End = End {
    interface: "c0",
    mac: [0x02, 0, 0, 0, 0x53, 0x01],
    ipv4: Ipv4Addr::new(198, 51, 100, 1),
    ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
};

/// The usual server's end.
pub const SERVER_END: End = End {
    interface: "s0",
    mac: [0x02, 0, 0, 0, 0x53, 0x02],
    ipv4: Ipv4Addr::new(198, 51, 100, 2),
    ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
};

/// Joins two namespaces by a veth pair with addresses on both ends, up and ready to use. The pair
/// goes away with either namespace.
///
/// # Errors
/// When a name is taken, or the kernel has no veth.
pub fn join(near: (&Namespace, End), far: (&Namespace, End), mtu_bytes: u32) -> Result<()> {
    let mtu = mtu_bytes.to_string();
    let ((near_space, near_end), (far_space, far_end)) = (near, far);
    #[rustfmt::skip]
    run(Command::new("ip").args([
        "link", "add", near_end.interface, "netns", near_space.name(), "mtu", &mtu,
        "type", "veth",
        "peer", "name", far_end.interface, "netns", far_space.name(), "mtu", &mtu,
    ]))?;
    configure(near_space, near_end, far_end)?;
    configure(far_space, far_end, near_end)
}

/// Takes a link down at one end: neither end has a carrier then, and packets are lost.
///
/// # Errors
/// When there is no such interface.
pub fn cut(space: &Namespace, end: End) -> Result<()> {
    space.ip(&["link", "set", end.interface, "down"]).map(drop)
}

/// Takes a link up again that was [`cut`] at the near end. (An interface that goes down forgets its
/// neighbours and IPv6 addresses; IPv4 is what is back.)
///
/// # Errors
/// See [`cut`].
pub fn mend(near: (&Namespace, End), far: (&Namespace, End)) -> Result<()> {
    near.0.ip(&["link", "set", near.1.interface, "up"])?;
    introduce(near.0, near.1, &far.1.ipv4.to_string(), far.1.mac)?;
    introduce(far.0, far.1, &near.1.ipv4.to_string(), near.1.mac)
}

fn introduce(space: &Namespace, own: End, address: &str, mac: [u8; 6]) -> Result<()> {
    let mac = mac_text(mac);
    #[rustfmt::skip]
    space.ip(&[
        "neighbour", "replace", address, "lladdr", &mac, "dev", own.interface, "nud", "permanent",
    ])?;
    Ok(())
}

fn configure(space: &Namespace, own: End, peer: End) -> Result<()> {
    let interface = own.interface;
    let mac = mac_text(own.mac);
    // `arp off` also keeps IPv6 from joining solicited-node groups, whose multicast reports would
    // come at random times; `addrgenmode none` leaves no link-local address to advertise.
    space.ip(&["link", "set", interface, "address", &mac, "arp", "off", "addrgenmode", "none"])?;
    let (ipv4, ipv6) = (format!("{}/24", own.ipv4), format!("{}/64", own.ipv6));
    space.ip(&["address", "add", &ipv4, "dev", interface])?;
    space.ip(&["address", "add", &ipv6, "dev", interface, "nodad"])?;
    space.ip(&["link", "set", interface, "up"])?;
    for address in [peer.ipv4.to_string(), peer.ipv6.to_string()] {
        introduce(space, own, &address, peer.mac)?;
    }
    Ok(())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
