//! Finds devices of pods that responses go past.
//!
//! With `bpf_redirect_peer`, as in Cilium's eBPF host routing, a packet for a pod goes from the device
//! by which it enters the node into the pod's network namespace. The node's end of the pod's veth sees
//! the queries, and no response. Where the entering device is not captured, each of these queries looks
//! unanswered.

use tap53_capture::interfaces::{Interface, InterfaceStatus, Kind};
use tap53_ledger::Ledger;

use crate::control::Bypass;

/// Minimum number of DNS packets that arrived at a device, before it counts that none has left.
const MIN_ARRIVED: u64 = 20;

/// DNS packets at an interface since programs were attached.
pub(super) struct Counted<'a> {
    name: &'a str,
    ifindex: u32,
    is_pair: bool,
    arrived: u64,
    left: u64,
}

impl<'a> Counted<'a> {
    /// Returns the counts of each attached interface.
    pub(super) fn all(ledger: &'a Ledger) -> Vec<Self> {
        let attached = ledger.interfaces.iter().filter(|interface| interface.is_attached);
        let counts = attached.map(|interface| Self {
            name: &interface.name,
            ifindex: interface.ifindex,
            is_pair: interface.is_pair,
            arrived: interface.ingress.captured,
            left: interface.egress.captured,
        });
        counts.collect()
    }
}

/// Returns the devices of pods at which DNS packets arrive and none leaves, with the interfaces to
/// capture in addition. `None` if there are none; if nothing shows that servers respond at all, which
/// a second device or packets that leave another one do; or if the interfaces by which responses may
/// enter are captured already.
///
/// `present` are all interfaces of the network namespace, `captured` the status of those that are of
/// interest, and `counted` the counters of those that are attached.
pub(super) fn find<'a>(
    present: impl Iterator<Item = &'a Interface>,
    captured: &[InterfaceStatus],
    counted: &[Counted<'_>],
) -> Option<Bypass> {
    let is_captured = |ifindex: u32| {
        let mut those = captured.iter().filter(|status| status.ifindex == ifindex);
        those.any(|status| status.ingress.capturing && status.egress.capturing)
    };
    let attached = || counted.iter().filter(|of| is_captured(of.ifindex));
    let interfaces: Vec<String> = attached()
        .filter(|of| of.is_pair && of.left == 0 && of.arrived >= MIN_ARRIVED)
        .map(|of| of.name.to_owned())
        .collect();
    let others_respond = attached().any(|of| of.left > 0);
    if interfaces.is_empty() || (interfaces.len() == 1 && !others_respond) {
        return None;
    }
    let mut tunnels = Vec::new();
    let mut devices = Vec::new();
    let mut has_device = false;
    for interface in present.filter(|interface| interface.ethernet && interface.up) {
        let is_missing = !is_captured(interface.ifindex);
        match interface.kind {
            Kind::Tunnel(_) if is_missing => tunnels.push(interface.name.clone()),
            Kind::Physical | Kind::Bond if is_missing => devices.push(interface.name.clone()),
            Kind::Physical | Kind::Bond => has_device = true,
            _ => {}
        }
    }
    // Responses in a tunnel leave it at the tunnel's device. One of several devices may be for other
    // purposes than pods.
    let add = match (tunnels.is_empty(), has_device) {
        (false, _) => tunnels,
        (true, false) => devices,
        (true, true) => Vec::new(),
    };
    (!add.is_empty()).then_some(Bypass { interfaces, add })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tap53_capture::interfaces::{Actual, WantedBy, config::Directions};

    fn interface(ifindex: u32, name: &str, kind: Kind) -> Interface {
        Interface { ifindex, kind, ethernet: true, up: true, ..Interface::named(name) }
    }

    fn captured(interface: &Interface) -> InterfaceStatus {
        let actual = || Actual { capturing: true, hook: Some("tcx".to_owned()), shadowed: None };
        InterfaceStatus {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
            kind: interface.kind.to_string(),
            wanted: Some(Directions::Both),
            wanted_by: WantedBy::File,
            wanted_for_s: None,
            ingress: actual(),
            egress: actual(),
            why: String::new(),
        }
    }

    fn counted(interface: &Interface, [arrived, left]: [u64; 2]) -> Counted<'_> {
        let Interface { name, ifindex, kind, .. } = interface;
        Counted { name, ifindex: *ifindex, is_pair: kind.is_pair(), arrived, left }
    }

    /// Captures from all `devices`, which have these packets, beside the interfaces that are not captured.
    fn found(devices: &[(&Interface, [u64; 2])], others: &[&Interface]) -> Option<Bypass> {
        let status: Vec<_> = devices.iter().map(|(device, _)| captured(device)).collect();
        let counts: Vec<_> = devices.iter().map(|(of, packets)| counted(of, *packets)).collect();
        let captured = devices.iter().map(|(device, _)| *device);
        find(captured.chain(others.iter().copied()), &status, &counts)
    }

    fn bypass(interfaces: &[&str], add: &[&str]) -> Option<Bypass> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Some(Bypass { interfaces: owned(interfaces), add: owned(add) })
    }

    #[test]
    fn devices_without_a_response_are_named_with_what_to_add() {
        let [one, two] = [(1, "lxc1"), (2, "lxc2")].map(|(n, name)| interface(n, name, Kind::Veth));
        let eth0 = interface(3, "eth0", Kind::Physical);
        let vxlan = interface(4, "cilium_vxlan", Kind::Tunnel("vxlan".to_owned()));
        let (past, through) = ([20, 0], [9, 9]);
        assert_eq!(found(&[(&one, past), (&two, through)], &[&eth0]), bypass(&["lxc1"], &["eth0"]));
        let both = [(&one, past), (&two, past)];
        assert_eq!(found(&both, &[&eth0]), bypass(&["lxc1", "lxc2"], &["eth0"]));
        assert_eq!(
            found(&[both[0], both[1], (&eth0, past)], &[&vxlan]),
            bypass(&["lxc1", "lxc2"], &["cilium_vxlan"])
        );
    }

    #[test]
    fn silence_has_other_reasons() {
        let [one, two] = [(1, "lxc1"), (2, "lxc2")].map(|(n, name)| interface(n, name, Kind::Veth));
        let eth0 = interface(3, "eth0", Kind::Physical);
        let vxlan = interface(4, "vxlan", Kind::Tunnel("vxlan".to_owned()));
        let down = Interface { up: false, ..vxlan.clone() };
        let past = [20, 0];
        // The server of this pod may be gone.
        assert_eq!(found(&[(&one, past)], &[&eth0]), None);
        // Too few.
        assert_eq!(found(&[(&one, [19, 0]), (&two, [19, 0])], &[&eth0]), None);
        // Responses are seen where they enter.
        assert_eq!(found(&[(&one, past), (&two, past), (&eth0, [0, 40])], &[&down]), None);
        assert_eq!(
            found(&[(&one, past), (&two, past), (&vxlan, [40, 40]), (&eth0, past)], &[]),
            None
        );
        // Only arriving packets are captured.
        let mut status = [captured(&one), captured(&two)];
        status.iter_mut().for_each(|status| status.egress.capturing = false);
        let counts = [counted(&one, past), counted(&two, past)];
        assert_eq!(find([&one, &two, &eth0].into_iter(), &status, &counts), None);
    }
}
