//! Checks that the selected interfaces are present, and that capture is possible on them.

use tap53_capture::{
    capture::{Hook, Preflight, Qdisc},
    interfaces::{self, Interface, Kind, Selector, selects},
};

use super::Check;
use crate::config::Config;

const AREA: &str = "interfaces";

pub(super) fn look(config: &Config, named: bool) -> Vec<Check> {
    let present = match interfaces::list() {
        Ok(present) => present,
        Err(error) => {
            return vec![Check::fail(AREA, "listing", error.to_string(), "ip link")];
        }
    };
    let (selected, others): (Vec<_>, Vec<_>) =
        present.iter().partition(|interface| selects(&config.interfaces, interface));
    let mut checks = unmatched(config, &selected, &others);
    let selected_names: Vec<&str> = selected.iter().map(|i| i.name.as_str()).collect();
    for interface in selected {
        checks.extend(look_at(interface, config, named, &selected_names));
    }
    checks
}

/// Reports names without an interface, and patterns if none of them matches: in a list for many kinds
/// of nodes, some patterns match nothing.
fn unmatched(config: &Config, selected: &[&Interface], others: &[&Interface]) -> Vec<Check> {
    let candidates: Vec<&str> =
        others.iter().filter(|i| i.ethernet).map(|i| i.name.as_str()).collect();
    let example = candidates.iter().find(|name| **name != "lo").or(candidates.first());
    let check = |selector: &Selector| {
        let what = selector.as_str();
        if selected.is_empty() {
            let wrong = format!("no interface matches; others are {}", candidates.join(", "));
            let fix = format!("interfaces: {{include: [\"{}\"]}}", example.unwrap_or(&"eth*"));
            return Some(Check::fail(AREA, what, wrong, fix));
        }
        let fix = format!("ip link show {what}   # it is captured from when it appears");
        selector.literal_name().map(|_| Check::warn(AREA, what, "no such interface now", fix))
    };
    let empty = |selector: &&Selector| !selected.iter().any(|i| selector.matches(i));
    config.interfaces.include.iter().filter(empty).filter_map(check).collect()
}

fn look_at(interface: &Interface, config: &Config, named: bool, selected: &[&str]) -> Vec<Check> {
    let name = &interface.name;
    let exclude = format!("interfaces: {{exclude: [\"{name}\"]}}");
    let found = match Preflight::of(interface, &config.capture) {
        Ok(found) => found,
        Err(error) => {
            return vec![Check::warn(AREA, name, error.to_string(), "sudo tap53 doctor")];
        }
    };
    if !interface.ethernet {
        let wrong = format!(
            "packets of a {} device have no Ethernet header to read: tap53 does not attach there",
            interface.kind
        );
        let check = if named { Check::fail } else { Check::warn };
        return vec![check(AREA, name.clone(), wrong, exclude)];
    }
    let mut checks = Vec::new();
    if let Some(blocked) = blocked(name, &found) {
        checks.push(blocked);
    } else {
        checks.push(Check::ok(AREA, describe(interface, &found)));
    }
    if let Some(holder) = &found.xdp_taken {
        checks.push(Check::warn(
            AREA,
            format!("{name}: XDP"),
            format!(
                "{holder} is attached: {} is used instead, later in the packet's path",
                found.candidates[0][0]
            ),
            format!("capture: {{hook: tc}}   # or: ip link set dev {name} xdp off"),
        ));
    }
    if interface.kind == Kind::Veth && found.candidates[0].contains(&Hook::XdpNative) {
        checks.push(Check::warn(
            AREA,
            format!("{name}: XDP"),
            "XDP on a veth disables GRO for the pod's TCP, which is several times slower then, and \
             sees no sockets, so that containers are not known by them",
            "capture: {hook: auto}",
        ));
    }
    if !found.device.running {
        let (wrong, fix) = if interface.up {
            ("no carrier", format!("ethtool {name}   # is the cable in?"))
        } else {
            ("down", format!("ip link set dev {name} up"))
        };
        let check = Check::warn(AREA, format!("{name}: link"), format!("{wrong}: no packets"), fix);
        // Unused interfaces are usual, unless the configuration names them.
        if named {
            checks.push(check);
        }
    }
    let whole = found.device.part_of.as_ref().map(|whole| &whole.name);
    let whole = whole.or(found.device.part_from.as_ref());
    if let Some(whole) = whole.filter(|whole| selected.contains(&whole.as_str())) {
        checks.push(if config.pair.merge_interfaces {
            Check::ok(
                AREA,
                format!("{name} and {whole} see the same packets: one record, the rest are copies"),
            )
        } else {
            Check::warn(
                AREA,
                format!("{name} and {whole}"),
                "see the same packets, and each creates its own records",
                format!("pair: {{merge_interfaces: true}}   # or {exclude}"),
            )
        });
    }
    checks
}

/// Reports an ingress qdisc that leaves a direction without a hook.
fn blocked(name: &str, found: &Preflight) -> Option<Check> {
    // TCX is used first where the kernel may have it.
    let takes_clsact = found
        .candidates
        .iter()
        .any(|hooks| hooks.contains(&Hook::Clsact) && !hooks.contains(&Hook::Tcx));
    (takes_clsact && found.owners.qdisc == Qdisc::Ingress).then(|| {
        Check::fail(
            AREA,
            format!("{name}: clsact"),
            "an ingress qdisc is attached instead of clsact, and this kernel has no TCX",
            format!("tc qdisc delete dev {name} ingress   # if its filters are not needed"),
        )
    })
}

fn describe(interface: &Interface, found: &Preflight) -> String {
    use tap53_ebpf::settings::Direction::{Egress, Ingress};
    let Interface { name, kind, mtu, .. } = interface;
    let driver = match &found.device.driver {
        Some(driver) if *driver != kind.to_string() => format!(" ({driver})"),
        _ => String::new(),
    };
    let attached =
        found.owners.describe().map_or(String::new(), |attached| format!("; attached: {attached}"));
    let why =
        if found.why.is_empty() { String::new() } else { format!("; {}", found.why.join("; ")) };
    format!(
        "{name}: {kind}{driver}, MTU {mtu}, ingress {}, egress {}{why}{attached}",
        found.describe(Ingress),
        found.describe(Egress),
    )
}
