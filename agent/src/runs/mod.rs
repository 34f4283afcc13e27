//! The state that one run of the agent saves for the next: where capture stopped, and its losses.
//!
//! Nobody captures between two runs. The length of that gap, and the packets that passed in it, are
//! known from the devices' own counters, which are read where one run stops and the next one starts:
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
//! - A run saves its state every second. If it is killed, the next one counts from the last save:
//!   then `at_most` includes what the killed run has captured since, and what it had in memory at
//!   that time is reported as well. A packet that a kill loses is in one of these two.
//! - The losses in the saved state are reported by the next run, and added to the losses of all runs
//!   before it.
//! - There is one writer: the directory is locked. A run that finds it locked overlaps another one,
//!   and writes after that one has ended.
//! - Nothing here keeps the agent from capturing: errors of reading or writing are logged.
//!
//! Durations are by CLOCK_BOOTTIME, which cannot be set, and by the wall clock only across a
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
use file::{Moment, Position, Saved, Stage, StateDirectory};

/// The state of this run, which is saved, and of the previous ones, which is reported.
#[derive(Debug)]
pub struct Runs {
    /// `None` if no directory is configured, or it cannot be used.
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    directory: StateDirectory,
    /// `None` while another agent holds it.
    lock: Option<File>,
    previous: PreviousRuns,
    /// The state of this run, to be saved next.
    saved: Saved,
    /// Set while writing fails, so that it is logged once.
    is_failing: bool,
}

/// Packet counters read before attaching.
#[derive(Debug)]
pub struct Before(Vec<PacketCounts>);

impl Runs {
    /// Opens the configured directory, and locks it unless another agent has locked it.
    #[must_use]
    pub fn open(config: &StateConfig) -> Self {
        let Some(directory) = &config.directory else { return Self { state: None } };
        let (directory, lock) = match StateDirectory::open(directory) {
            Ok(opened) => opened,
            Err(error) => {
                let directory = directory.display();
                tracing::error!(
                    event = "state_directory_unusable",
                    %error,
                    %directory,
                    "cannot use the state directory: the capture gap between two runs will be unknown"
                );
                return Self { state: None };
            }
        };
        let previous = PreviousRuns { previous_run: None, earlier_runs: EarlierRuns::default() };
        let saved = Saved::new(Moment::now());
        Self { state: Some(State { directory, lock, previous, saved, is_failing: false }) }
    }

    /// Reads the packet counters. Must be called right before capture begins.
    #[must_use]
    pub fn before_attaching(&self) -> Before {
        Before(if self.state.is_some() { count() } else { Vec::new() })
    }

    /// Computes the capture gap since the previous run. Must be called right after capture has begun
    /// on the interfaces of these numbers.
    pub fn attached(&mut self, before: &Before, captured: &[(u32, Directions)]) {
        let Some(state) = &mut self.state else { return };
        let after = count();
        let now = Moment::now();
        let previous = state.directory.read();
        // Only now: if it has run until here, it captured together with us.
        if state.lock.is_none() {
            state.lock = state.directory.try_lock();
        }
        let is_running = state.lock.is_none();
        if let Some(previous) = previous {
            let overlaps = is_running && previous.stage == Stage::Running;
            let gap =
                (!overlaps).then(|| gap::between(&previous, &before.0, &after, captured, now));
            state.add_previous(&previous, gap, is_running);
            state.previous.previous_run.iter().for_each(log_previous_run);
        }
        state.saved.positions = positions(&after, captured);
        state.saved.positions_at = now;
        if !is_running {
            state.write(now);
        }
    }

    /// Saves the state of this run. Called every second.
    pub fn save(&mut self, captured: &[(u32, Directions)], standing: &dyn Fn() -> Standing) {
        let Some(state) = &mut self.state else { return };
        if state.lock.is_none() {
            state.lock = state.directory.try_lock();
            if state.lock.is_none() {
                return;
            }
            tracing::info!(
                event = "overlap_ended",
                "the other agent has ended: only this one captures now"
            );
            if let Some(previous) = state.directory.read() {
                // Its final state. The gap between the two is known already.
                let gap = state.previous.previous_run.take().and_then(|previous| previous.gap);
                state.add_previous(&previous, gap, false);
            }
        }
        let now = Moment::now();
        state.saved.standing = standing();
        state.saved.positions = positions(&count(), captured);
        state.saved.positions_at = now;
        state.write(now);
    }

