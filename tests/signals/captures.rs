//! Captures real tunnels, several at a time.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use tap53_harness::{
    evaluation::is_long,
    lookups::{Lookup, labels, text_of},
    tunnel::{Pace, Stage, Tool},
};

/// The domain of the captured tunnels, which trials rename.
pub(crate) const DOMAIN: &str = "t.tunnel0000.example";

/// Payload of the short form, and of the long one: each packet makes about two queries, its own and the one
/// that fetches the echo. Those of a group run at the same time; the fastest need the machine.
const SHORT: [&[Pace]; 1] = [&[Pace { packets: 120, per_second: 50 }]];
const LONG: [&[Pace]; 2] = [
    &[
        Pace { packets: 110, per_second: 2 },
        Pace { packets: 400, per_second: 10 },
        Pace { packets: 1_000, per_second: 50 },
    ],
    &[Pace { packets: 2_500, per_second: 250 }],
];

/// The lookups of a tunnel.
pub(crate) struct Captured {
    pub(crate) tool: Tool,
    pub(crate) pace: Pace,
    pub(crate) lookups: Vec<Lookup>,
}

/// Runs every tool with every type at every pace.
pub(crate) fn take() -> Result<Vec<Captured>> {
    let groups: &[&[Pace]] = if is_long() { &LONG } else { &SHORT };
    let mut all = Vec::new();
    for paces in groups {
        all.extend(take_group(paces)?);
    }
    all.sort_by_key(|captured| (captured.tool, captured.pace.per_second));
    Ok(all)
}

fn take_group(paces: &[Pace]) -> Result<Vec<Captured>> {
    let tools = Tool::IODINE.into_iter().chain(Tool::SHORT_IODINE).chain(Tool::DNS2TCP);
    thread::scope(|scope| {
        let threads: Vec<_> = tools
            .flat_map(|tool| paces.iter().map(move |pace| (tool, *pace)))
            .map(|(tool, pace)| scope.spawn(move || take_one(tool, pace)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect()
    })
}

fn take_one(tool: Tool, pace: Pace) -> Result<Captured> {
    let mut stage = Stage::new(tool, DOMAIN)?;
    stage.run(pace).with_context(|| format!("{tool:?}"))?;
    let lookups = stage.captured()?;
    ensure!(
        lookups.len() > usize::try_from(pace.packets)?,
        "{tool:?} made {} lookups of {} packets",
        lookups.len(),
        pace.packets
    );
    let strange = lookups
        .iter()
        .find(|lookup| !text_of(labels(&lookup.name)).to_ascii_lowercase().ends_with(DOMAIN));
    ensure!(strange.is_none(), "{tool:?} asked for another domain: {strange:?}");
    Ok(Captured { tool, pace, lookups })
}
