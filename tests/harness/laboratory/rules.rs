//! The rules of a node: what kube-proxy's nftables mode and NodeLocal DNSCache set, in short.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};

use super::{CACHE_IP, CLUSTER_IP, Node, Plan, paired};
use crate::process::run;

/// Sets the rules of `node`.
pub(super) fn apply(
    node: &Node,
    backends: &[Ipv4Addr],
    plan: &Plan,
    directory: &Path,
) -> Result<()> {
    let file = directory.join(format!("{}.nft", node.name));
    let backends4: Vec<_> = backends.iter().map(|address| IpAddr::V4(*address)).collect();
    let backends6: Vec<_> = backends.iter().map(|address| paired(*address).into()).collect();
    let text = [
        rules("ip", &backends4, CLUSTER_IP.into(), CACHE_IP.into(), plan),
        rules("ip6", &backends6, paired(CLUSTER_IP).into(), paired(CACHE_IP).into(), plan),
    ];
    fs::write(&file, text.concat())?;
    let mut nft: Command = node.namespace.command("nft");
    run(nft.arg("-f").arg(&file)).context("set rules by nft (package nftables)")?;
    Ok(())
}

/// The rules of a family, `ip` or `ip6`.
fn rules(family: &str, backends: &[IpAddr], service: IpAddr, cache: IpAddr, plan: &Plan) -> String {
    let choices: Vec<_> =
        backends.iter().enumerate().map(|(at, address)| format!("{at} : {address}")).collect();
    let choice = format!("numgen random mod {} map {{ {} }}", backends.len(), choices.join(", "));
    let masquerade = if plan.masquerade {
        format!("ct original {family} daddr {service} masquerade\n")
    } else {
        String::new()
    };
    format!(
        "table {family} proxy {{
  chain services {{
    {family} daddr {service} meta l4proto {{ tcp, udp }} th dport 53 dnat to {choice}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    jump services
  }}
  chain output {{
    type nat hook output priority -100
    jump services
  }}
  chain postrouting {{
    type nat hook postrouting priority 100
    {masquerade}  }}
}}
table {family} cache {{
  chain prerouting {{
    type filter hook prerouting priority -300
    {family} daddr {cache} th dport 53 notrack
  }}
  chain output {{
    type filter hook output priority -300
    {family} saddr {cache} th sport 53 notrack
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_chosen_at_random_and_masquerading_is_an_option() {
        let backends = ["10.244.1.2", "10.244.2.2"].map(|text| text.parse().expect("an address"));
        let rules = |plan: &Plan| rules("ip", &backends, CLUSTER_IP.into(), CACHE_IP.into(), plan);
        let text = rules(&Plan::default());
        assert!(text.contains("mod 2 map { 0 : 10.244.1.2, 1 : 10.244.2.2 }"), "{text}");
        assert!(!text.contains("masquerade"), "{text}");
        let text = rules(&Plan { masquerade: true, ..Plan::default() });
        assert!(text.contains("ct original ip daddr 10.96.0.10 masquerade"), "{text}");
    }
}
