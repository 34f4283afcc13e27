//! The status shows programs that run before ours, and their removal.

use anyhow::{Result, ensure};
use tap53_harness::{
    bpf::{Place, TcxHolder, verdict},
    dns,
    frames::{FrameSocket, udp_to_port_53},
    wait,
};

use crate::{DEADLINE, stage::Stage};

/// Needs a kernel with TCX.
#[test]
fn the_program_that_keeps_packets_away_is_in_the_status_until_it_goes() -> Result<()> {
    let stage = Stage::new("")?;
    let agent = stage.start("include: [a0]")?;
    let socket = FrameSocket::open(&stage.client, "a1")?;
    let query = udp_to_port_53(4_242, &dns::query(1, "www.tap53.test", "A"));
    let is_told = |wanted: &str| {
        wait::until(wanted, DEADLINE, || {
            (0..32).try_for_each(|_| socket.send(&query))?;
            let Some(a0) = agent.interface("a0")? else { return Ok(None) };
            ensure!(a0.egress.shadowed.is_none(), "{a0:?}");
            let shadowed = a0.ingress.shadowed.as_deref().unwrap_or("nobody");
            Ok(shadowed.starts_with(wanted).then_some(()))
        })
    };
    is_told("nobody")?;
    for (verdict, ending) in [(verdict::TC_OK, ": 0 of "), (verdict::TC_NEXT, ", which lets")] {
        let ahead = TcxHolder::attach(&stage.server, "a0", false, Place::First, verdict)?;
        is_told(&format!("program {} ahead at tcx{ending}", ahead.program_id()))?;
        drop(ahead);
        is_told("nobody")?;
    }
    agent.stop()?;
    stage.require_bare()
}
