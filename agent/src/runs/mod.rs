//! What one run of the agent leaves to the next: where capture stopped, and what was lost.
//!
//! Between two runs nobody captures. How long, and how many packets passed meanwhile, is known from
//! the devices' own counters, read where one run stops and where the next one begins:
//!
//! ```text
//!  one run                                     the next
//!  ────────┬──────────┬─────────────    ┌──────────┬─────────────▶ time
//!          read    detach    read       read     attach    read
//!          │                 └─ at least ┘                    │
//!          └───────────────────── at most ────────────────────┘
//! ```
//!
//! - Counters and hooks cannot be read in one moment, so there are two bounds. Both count packets of
//!   the device, DNS or not.
//! - While it runs, a run writes all of this down every second. If it is killed, the next one counts
//!   from there: then `at_most` also holds what the killed run has captured since, and what it had
//!   in memory at that time is told beside it. A packet of a killed run is lost in one of these two.
//! - What a run had counted as lost when it last wrote is told by the next one, and added to what
//!   all runs before it had lost.
//! - One writer: the directory is locked. A run that finds it locked overlaps another one; it writes
//!   once that one has ended.
//! - Nothing here keeps the agent from capturing: what cannot be read or written is logged.
//!
//! Durations are by CLOCK_BOOTTIME, which nobody can set, and by the wall clock only across a
//! restart of the machine.

pub mod config;
mod file;
mod gap;
#[cfg(test)]
mod tests;

use std::fs::File;

use tap53_capture::interfaces::{self, PacketCounts, config::Directions};
use tap53_ledger::{Bounds, EarlierRuns, End, Gap, PreviousRun, PreviousRuns, Standing};

use crate::runs::config::StateConfig;
use file::{Moment, Place, Position, Saved, Stage};

/// This run, to be written down; and those before, to be told.
#[derive(Debug)]
pub struct Runs {
    /// `None` where nothing is written down.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    place: Place,
    /// `None` while another agent has it.
    lock: Option<File>,
    told: PreviousRuns,
    /// What is written next.
    saved: Saved,
    /// Whether writing fails: each time is logged once.
    fails: bool,
}

/// Counters read before attaching.
#[derive(Debug)]
pub struct Before(Vec<PacketCounts>);

impl Runs {
    /// Opens the directory of the configuration, and locks it unless another agent has it.
    #[must_use]
    pub fn open(config: &StateConfig) -> Self {
        let Some(directory) = &config.directory else { return Self { kept: None } };
        let opened = Place::open(directory);
        let (place, lock) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let directory = directory.display();
                tracing::error!(%error, %directory, "cannot use the directory of the state: what passes between two runs will not be known");
                return Self { kept: None };
            }
        };
        let told = PreviousRuns { previous_run: None, earlier_runs: EarlierRuns::default() };
        let saved = Saved::new(Moment::now());
        Self { kept: Some(Kept { place, lock, told, saved, fails: false }) }
    }

    /// To be called right before capture begins.
    #[must_use]
    pub fn before_attaching(&self) -> Before {
        Before(if self.kept.is_some() { count() } else { Vec::new() })
    }

    /// To be called right after capture has begun on the interfaces of these numbers: works out what
    /// nobody captured since the run before.
    pub fn attached(&mut self, before: &Before, captured: &[(u32, Directions)]) {
        let Some(kept) = &mut self.kept else { return };
        let after = count();
        let now = Moment::now();
        let previous = kept.place.read();
        // Only now: if it has gone on until here, it captured together with us.
        if kept.lock.is_none() {
            kept.lock = kept.place.try_lock();
        }
        let is_running = kept.lock.is_none();
        if let Some(previous) = previous {
            let overlaps = is_running && previous.stage == Stage::Running;
            let gap =
                (!overlaps).then(|| gap::between(&previous, &before.0, &after, captured, now));
            kept.take_in(&previous, gap, is_running);
            kept.told.previous_run.iter().for_each(say);
        }
        kept.saved.positions = positions(&after, captured);
        kept.saved.positions_at = now;
        if !is_running {
            kept.write(now);
        }
    }

    /// Every second: writes down where this run is.
    pub fn beat(&mut self, captured: &[(u32, Directions)], standing: &dyn Fn() -> Standing) {
        let Some(kept) = &mut self.kept else { return };
        if kept.lock.is_none() {
            kept.lock = kept.place.try_lock();
            if kept.lock.is_none() {
                return;
            }
            tracing::info!("the other agent has ended: this one alone captures now");
            if let Some(previous) = kept.place.read() {
                // Its last word. What passed between the two is known already.
                let gap = kept.told.previous_run.take().and_then(|previous| previous.gap);
                kept.take_in(&previous, gap, false);
            }
        }
        let now = Moment::now();
        kept.saved.standing = standing();
        kept.saved.positions = positions(&count(), captured);
        kept.saved.positions_at = now;
        kept.write(now);
    }

    /// Right before everything is detached.
    pub fn stopping(&mut self, captured: &[(u32, Directions)], standing: &dyn Fn() -> Standing) {
        if let Some(kept) = &mut self.kept {
            kept.saved.stage = Stage::Stopping;
        }
        self.beat(captured, standing);
    }

    /// Right after everything was detached.
    pub fn detached(&mut self) {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.lock.is_some()) else { return };
        let after = count();
        for position in &mut kept.saved.positions {
            let found = after.iter().find(|counts| counts.ifindex == position.ifindex);
            position.packets_after = found.map(|counts| counts.packets);
        }
        kept.saved.stage = Stage::Detached;
        kept.write(Moment::now());
    }

    /// At the very end.
    pub fn ended(&mut self, standing: Standing) {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.lock.is_some()) else { return };
        kept.saved.stage = Stage::Ended;
        kept.saved.standing = standing;
        kept.write(Moment::now());
    }

    /// What is known of the runs before; `None` where nothing is written down.
    #[must_use]
    pub fn told(&self) -> Option<&PreviousRuns> {
        self.kept.as_ref().map(|kept| &kept.told)
    }
}

