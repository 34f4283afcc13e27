//! The namespaces of a cluster, and the routes between them.

use std::{net::Ipv4Addr, process::Command};

use anyhow::Result;

use crate::{
    laboratory::{attach_host, create_network},
    namespace::Namespace,
    process::run,
};

/// Address of the API server.
pub(super) const CONTROL_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 53, 10);
/// Address of what is no part of the cluster: the upstream resolver, and a broker.
pub const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 53, 53);

/// Range of all pods.
pub(super) const POD_RANGE: &str = "10.244.0.0/16";
/// Device of packets between pods of different nodes, with an overlay.
const OVERLAY: &str = "flannel.1";
const OVERLAY_PORT: &str = "8472";

/// The namespaces; dropping it removes them.
pub struct Network {
    pub(super) nodes: [Namespace; 2],
    pub(super) control: Namespace,
    /// The host that is no part of the cluster, with [`OUTSIDE_IP`].
    pub outside: Namespace,
    _bridge: Namespace,
}

impl Network {
    /// Creates the namespaces, and joins them by a bridge.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let bridge = create_network()?;
        let nodes = [
            attach_host(&bridge, "node-1", node_ip(0))?,
            attach_host(&bridge, "node-2", node_ip(1))?,
        ];
        let control = attach_host(&bridge, "control", CONTROL_IP)?;
        let outside = attach_host(&bridge, "outside", OUTSIDE_IP)?;
        for node in &nodes {
            node.ip(&["route", "add", "default", "via", &OUTSIDE_IP.to_string()])?;
        }
        Ok(Self { nodes, control, outside, _bridge: bridge })
    }

    /// Sets the routes to the pods: directly, or between nodes through VXLAN.
    pub(super) fn route_pods(&self, overlay: bool) -> Result<()> {
        for number in [0, 1] {
            let (range, via) = (pod_range(number), node_ip(number).to_string());
            for host in [&self.control, &self.outside] {
                host.ip(&["route", "replace", &range, "via", &via])?;
            }
            if overlay {
                self.create_overlay(number)?;
            } else {
                self.nodes[1 - number].ip(&["route", "replace", &range, "via", &via])?;
            }
        }
        Ok(())
    }

    /// Creates a node's VXLAN device as flannel does, with fixed addresses of the other node.
    fn create_overlay(&self, number: usize) -> Result<()> {
        let (node, peer) = (&self.nodes[number], 1 - number);
        let (own_ip, peer_ip) = (node_ip(number).to_string(), node_ip(peer).to_string());
        let (peer_range, peer_gateway) = (pod_range(peer), overlay_ip(peer).to_string());
        let own_address = format!("{}/32", overlay_ip(number));
        let [own_mac, peer_mac] = [number, peer].map(overlay_mac);
        #[rustfmt::skip]
        let commands: [&[&str]; 5] = [
            &["link", "add", OVERLAY, "address", &own_mac, "type", "vxlan", "id", "1", "dev", "eth0",
              "local", &own_ip, "dstport", OVERLAY_PORT, "nolearning"],
            &["address", "add", &own_address, "dev", OVERLAY],
            &["link", "set", OVERLAY, "up"],
            &["neighbour", "add", &peer_gateway, "lladdr", &peer_mac, "dev", OVERLAY],
            &["route", "add", &peer_range, "via", &peer_gateway, "dev", OVERLAY, "onlink"],
        ];
        commands.iter().try_for_each(|arguments| node.ip(arguments).map(drop))?;
        let mut bridge = Command::new("bridge");
        bridge.args(["-netns", node.name(), "fdb", "append", &peer_mac, "dev", OVERLAY]);
        run(bridge.args(["dst", &peer_ip])).map(drop)
    }
}

/// Address of the node `number`, 0 or 1.
pub(super) fn node_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 53, if number == 0 { 11 } else { 12 })
}

/// Range of the node's pods.
pub(super) fn pod_range(number: usize) -> String {
    format!("10.244.{}.0/24", number + 1)
}

/// Address of the node's VXLAN device: the first of its range, as with flannel.
fn overlay_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, if number == 0 { 1 } else { 2 }, 0)
}

fn overlay_mac(number: usize) -> String {
    format!("02:00:00:00:54:0{number}")
}
