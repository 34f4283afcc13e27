//! The namespaces of nodes and pods, and what joins them.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::NETWORK_IP;
use crate::{namespace::Namespace, process::run};

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
    number: u8,
    pods: u8,
}

/// A pod: a namespace with a veth pair into its node.
pub struct Pod {
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    /// The node's end of its veth pair.
    pub interface: String,
    /// Name of its node.
    pub node: String,
}

/// The network between the nodes: a bridge in a namespace of its own.
pub(super) fn create() -> Result<Namespace> {
    let network = Namespace::new()?;
    network.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    network.ip(&["address", "add", &format!("{NETWORK_IP}/24"), "dev", BRIDGE])?;
    network.ip(&["link", "set", BRIDGE, "up"])?;
    Ok(network)
}

/// A host with `address` on the network; `port` is the bridge's port.
pub(super) fn attach_host(network: &Namespace, port: &str, address: Ipv4Addr) -> Result<Namespace> {
    let host = Namespace::new()?;
    join_by_veth(network, port, &host, INTERFACE)?;
    network.ip(&["link", "set", port, "master", BRIDGE, "up"])?;
    host.ip(&["address", "add", &format!("{address}/24"), "dev", INTERFACE])?;
    host.ip(&["link", "set", INTERFACE, "up"])?;
    Ok(host)
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
        let node = Self { name, namespace, address, number, pods: 0 };
        node.set("net/ipv4/ip_forward", "1")?;
        // Packets of the service arrive with addresses that no route leads back to.
        node.set("net/ipv4/conf/all/rp_filter", "0")?;
        node.other().route_from(&node.namespace)?;
        // To whatever is not in the cluster.
        node.namespace.ip(&["route", "add", "default", "via", &NETWORK_IP.to_string()])?;
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
        let (gateway, own) = (self.host(GATEWAY_HOST).to_string(), format!("{address}/32"));
        // IPv6 would only add multicast of its own.
        for (space, end) in [(&self.namespace, &*interface), (&namespace, INTERFACE)] {
            space.ip(&["link", "set", end, "addrgenmode", "none", "up"])?;
        }
        let node = &self.namespace;
        node.ip(&["address", "add", &format!("{gateway}/32"), "dev", &interface])?;
        node.ip(&["route", "add", &own, "dev", &interface])?;
        namespace.ip(&["address", "add", &own, "dev", INTERFACE])?;
        namespace.ip(&["route", "add", &gateway, "dev", INTERFACE, "scope", "link"])?;
        namespace.ip(&["route", "add", "default", "via", &gateway])?;
        Ok(Pod { namespace, address, interface, node: self.name.clone() })
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
    pods: String,
    node: String,
}

impl Route {
    fn to(number: u8) -> Self {
        Self {
            pods: format!("10.244.{}.0/24", number + 1),
            node: format!("192.168.53.{}", 11 + number),
        }
    }

    fn route_from(&self, host: &Namespace) -> Result<()> {
        host.ip(&["route", "add", &self.pods, "via", &self.node]).map(drop)
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
