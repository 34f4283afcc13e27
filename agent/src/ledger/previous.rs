//! What a ledger says of the runs before this one: how they ended, what they lost, and what nobody
//! captured in between. [`crate::runs`] finds it out.

use serde::{Deserialize, Serialize};

use super::standing::{Lost, Standing};

/// How the run before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It stopped, delivered what it could, and said so.
    InGoodOrder,
    /// It did not come to that.
    Killed,
    /// It has not ended: both capture.
    StillRunning,
}

/// What this run knows of the one before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreviousRun {
    /// How it ended.
    pub ended: End,
    /// When it last wrote, RFC 3339.
    pub last_written_at: String,
    /// What nobody captured between that run and this one; `None` if the two overlapped.
    pub gap: Option<Gap>,
    /// What it had in memory when it last wrote, and had lost until then. After an end in good order
    /// nothing is in memory.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Sums of all runs before this one, the previous one included, since the directory is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlierRuns {
    /// How many.
    pub runs: u64,
    /// Those of them that did not end in good order.
    pub killed: u64,
    /// Time between them in which nobody captured.
    pub gap_seconds: f64,
    /// Packets that passed meanwhile.
    pub gap_packets: Bounds,
    /// What they had counted as lost.
    pub lost: Lost,
}

/// What is known of the runs before.
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
    /// No fewer.
    pub at_least: u64,
    /// No more.
    pub at_most: u64,
}

impl std::ops::AddAssign for Bounds {
    fn add_assign(&mut self, other: Self) {
        self.at_least = self.at_least.saturating_add(other.at_least);
        self.at_most = self.at_most.saturating_add(other.at_most);
    }
}

/// From when on the packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// From where the run before stopped.
    Stop,
    /// From where the run before was when it last wrote: it was killed some time after that.
    LastWritten,
    /// From the start of the machine. What passed between the end of the run before and the end of
    /// the machine is not known.
    Boot,
}

/// What nobody captured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// How long, at most.
    pub seconds: f64,
    /// From when on packets are counted.
    pub since: Since,
    /// Packets of all interfaces.
    pub packets: Bounds,
    /// Of each interface that both runs captured from.
    pub interfaces: Vec<InterfaceGap>,
}

/// What nobody captured of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceGap {
    /// Its name now.
    pub name: String,
    /// What arrived, where that is captured.
    pub ingress: Option<Bounds>,
    /// What left, where that is captured.
    pub egress: Option<Bounds>,
}
