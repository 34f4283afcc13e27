//! The clsact qdisc: of others, which stays, and what a killed agent left there.

use super::*;

#[test]
fn a_foreign_clsact_and_its_filters_survive_us() -> Result<()> {
    let stage = Stage::new()?;
    let server = &stage.server;
    server.tc(&["qdisc", "add", "dev", INTERFACE, "clsact"])?;
    for (direction, filter) in [
        // The first priority is another kind's, so that we come behind it.
        ("ingress", &["prio", "1", "protocol", "ip", "u32", "match", "u32", "0", "0"][..]),
        // It is ours to share.
        ("egress", &["prio", "1", "protocol", "all", "bpf", "bytecode", "1,6 0 0 0"]),
    ] {
        server.tc(&[&["filter", "add", "dev", INTERFACE, direction], filter].concat())?;
    }
    let show = || -> Result<(String, String)> {
        let qdiscs = server.tc(&["qdisc", "show", "dev", INTERFACE])?;
        let filters = ["ingress", "egress"]
            .map(|direction| server.tc(&["filter", "show", "dev", INTERFACE, direction]));
        let [ingress, egress] = filters;
        Ok((qdiscs, ingress? + &egress?))
    };
    let before = show()?;
    let config = config(HookChoice::Tc, XdpMode::Auto, TcChoice::Clsact);
    server.enter(|| {
        let mut capture = Capture::load(&config)?;
        let attachment = capture.attach(&interface(INTERFACE)?, Directions::Both)?;
        assert_eq!(
            attachment.why,
            "tc is configured; on ingress behind a u32 filter of priority 1"
        );
        let owners = HookOwners::of(&interface(INTERFACE)?)?;
        let ours: Vec<_> = owners
            .filters
            .iter()
            .filter(|filter| filter.name.is_some())
            .map(|filter| (filter.direction, filter.priority))
            .collect();
        assert_eq!(ours, [(Ingress, 2), (Egress, 1)]);
        let first_out = owners.filters.iter().find(|filter| filter.direction == Egress);
        assert!(first_out.is_some_and(|filter| filter.name.is_some()), "the newest runs first");
        assert!(capture.detach_all().is_empty());
        Ok(())
    })?;
    assert_eq!(show()?, before);
    Ok(())
}

#[test]
fn what_a_killed_agent_left_is_swept_and_what_a_running_one_has_is_not() -> Result<()> {
    let stage = Stage::new()?;
    let config = config(HookChoice::Tc, XdpMode::Auto, TcChoice::Clsact);
    let filters = || {
        stage.server.enter(|| {
            let owners = HookOwners::of(&interface(INTERFACE)?)?;
            Ok((owners.qdisc, owners.filters.len()))
        })
    };
    let output = role("attach_and_die", stage.server.command(env::current_exe()?))?;
    ensure!(output.contains("attached"), "{output}");
    assert_eq!(filters()?, (Qdisc::Clsact, 2), "the kernel keeps filters of the dead");

    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        assert_eq!(HookOwners::of(&interface(INTERFACE)?)?.qdisc, Qdisc::Absent, "swept");
        capture.attach(&interface(INTERFACE)?, Directions::Both)?;
        // A second agent starts while the first one runs.
        let second = Capture::load(&config)?;
        assert_eq!(filters()?, (Qdisc::Clsact, 2), "left alone");
        drop(second);
        // Not detached, but dropped, as while a panic unwinds.
        drop(capture);
        Ok(())
    })?;
    stage.require_bare()
}

#[test]
fn an_ingress_qdisc_is_named_as_what_is_in_the_way() -> Result<()> {
    let stage = Stage::new()?;
    stage.server.tc(&["qdisc", "add", "dev", INTERFACE, "ingress"])?;
    let config = config(HookChoice::Tc, XdpMode::Auto, TcChoice::Clsact);
    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        let error = capture.attach(&interface(INTERFACE)?, Directions::Both).unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface s0: clsact: an ingress qdisc occupies its handle: Device or resource \
             busy (os error 16)"
        );
        assert_eq!(capture.attachments().count(), 0);
        Ok(())
    })
}
