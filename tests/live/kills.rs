//! SIGKILL at random moments: while it loads, while it attaches, while it runs.

use std::{
    hash::{BuildHasher, RandomState},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tap53_capture::capture::{Filter, HookOwners, Qdisc};
use tap53_harness::{
    agent::{self, Agent},
    bpf, dns,
    frames::{FrameSocket, udp_to_port_53},
    namespace::Namespace,
    wait,
};

use crate::{
    DEADLINE,
    stage::{hook_owners, pair_between},
};

const KILLS: usize = 25;

/// Longer than it takes to load and to attach, so that some kills come before, some during and some
/// after.
const LATEST_MS: u64 = 2_000;

#[test]
fn kills_at_random_moments_leave_nothing_where_links_hold_the_programs() -> Result<()> {
    kill_again_and_again("hook: xdp, tc: tcx")
}

#[test]
fn kills_at_random_moments_leave_what_the_next_start_removes_and_nothing_of_others() -> Result<()> {
    kill_again_and_again("hook: tc, tc: clsact")
}

fn kill_again_and_again(capture: &str) -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    for pair in ["a", "b"] {
        pair_between(&server, &client, pair)?;
    }
    // Somebody else's, on one of the two interfaces.
    server.tc(&["qdisc", "add", "dev", "b0", "clsact"])?;
    #[rustfmt::skip]
    server.tc(&["filter", "add", "dev", "b0", "ingress", "prio", "7", "protocol", "all",
                "bpf", "bytecode", "1,6 0 0 0"])?;
    let before = both(&server)?;
    let by_links = capture.contains("tcx");
    let yaml = format!(
        "interfaces: {{include: [a0, b0]}}\ncapture: {{{capture}, workers: 1, ring_bytes: 131072}}\n"
    );
    for number in 0..KILLS {
        let mut agent = Agent::launch(server.command(agent::binary()?), &yaml, &[])?;
        let delay = Duration::from_millis(RandomState::new().hash_one(number) % LATEST_MS);
        thread::park_timeout(delay);
        let what = format!("kill {number}, after {delay:?}");
        // What it holds at this moment is what must go.
        agent.process().signal(Signal::SIGSTOP)?;
        let held = bpf::held_by(agent.process().pid()).with_context(|| what.clone())?;
        agent.process_mut().kill();
        wait::until(&format!("{what}: its links, programs and maps to go"), DEADLINE, || {
            for object in &held {
                // A filter keeps its program, and that its maps.
                let is_kept = !by_links && object.0 != bpf::Kind::Link;
                if !is_kept && bpf::exists(*object)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        let after = both(&server)?;
        if by_links {
            assert_eq!(after, before, "{what}");
        }
        require_foreign(&after[1]).with_context(|| what.clone())?;
    }
    // The next one removes what is left, captures, and leaves nothing itself.
    let agent = Agent::start(&server, &yaml, &[])?;
    FrameSocket::open(&client, "b1")?
        .send(&udp_to_port_53(1, &dns::query(1, "www.tap53.test", "A")))?;
    agent.wait_for_output("www.tap53.test", 0, DEADLINE)?;
    let ended = agent.stop()?;
    assert_eq!(ended.ledger["balanced"], true);
    assert_eq!(both(&server)?, before);
    Ok(())
}

fn both(server: &Namespace) -> Result<[HookOwners; 2]> {
    Ok([hook_owners(server, "a0")?, hook_owners(server, "b0")?])
}

fn require_foreign(of: &HookOwners) -> Result<()> {
    let is_foreign = |filter: &&Filter| filter.priority == 7;
    ensure!(of.qdisc == Qdisc::Clsact, "the foreign qdisc is gone");
    ensure!(of.filters.iter().filter(is_foreign).count() == 1, "{:?}", of.filters);
    Ok(())
}
