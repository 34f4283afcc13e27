//! Programs of others ahead of ours, told from what they do.

use super::*;

/// Packets that suffice for a judgement, twice over.
const JUDGED: u64 = 32;

impl Stage {
    /// Sends packets both ways and waits until each device has counted its own.
    fn exchange(&self) -> Result<()> {
        let before = self.server.packets(INTERFACE)?;
        let query = udp_to_port_53(4_242, &dns::query(1, "www.tap53.test", "A"));
        let ends = [(&self.client, CLIENT_END.interface), (&self.server, INTERFACE)];
        for (namespace, interface) in ends {
            let socket = FrameSocket::open(namespace, interface)?;
            (0..JUDGED).try_for_each(|_| socket.send(&query))?;
        }
        wait::until("the packets to be counted", DEADLINE, || {
            let now = self.server.packets(INTERFACE)?;
            let passed =
                now.received - before.received >= JUDGED && now.sent - before.sent >= JUDGED;
            Ok(passed.then_some(()))
        })
    }

    /// What is told of both directions after an exchange.
    fn shadowed_after_exchange(&self, capture: &mut Capture) -> Result<[Option<String>; 2]> {
        let ifindex = interface(INTERFACE)?.ifindex;
        let _ = capture.shadowed(ifindex);
        self.exchange()?;
        Ok(capture.shadowed(ifindex))
    }
}

#[test]
fn a_tcx_program_ahead_that_ends_the_chain_is_told_from_one_that_does_not() -> Result<()> {
    if best_tc()?.0 != Hook::Tcx {
        return Ok(()); // older_kernels.rs has those
    }
    let stage = Stage::new()?;
    let config = config(HookChoice::Auto, XdpMode::Auto, TcChoice::Auto);
    let hold = |egress, place, verdict| {
        TcxHolder::attach(&stage.server, INTERFACE, egress, place, verdict)
    };
    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        let ifindex = interface(INTERFACE)?.ifindex;
        // Somebody is there before us: we go ahead of them.
        let _earlier =
            [hold(false, Place::Last, verdict::TC_OK)?, hold(true, Place::Last, verdict::TC_OK)?];
        capture.attach(&interface(INTERFACE)?, Directions::Both)?;
        assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [None, None]);

        for (egress, direction) in [(false, Ingress), (true, Egress)] {
            let other = if egress { Ingress } else { Egress };
            let cut = hold(egress, Place::First, verdict::TC_OK)?;
            let id = cut.program_id();
            let idle = capture.shadowed(ifindex)[direction as usize].clone();
            assert_eq!(
                idle.as_deref(),
                Some(&*format!("program {id} ahead at tcx, which lets packets pass")),
                "the counts are those from before it came"
            );
            let shadowed = stage.shadowed_after_exchange(&mut capture)?;
            let expected = format!("program {id} ahead at tcx: 0 of {JUDGED} packets reached tcx");
            assert_eq!(shadowed[direction as usize].as_deref(), Some(&*expected));
            assert_eq!(shadowed[other as usize], None);
            drop(cut);
            assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [None, None], "it is gone");

            let polite = hold(egress, Place::First, verdict::TC_NEXT)?;
            let expected =
                format!("program {} ahead at tcx, which lets packets pass", polite.program_id());
            let shadowed = stage.shadowed_after_exchange(&mut capture)?;
            assert_eq!(shadowed[direction as usize].as_deref(), Some(&*expected));
            drop(polite);

            let _behind = hold(egress, Place::Last, verdict::TC_SHOT)?;
            assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [None, None]);
        }
        Ok(())
    })
}

#[test]
fn an_xdp_program_that_consumes_packets_ahead_of_tc_is_named() -> Result<()> {
    for mode in [bpf::XdpMode::Native, bpf::XdpMode::Generic] {
        let stage = Stage::new()?;
        let config = config(HookChoice::Auto, XdpMode::Auto, TcChoice::Auto);
        stage.server.enter(|| {
            let interface = interface(INTERFACE)?;
            let mut capture = Capture::load(&config)?;
            let ingress = capture.attach(&interface, Directions::Both)?.describe(Ingress);
            let passing = XdpHolder::attach(&stage.server, INTERFACE, mode)?;
            assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [None, None], "{mode:?}");
            drop(passing);
            let _dropping =
                XdpHolder::attach_with(&stage.server, INTERFACE, mode, verdict::XDP_DROP)?;
            let id = HookOwners::of(&interface)?.xdp[0].1.id;
            let expected =
                format!("program {id} ahead at xdp: 0 of {JUDGED} packets reached {ingress}");
            assert_eq!(
                stage.shadowed_after_exchange(&mut capture)?,
                [Some(expected), None],
                "{mode:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_filter_of_ours_behind_tcx_or_another_filter_is_shadowed() -> Result<()> {
    let stage = Stage::new()?;
    let config = config(HookChoice::Tc, XdpMode::Auto, TcChoice::Clsact);
    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        capture.attach(&interface(INTERFACE)?, Directions::Both)?;
        assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [None, None]);
        if best_tc()?.0 == Hook::Tcx {
            let cut =
                TcxHolder::attach(&stage.server, INTERFACE, false, Place::Last, verdict::TC_OK)?;
            let expected = format!(
                "program {} ahead at tcx: 0 of {JUDGED} packets reached clsact",
                cut.program_id()
            );
            assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [Some(expected), None]);
        }
        // Behind ours, then ahead of it: classic programs that end the chain (TC_ACT_OK).
        for (priority, shadowed) in [("99", false), ("1", true)] {
            #[rustfmt::skip]
            stage.server.tc(&[
                "filter", "add", "dev", INTERFACE, "egress", "prio", priority, "protocol", "all",
                "bpf", "da", "bytecode", "1,6 0 0 0",
            ])?;
            let expected = shadowed.then(|| {
                format!("bpf filter ahead, of priority 1: 0 of {JUDGED} packets reached clsact")
            });
            assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [None, expected]);
        }
        stage.server.tc(&["qdisc", "delete", "dev", INTERFACE, "clsact"])?;
        let gone = || Some("another process that detached it from clsact".to_owned());
        assert_eq!(stage.shadowed_after_exchange(&mut capture)?, [gone(), gone()]);
        Ok(())
    })
}

#[test]
fn a_program_of_ours_that_somebody_detached_is_missed() -> Result<()> {
    for (hook, expected) in [(HookChoice::Xdp, "xdp native"), (HookChoice::Tc, "tcx")] {
        if best_tc()?.0 != Hook::Tcx && hook == HookChoice::Tc {
            continue;
        }
        let stage = Stage::new()?;
        let config = config(hook, XdpMode::Auto, TcChoice::Auto);
        stage.server.enter(|| {
            let mut capture = Capture::load(&config)?;
            let interface = interface(INTERFACE)?;
            capture.attach(&interface, Directions::Ingress)?;
            assert_eq!(capture.shadowed(interface.ifindex), [None, None]);
            for (kind, id) in bpf::held_by(Pid::this())? {
                if kind == bpf::Kind::Link {
                    bpf::detach_link(id)?;
                }
            }
            let expected = format!("another process that detached it from {expected}");
            assert_eq!(capture.shadowed(interface.ifindex), [Some(expected), None]);
            Ok(())
        })?;
    }
    Ok(())
}
