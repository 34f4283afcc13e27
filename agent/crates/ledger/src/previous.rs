//! Earlier runs in a ledger: their ends, their losses, and the packets that no agent captured in between.
//! `agent/src/runs` finds them out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tap53_ebpf::settings::Direction;

/// The end of the previous run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It stopped, delivered what it could, and recorded that it had stopped.
    InGoodOrder,
    /// It was killed before that.
    Killed,
    /// It has not ended: both runs capture.
    StillRunning,
}

/// The previous run, as this run knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreviousRun {
    /// Its end.
    pub ended: End,
    /// Time at which it last wrote, RFC 3339.
    pub last_written_at: String,
    /// The gap between that run and this one, in which no agent captured; `None` if the two overlapped.
    pub gap: Option<Gap>,
    /// Its contents of memory when it last wrote, and its losses until then. After an end in good order
    /// nothing is in memory.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Sums of all runs before this one, the previous one included, since the directory is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlierRuns {
    /// Number of runs.
    pub runs: u64,
    /// Number of runs that did not end in good order.
    pub killed: u64,
    /// Seconds between them in which no agent captured.
    pub gap_seconds: f64,
    /// Packets that passed meanwhile.
    pub gap_packets: Bounds,
    /// Their losses.
    pub lost: Lost,
}

/// The previous run, and sums of all earlier runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreviousRuns {
    /// The run before this one; `None` if there was none.
    pub previous_run: Option<PreviousRun>,
    /// All runs before this one.
    pub earlier_runs: EarlierRuns,
}

/// Bounds of a number of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The lower bound.
    pub at_least: u64,
    /// The upper bound.
    pub at_most: u64,
}

impl std::ops::AddAssign for Bounds {
    fn add_assign(&mut self, other: Self) {
        self.at_least = self.at_least.saturating_add(other.at_least);
        self.at_most = self.at_most.saturating_add(other.at_most);
    }
}

/// The beginning of the time for which packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// The run before stopped then.
    Stop,
    /// The run before last wrote then, and was killed some time after that.
    LastWritten,
    /// The machine started then. Packets between the end of the run before and the shutdown of the machine
    /// are not known.
    Boot,
}

/// Time between two runs, and the packets that passed in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// Seconds between the two runs, at most.
    pub seconds: f64,
    /// The beginning of the time for which packets are counted.
    pub since: Since,
    /// Packets of all interfaces.
    pub packets: Bounds,
    /// Each interface that both runs captured from.
    pub interfaces: Vec<InterfaceGap>,
}

/// Packets of an interface that passed between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceGap {
    /// Its name now.
    pub name: String,
    /// True for ends of pairs, of which there is one for each pod.
    #[serde(skip)]
    pub is_pair: bool,
    /// Packets that arrived, where that direction is captured.
    pub ingress: Option<Bounds>,
    /// Packets that left, where that direction is captured.
    pub egress: Option<Bounds>,
}

impl InterfaceGap {
    /// Returns the bounds of one direction; `None` where it is not captured.
    #[must_use]
    pub const fn of(&self, direction: Direction) -> Option<Bounds> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// Counts by the name of their reason, which may be one of another version.
pub(crate) type ByName = BTreeMap<String, u64>;

/// Packets, messages and records that a run has in memory, and that it lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Packets in rings, captured and not yet read.
    pub packets_in_rings: u64,
    /// Messages of queries that wait for their response. Fragments and parts of streams do not count.
    pub messages_pending: u64,
    /// Records that are in memory alone, by sink.
    pub records_in_memory: ByName,
    /// Its losses.
    pub lost: Lost,
}

/// Losses by reason, without reasons that did not occur.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// Losses of each stage before the sinks, by its name; packets at the hooks of all interfaces are
    /// `hook_packets`. An earlier version may have written fewer stages.
    #[serde(flatten)]
    pub stages: BTreeMap<String, ByName>,
    /// Records, by sink and reason.
    pub records: BTreeMap<String, ByName>,
}

impl Lost {
    /// Adds what another run lost.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in
            [(&mut self.stages, &other.stages), (&mut self.records, &other.records)]
        {
            for (name, theirs) in theirs {
                add(mine.entry(name.clone()).or_default(), theirs);
            }
        }
    }
}

fn add(sum: &mut ByName, more: &ByName) {
    for (reason, count) in more {
        let sum = sum.entry(reason.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}
