//! The namespaces of nodes and pods, and what joins them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::NETWORK_IP;
use crate::{http, namespace::Namespace, process::run};

/// Metrics of an agent, in the namespace of its node.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9530);

const BRIDGE: &str = "lan0";
/// The interface of a node, of the upstream resolver and, in its own namespace, of a pod.
const INTERFACE: &str = "eth0";
/// Gateway that every pod of a node has, as with the plugin `ptp`.
const GATEWAY_HOST: u8 = 1;
const FIRST_POD_HOST: u8 = 2;

/// A node: a namespace with a device towards the other node.
pub struct Node {
    /// Name of the node, `node-1` or `node-2`.
    pub name: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Address of its `eth0`.
    pub address: Ipv4Addr,
    /// Its other address.
    pub address6: Ipv6Addr,
    number: u8,
    pods: u8,
}

/// A pod: a namespace with a veth pair into its node.
pub struct Pod {
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its other address.
    pub address6: Ipv6Addr,
    /// The node's end of its veth pair.
    pub interface: String,
    /// Name of its node.
    pub node: String,
}

/// The network between the nodes: a bridge in a namespace of its own.
pub(crate) fn create() -> Result<Namespace> {
    let network = Namespace::new()?;
    network.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    add_addresses(&network, BRIDGE, NETWORK_IP, [24, 64])?;
    network.ip(&["link", "set", BRIDGE, "up"])?;
    Ok(network)
}

/// A host with `address` on the network; `port` is the bridge's port.
pub(crate) fn attach_host(network: &Namespace, port: &str, address: Ipv4Addr) -> Result<Namespace> {
    let host = Namespace::new()?;
    join_by_veth(network, port, &host, INTERFACE)?;
    network.ip(&["link", "set", port, "master", BRIDGE, "up"])?;
    // The addresses below are enough, and can be used at once.
    host.ip(&["link", "set", INTERFACE, "addrgenmode", "none", "up"])?;
    add_addresses(&host, INTERFACE, address, [24, 64])?;
    Ok(host)
}

/// Returns the IPv6 address that goes with an IPv4 address of the laboratory: `fd00:a:f4:1::2` with
/// 10.244.1.2, whose network is the same part of it.
#[must_use]
pub const fn paired(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, host] = address.octets();
    Ipv6Addr::new(0xfd00, a as u16, b as u16, c as u16, 0, 0, 0, host as u16)
}

/// Adds an address and the one that goes with it, with these lengths of their prefixes.
pub(super) fn add_addresses(
    space: &Namespace,
    interface: &str,
    address: Ipv4Addr,
    prefixes: [u8; 2],
) -> Result<()> {
    space.ip(&["address", "add", &format!("{address}/{}", prefixes[0]), "dev", interface])?;
    let address6 = paired(address);
    let [_, a, b, c, .., host] = address6.segments();
    // Nodes look for their neighbours from a link-local address.
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, host);
    for own in [format!("{address6}/{}", prefixes[1]), format!("{link_local}/64")] {
        // Nobody else has it: without detection it can be used at once.
        space.ip(&["address", "add", &own, "dev", interface, "nodad"])?;
    }
    Ok(())
}

/// Routes to the pods of `nodes`, for a host that is no node.
pub(super) fn route_pods(host: &Namespace, nodes: &[Node; 2]) -> Result<()> {
    nodes.iter().try_for_each(|node| node.route_from(host))
}

impl Node {
    pub(super) fn create(network: &Namespace, number: u8) -> Result<Self> {
        let name = format!("node-{}", number + 1);
        let address = Ipv4Addr::new(192, 168, 53, 11 + number);
        let namespace = attach_host(network, &name, address)?;
        let node = Self { name, namespace, address, address6: paired(address), number, pods: 0 };
        node.set("net/ipv4/ip_forward", "1")?;
        node.set("net/ipv6/conf/all/forwarding", "1")?;
        // Packets of the service arrive with addresses that no route leads back to.
        node.set("net/ipv4/conf/all/rp_filter", "0")?;
        node.other().route_from(&node.namespace)?;
        // To whatever is not in the cluster.
        for gateway in both(NETWORK_IP) {
            node.namespace.ip(&["route", "add", "default", "via", &gateway.to_string()])?;
        }
        Ok(node)
    }