    /// Saves that capture is about to end. Must be called right before everything is detached.
    pub fn stopping(&mut self, captured: &[(u32, Directions)], standing: &dyn Fn() -> Standing) {
        if let Some(state) = &mut self.state {
            state.saved.stage = Stage::Stopping;
        }
        self.save(captured, standing);
    }

    /// Saves the packet counters. Must be called right after everything was detached.
    pub fn detached(&mut self) {
        let Some(state) = self.state.as_mut().filter(|state| state.lock.is_some()) else { return };
        let after = count();
        for position in &mut state.saved.positions {
            let found = after.iter().find(|counts| counts.ifindex == position.ifindex);
            position.packets_after = found.map(|counts| counts.packets);
        }
        state.saved.stage = Stage::Detached;
        state.write(Moment::now());
    }

    /// Saves the final losses, at the end of the run.
    pub fn ended(&mut self, standing: Standing) {
        let Some(state) = self.state.as_mut().filter(|state| state.lock.is_some()) else { return };
        state.saved.stage = Stage::Ended;
        state.saved.standing = standing;
        state.write(Moment::now());
    }

    /// Returns what is known of the previous runs; `None` without a state directory.
    #[must_use]
    pub fn previous(&self) -> Option<&PreviousRuns> {
        self.state.as_ref().map(|state| &state.previous)
    }
}

impl State {
    fn add_previous(&mut self, previous: &Saved, gap: Option<Gap>, is_running: bool) {
        let ended = match previous.stage {
            _ if is_running => End::StillRunning,
            Stage::Ended => End::InGoodOrder,
            _ => End::Killed,
        };
        let run = PreviousRun {
            ended,
            last_written_at: previous.written_at.text(),
            gap,
            standing: previous.standing.clone(),
        };
        let mut earlier = previous.earlier.clone();
        earlier.runs += 1;
        earlier.killed += u64::from(ended == End::Killed);
        if let Some(gap) = &run.gap {
            earlier.gap_seconds += gap.seconds;
            earlier.gap_packets += gap.packets;
        }
        earlier.lost.add(&previous.standing.lost);
        self.saved.earlier = earlier.clone();
        self.previous = PreviousRuns { previous_run: Some(run), earlier_runs: earlier };
    }

    fn write(&mut self, now: Moment) {
        self.saved.written_at = now;
        match self.directory.write(&self.saved) {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                let directory = self.directory.path().display();
                tracing::error!(
                    event = "state_write_failed",
                    %error,
                    %directory,
                    "cannot save the state of this run: if it is killed, the gap is known less exactly"
                );
            }
            Err(_) => {}
        }
    }
}

fn log_previous_run(previous: &PreviousRun) {
    let Some(gap) = &previous.gap else {
        tracing::warn!(
            event = "agents_overlap",
            "another agent captures as well: until it ends, messages that both see are recorded \
             twice, under the record ids of two runs"
        );
        return;
    };
    let Bounds { at_least, at_most } = gap.packets;
    let seconds = format!("{:.3}", gap.seconds);
    match previous.ended {
        _ if missed_nothing(previous, gap) => tracing::info!(
            event = "gap_between_runs",
            seconds,
            at_least,
            at_most,
            "no packet passed uncaptured between the previous run and this one"
        ),
        End::InGoodOrder | End::StillRunning => tracing::warn!(
            event = "gap_between_runs",
            seconds,
            at_least,
            at_most,
            "packets passed uncaptured between the previous run and this one"
        ),
        End::Killed => {
            let Standing { packets_in_rings, messages_pending, records_in_memory, .. } =
                &previous.standing;
            tracing::warn!(
                event = "gap_after_kill",
                seconds,
                at_least,
                at_most,
                packets_in_rings,
                messages_pending,
                records_in_memory = records_in_memory.values().sum::<u64>(),
                "the previous run was killed: packets that passed since it last saved its state, \
                 and what was in its memory then"
            );
        }
    }
}

/// Returns true if no packet passed in the gap, and the previous run had nothing in memory.
fn missed_nothing(previous: &PreviousRun, gap: &Gap) -> bool {
    let Standing { packets_in_rings, messages_pending, records_in_memory, .. } = &previous.standing;
    let in_memory = packets_in_rings + messages_pending + records_in_memory.values().sum::<u64>();
    gap.packets.at_most == 0 && (previous.ended != End::Killed || in_memory == 0)
}

/// Reads the devices' packet counters; empty if that fails.
fn count() -> Vec<PacketCounts> {
    interfaces::packet_counts().unwrap_or_else(|error| {
        tracing::warn!(
            event = "packet_counters_unreadable",
            %error,
            "cannot read the devices' packet counters"
        );
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
