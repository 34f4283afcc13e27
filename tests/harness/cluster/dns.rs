//! The cluster's DNS: CoreDNS as a Deployment behind the service `kube-dns`, the upstream resolver's zones,
//! and a cache on each node.

use std::net::Ipv4Addr;

use super::{OUTSIDE_IP, images, pods::ZONE};

/// Address of the service `kube-dns`.
pub const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Address of the cache on each node, as that of NodeLocal DNSCache.
pub const NODE_CACHE_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// The service that a cache forwards to, with the same pods as `kube-dns`, whose address the node has itself.
const UPSTREAM_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);

const OBJECTS: &str = include_str!("dns.yaml");
const CACHE_OBJECTS: &str = include_str!("node_cache.yaml");

/// The Deployment and the service.
pub(super) fn objects() -> String {
    with_names(OBJECTS)
}

/// The caches, which forward to their own service.
pub(super) fn cache_objects() -> String {
    with_names(CACHE_OBJECTS)
}

fn with_names(text: &str) -> String {
    text.replace("$IMAGE", images::COREDNS)
        .replace("$CLUSTER_IP", &CLUSTER_IP.to_string())
        .replace("$CACHE_IP", &NODE_CACHE_IP.to_string())
        .replace("$UPSTREAM_SERVICE_IP", &UPSTREAM_SERVICE_IP.to_string())
        .replace("$UPSTREAM_IP", &OUTSIDE_IP.to_string())
}

/// Workloads that have to run before names can be looked up.
pub(super) fn workloads(node_cache: bool) -> &'static [&'static str] {
    let all = &["deployment/coredns", "daemonset/node-local-dns"];
    if node_cache { all } else { &all[..1] }
}

/// Lines of the upstream resolver's configuration: all names of [`ZONE`] exist, for a second.
pub(super) fn upstream_zone() -> String {
    format!(
        "  log-queries: yes\n  local-zone: \"{ZONE}.\" redirect\n  \
         local-data: \"{ZONE}. 1 IN A 198.51.100.8\"\n"
    )
}

/// The rules that NodeLocal DNSCache sets: its queries and answers are not tracked.
pub(super) fn cache_rules() -> Vec<Vec<String>> {
    let mut rules = Vec::new();
    for address in [NODE_CACHE_IP, CLUSTER_IP] {
        for protocol in ["udp", "tcp"] {
            for rule in [
                format!("-t raw -A PREROUTING -p {protocol} -d {address} --dport 53 -j NOTRACK"),
                format!("-t raw -A OUTPUT -p {protocol} -s {address} --sport 53 -j NOTRACK"),
                format!("-t raw -A OUTPUT -p {protocol} -d {address} --dport 53 -j NOTRACK"),
                format!("-A INPUT -p {protocol} -d {address} --dport 53 -j ACCEPT"),
                format!("-A OUTPUT -p {protocol} -s {address} --sport 53 -j ACCEPT"),
            ] {
                let words = format!("-w {rule}");
                rules.push(words.split(' ').map(str::to_owned).collect());
            }
        }
    }
    rules
}
