//! Interfaces that are missing, occupied or unsuitable.

use super::*;

#[test]
fn a_missing_interface_is_named_with_the_present_ones() -> Result<()> {
    let machine = Machine::new()?;
    let found =
        machine.doctor(&Start { arguments: &["--interface", "eth7"], ..Start::default() })?;
    found.require(
        "fail",
        "interfaces",
        &["eth7", "no interface matches", INTERFACE],
        &["interfaces: {include: [\"s0\"]}"],
    )?;
    // Beside others, a name that is missing may come, and a pattern may be for other nodes.
    let found = machine.doctor(&Start {
        arguments: &["-i", "eth7", "-i", "ens*", "-i", INTERFACE],
        ..Start::default()
    })?;
    found.require("warn", "interfaces", &["eth7", "no such interface"], &["ip link show eth7"])?;
    ensure!(found.check("warn", "interfaces", &["ens*"]).is_err(), "{found}");
    assert_eq!(found.code, FINE, "{found}");
    Ok(())
}

#[test]
fn the_holder_of_xdp_is_named_with_the_hook_used_instead() -> Result<()> {
    let machine = Machine::new()?;
    for (mode, word) in [(bpf::XdpMode::Native, "native"), (bpf::XdpMode::Generic, "generic")] {
        let _holder = XdpHolder::attach(&machine.namespace, INTERFACE, mode)?;
        let found = machine.doctor(&Start {
            arguments: &["--interface", INTERFACE, "--hook", "xdp"],
            ..Start::default()
        })?;
        found.require(
            "warn",
            "interfaces",
            &["s0: XDP", "program", &format!("in {word} mode is attached"), "tcx is used instead"],
            &["capture: {hook: tc}", "ip link set dev s0 xdp off"],
        )?;
        assert_eq!(found.code, FINE, "{found}");
        // XDP is not required here.
        let found = machine
            .doctor(&Start { arguments: &["--interface", INTERFACE], ..Start::default() })?;
        found.require_fine_but_for(&[])?;
    }
    Ok(())
}

#[test]
fn native_xdp_on_a_veth_is_advised_against() -> Result<()> {
    let machine = Machine::new()?;
    let arguments = &["--interface", INTERFACE, "--hook", "xdp"];
    let found = machine.doctor(&Start { arguments, ..Start::default() })?;
    found.require("warn", "interfaces", &["s0: XDP", "GRO"], &["capture: {hook: auto}"])?;
    assert_eq!(found.code, FINE, "{found}");
    Ok(())
}

#[test]
fn a_device_without_ethernet_headers_is_named() -> Result<()> {
    let machine = Machine::new()?;
    machine.namespace.ip(&["tuntap", "add", "dev", "tun0", "mode", "tun"])?;
    let arguments = ["--interface", "tun0", "--interface", INTERFACE];
    let found = machine.doctor(&Start { arguments: &arguments, ..Start::default() })?;
    found.require(
        "fail",
        "interfaces",
        &["tun0", "tun device", "no Ethernet header"],
        &["interfaces: {exclude: [\"tun0\"]}"],
    )?;
    // Without a selection it is only a warning.
    let found = machine.doctor(&Start::default())?;
    found.check("warn", "interfaces", &["tun0"])?;
    assert_eq!(found.code, FINE, "{found}");
    Ok(())
}

#[test]
fn a_link_that_is_down_and_a_bridge_with_its_port_are_warnings() -> Result<()> {
    let machine = Machine::new()?;
    machine.namespace.ip(&["link", "add", "br0", "type", "bridge"])?;
    machine.namespace.ip(&["link", "set", INTERFACE, "master", "br0"])?;
    let path = machine.path("tap53.yaml");
    fs::write(&path, "interfaces: {include: [s0, br0]}\npair: {merge_interfaces: false}\n")?;
    let path = text(&path)?;
    let start = Start { arguments: &["--config", &path], ..Start::default() };
    let found = machine.doctor(&start)?;
    found.require(
        "warn",
        "interfaces",
        &["br0: link", "no packets"],
        &["ip link set dev br0 up"],
    )?;
    found.require(
        "warn",
        "interfaces",
        &["s0 and br0", "its own records"],
        &["pair: {merge_interfaces: true}"],
    )?;
    fs::write(&path, "interfaces: {include: [s0, br0]}\n")?;
    machine.doctor(&start)?.check("ok", "interfaces", &["s0 and br0", "copies"])?;
    Ok(())
}

#[test]
fn an_ingress_qdisc_in_the_place_of_clsact_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let config = machine.configure("capture: {tc: clsact}\n")?;
    machine.namespace.tc(&["qdisc", "add", "dev", INTERFACE, "ingress"])?;
    let start = Start { arguments: &["--config", &config], ..Start::default() };
    let found = machine.doctor(&start)?;
    found.require(
        "fail",
        "interfaces",
        &["s0: clsact", "ingress qdisc"],
        &["tc qdisc delete dev s0 ingress"],
    )
}
