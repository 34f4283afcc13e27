//! The rules of a node: what kube-proxy's nftables mode and NodeLocal DNSCache set, in short.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{CACHE_IP, CLUSTER_IP, Node, Plan};
use crate::process::run;

/// Sets the rules of `node`.
pub(super) fn apply(
    node: &Node,
    backends: &[Ipv4Addr],
    plan: &Plan,
    directory: &Path,
) -> Result<()> {
    let file = directory.join(format!("{}.nft", node.name));
    fs::write(&file, rules(backends, plan))?;
    let mut nft: Command = node.namespace.command("nft");
    run(nft.arg("-f").arg(&file)).context("set rules by nft (package nftables)")?;
    Ok(())
}

fn rules(backends: &[Ipv4Addr], plan: &Plan) -> String {
    let choices: Vec<_> =
        backends.iter().enumerate().map(|(at, address)| format!("{at} : {address}")).collect();
    let choice = format!("numgen random mod {} map {{ {} }}", backends.len(), choices.join(", "));
    let masquerade = if plan.masquerade {
        format!("ct original ip daddr {CLUSTER_IP} masquerade\n")
    } else {
        String::new()
    };
    format!(
        "table ip proxy {{
  chain services {{
    ip daddr {CLUSTER_IP} meta l4proto {{ tcp, udp }} th dport 53 dnat to {choice}
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
table ip cache {{
  chain prerouting {{
    type filter hook prerouting priority -300
    ip daddr {CACHE_IP} th dport 53 notrack
  }}
  chain output {{
    type filter hook output priority -300
    ip saddr {CACHE_IP} th sport 53 notrack
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
        let backends = [Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 2, 2)];
        let text = rules(&backends, &Plan::default());
        assert!(text.contains("mod 2 map { 0 : 10.244.1.2, 1 : 10.244.2.2 }"), "{text}");
        assert!(!text.contains("masquerade"), "{text}");
        let text = rules(&backends, &Plan { masquerade: true, ..Plan::default() });
        assert!(text.contains("ct original ip daddr 10.96.0.10 masquerade"), "{text}");
    }
}