impl Kept {
    fn take_in(&mut self, previous: &Saved, gap: Option<Gap>, is_running: bool) {
        let ended = match previous.stage {
            _ if is_running => End::StillRunning,
            Stage::Ended => End::InGoodOrder,
            _ => End::Killed,
        };
        let told = PreviousRun {
            ended,
            last_written_at: previous.written_at.text(),
            gap,
            standing: previous.standing.clone(),
        };
        let mut earlier = previous.earlier.clone();
        earlier.runs += 1;
        earlier.killed += u64::from(ended == End::Killed);
        if let Some(gap) = &told.gap {
            earlier.gap_seconds += gap.seconds;
            earlier.gap_packets += gap.packets;
        }
        earlier.lost.add(&previous.standing.lost);
        self.saved.earlier = earlier.clone();
        self.told = PreviousRuns { previous_run: Some(told), earlier_runs: earlier };
    }

    fn write(&mut self, now: Moment) {
        self.saved.written_at = now;
        match self.place.write(&self.saved) {
            Ok(()) => self.fails = false,
            Err(error) if !self.fails => {
                self.fails = true;
                let directory = self.place.directory().display();
                tracing::error!(%error, %directory, "cannot write down where capture is: if this run is killed, the next one knows less of the gap");
            }
            Err(_) => {}
        }
    }
}

fn say(previous: &PreviousRun) {
    let Some(gap) = &previous.gap else {
        tracing::warn!(
            "another agent captures too: until it ends, what both see is recorded twice, under \
             record ids of two runs"
        );
        return;
    };
    let Bounds { at_least, at_most } = gap.packets;
    let seconds = format!("{:.3}", gap.seconds);
    match previous.ended {
        End::InGoodOrder | End::StillRunning => tracing::warn!(
            seconds,
            at_least,
            at_most,
            "nobody captured between the run before and this one: so many packets passed"
        ),
        End::Killed => {
            let Standing { packets_in_rings, messages_pending, records_in_memory, .. } =
                &previous.standing;
            tracing::warn!(
                seconds,
                at_least,
                at_most,
                packets_in_rings,
                messages_pending,
                records_in_memory = records_in_memory.values().sum::<u64>(),
                "the run before was killed: so many packets passed since it last wrote, and so \
                 much was in its memory then"
            );
        }
    }
}

/// What the devices have counted; nothing if the kernel does not tell.
fn count() -> Vec<PacketCounts> {
    interfaces::packet_counts().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the interfaces' own counters");
        Vec::new()
    })
}

fn positions(counts: &[PacketCounts], captured: &[(u32, Directions)]) -> Vec<Position> {
    let position = |(ifindex, directions): &(u32, Directions)| {
        let counts = counts.iter().find(|counts| counts.ifindex == *ifindex)?;
        Some(Position {
            name: counts.name.clone(),
            ifindex: *ifindex,
            captured: tap53_ebpf::settings::Direction::ALL.map(|of| directions.contains(of)),
            packets: counts.packets,
            packets_after: None,
        })
    };
    captured.iter().filter_map(position).collect()
}
