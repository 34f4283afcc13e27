//! Capabilities and kernel features that are missing.

use super::*;

#[test]
fn each_missing_capability_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let needed = ["bpf", "net_admin", "perfmon"];
    for missing in needed {
        let kept: Vec<_> = needed.iter().filter(|name| **name != missing).collect();
        let kept = kept.iter().fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
        let found = machine.doctor(&Start {
            privileges: &[
                &format!("--reuid={NOBODY}"),
                "--clear-groups",
                &format!("--inh-caps={kept}"),
                &format!("--ambient-caps={kept}"),
                &format!("--bounding-set={kept}"),
            ],
            arguments: &["--interface", INTERFACE],
            ..Start::default()
        })?;
        let name = format!("CAP_{}", missing.to_uppercase());
        found.require(
            "fail",
            "capabilities",
            &[&name, "bounding set"],
            &["AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON"],
        )?;
        for other in needed.iter().filter(|other| **other != missing) {
            let other = format!("CAP_{}", other.to_uppercase());
            ensure!(found.check("fail", "capabilities", &[&other]).is_err(), "{found}");
        }
        let loading = found.check("warn", "kernel", &["could not be tried", &name])?;
        assert!(loading["fix"].as_str().is_some_and(|fix| fix.contains("sudo")), "{loading}");
    }
    Ok(())
}

#[test]
fn without_root_it_checks_what_it_can_and_reports_what_it_cannot() -> Result<()> {
    let machine = Machine::new()?;
    let found = machine.doctor(&Start {
        privileges: &[&format!("--reuid={NOBODY}"), "--clear-groups", "--inh-caps=-all"],
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    for name in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
        found.require("fail", "capabilities", &[name, "not permitted"], &["setcap cap_bpf"])?;
    }
    found.check("warn", "kernel", &["programs", "could not be tried"])?;
    found.check("warn", "kernel", &["TCX", "could not be tried"])?;
    found.check("ok", "interfaces", &["s0: veth", "egress tcx > clsact", "CAP_NET_ADMIN"])?;
    found.check("ok", "resources", &["memory"])?;
    found.require_fine_but_for(&["capabilities", "kernel"])
}

#[test]
fn a_user_other_than_root_with_the_capabilities_is_healthy() -> Result<()> {
    let machine = Machine::new()?;
    let needed = "-all,+bpf,+net_admin,+perfmon";
    let found = machine.doctor(&Start {
        privileges: &[
            &format!("--reuid={NOBODY}"),
            "--clear-groups",
            &format!("--inh-caps={needed}"),
            &format!("--ambient-caps={needed}"),
            &format!("--bounding-set={needed}"),
        ],
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    assert_eq!(found.code, FINE, "{found}");
    found.require_fine_but_for(&[])
}

#[test]
fn a_filter_of_system_calls_that_denies_bpf_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let found = machine.doctor(&Start {
        without_bpf: true,
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    found.check("ok", "capabilities", &["CAP_BPF"])?;
    found.require("fail", "kernel", &["programs", "seccomp"], &["SystemCallFilter=bpf"])
}

#[test]
fn a_kernel_that_shows_no_btf_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let found = machine.doctor(&Start {
        before: "mount -t tmpfs none /sys/kernel/btf",
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    found.require(
        "warn",
        "kernel",
        &["BTF", "/sys/kernel/btf/vmlinux"],
        &["CONFIG_DEBUG_INFO_BTF"],
    )?;
    found.check("ok", "kernel", &["load"])?;
    assert_eq!(found.code, FINE, "it captures all the same");
    Ok(())
}