    /// A pod on this node.
    pub(super) fn create_pod(&mut self) -> Result<Pod> {
        ensure!(self.pods < u8::MAX - FIRST_POD_HOST, "no address is left for a pod");
        let address = self.host(FIRST_POD_HOST + self.pods);
        self.pods += 1;
        let interface = format!("veth{}", self.pods);
        let namespace = Namespace::new()?;
        join_by_veth(&self.namespace, &interface, &namespace, INTERFACE)?;
        // The addresses below are enough, and can be used at once.
        for (space, end) in [(&self.namespace, &*interface), (&namespace, INTERFACE)] {
            space.ip(&["link", "set", end, "addrgenmode", "none", "up"])?;
        }
        let gateway = self.host(GATEWAY_HOST);
        add_addresses(&self.namespace, &interface, gateway, [32, 128])?;
        add_addresses(&namespace, INTERFACE, address, [32, 128])?;
        for (gateway, own) in both(gateway).into_iter().zip(both(address)) {
            let (gateway, own) = (gateway.to_string(), own.to_string());
            self.namespace.ip(&["route", "add", &own, "dev", &interface])?;
            namespace.ip(&["route", "add", &gateway, "dev", INTERFACE, "scope", "link"])?;
            namespace.ip(&["route", "add", "default", "via", &gateway, "dev", INTERFACE])?;
        }
        let node = self.name.clone();
        Ok(Pod { namespace, address, address6: paired(address), interface, node })
    }

    /// The value of a series of its agent's metrics, if there is one.
    ///
    /// # Errors
    /// When no agent answers there.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let metrics = http::get(&self.namespace, METRICS, "/metrics")?.body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series));
        value.map(|value| value.trim().parse().context("a number")).transpose()
    }

    /// The address of this node's pods with the number `host`.
    const fn host(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number + 1, host)
    }

    fn other(&self) -> Route {
        Route::to(1 - self.number)
    }

    fn route_from(&self, host: &Namespace) -> Result<()> {
        Route::to(self.number).route_from(host)
    }

    /// Writes a setting of the namespace's network.
    fn set(&self, setting: &str, value: &str) -> Result<()> {
        // /proc/sys/net is that of the thread that opens it.
        self.namespace.enter(|| {
            let path = Path::new("/proc/sys").join(setting);
            fs::write(&path, value).with_context(|| format!("write {}", path.display()))
        })
    }
}

/// The way to the pods of a node.
struct Route {
    /// Network of the pods, and its node's address.
    ways: [(String, IpAddr); 2],
}

/// An address and the one that goes with it.
fn both(address: Ipv4Addr) -> [IpAddr; 2] {
    [address.into(), paired(address).into()]
}

impl Route {
    fn to(number: u8) -> Self {
        let [pods, pods6] = both(Ipv4Addr::new(10, 244, number + 1, 0));
        let [node, node6] = both(Ipv4Addr::new(192, 168, 53, 11 + number));
        Self { ways: [(format!("{pods}/24"), node), (format!("{pods6}/64"), node6)] }
    }

    fn route_from(&self, host: &Namespace) -> Result<()> {
        self.ways.iter().try_for_each(|(pods, node)| {
            host.ip(&["route", "add", pods, "via", &node.to_string()]).map(drop)
        })
    }
}

fn join_by_veth(near: &Namespace, near_end: &str, far: &Namespace, far_end: &str) -> Result<()> {
    #[rustfmt::skip]
    run(Command::new("ip").args([
        "link", "add", near_end, "netns", near.name(), "type", "veth",
        "peer", "name", far_end, "netns", far.name(),
    ]))?;
    Ok(())
}
