//! The report of a verification.

use std::fmt;

use serde::Serialize;

/// Kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Records are not as the agent wrote them: altered, exchanged or replaced.
    RecordsAltered,
    /// More records are missing than the ledger counts as lost.
    RecordsMissing,
    /// Two different records have the same number.
    RecordsConflict,
    /// Records were not written by any agent whose summaries were given.
    RecordsUnknown,
    /// Records cannot be read.
    RecordsUnreadable,
    /// Summaries of a run are missing.
    SummariesMissing,
    /// A summary is not the predecessor of the next one, or a window has two summaries.
    SummaryAltered,
    /// A summary cannot be read.
    SummaryUnreadable,
    /// A summary is not signed by any of the given keys.
    SignatureInvalid,
}

/// A finding, with its position as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Kind of the finding.
    pub kind: Kind,
    /// Name of the node.
    pub node: String,
    /// Run of the agent.
    pub run_id: String,
    /// First and last window.
    pub windows: Option<[i64; 2]>,
    /// Worker.
    pub worker: Option<u32>,
    /// First and last number of records.
    pub records: Option<[u64; 2]>,
    /// Description.
    pub what: String,
}

/// Numbers of records, by what is proven of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Records {
    /// Records that the summaries have numbered.
    pub expected: u64,
    /// Distinct records that have arrived.
    pub arrived: u64,
    /// Duplicates, as retries and restarts deliver them.
    pub duplicates: u64,
    /// Records that are as the agent wrote them.
    pub proven: u64,
    /// Records in a link of the chain in which another record is missing.
    pub beside_missing: u64,
    /// Records without a link: the agent writes none, or a summary is missing.
    pub without_link: u64,
    /// Records after the last summary of their run.
    pub after_last_summary: u64,
    /// Records before the oldest summary of their run.
    pub before_first_summary: u64,
    /// Missing records that cannot arrive any more.
    pub missing: u64,
    /// Missing records that may still arrive.
    pub on_their_way: u64,
    /// Records that the ledgers of these runs count as lost.
    pub lost: u64,
}

/// The report of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Number of runs.
    pub runs: u64,
    /// Runs without a last summary: they are running, were killed, or the summary is missing.
    pub runs_without_end: u64,
    /// Distinct summaries.
    pub summaries: u64,
    /// Missing summaries that their agents report as lost.
    pub summaries_lost: u64,
    /// Summaries whose signature one of the given keys verifies.
    pub signatures_valid: u64,
    /// Summaries whose signature was not checked, since no key was given.
    pub signatures_unchecked: u64,
    /// Numbers of records.
    pub records: Records,
    /// Findings; empty if everything that has arrived is as it was written.
    pub findings: Vec<Finding>,
}

/// Maximum number of findings in the text.
const SHOWN: usize = 100;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.records;
        writeln!(f, "summaries: {} of {} runs", self.summaries, self.runs)?;
        if self.runs_without_end > 0 {
            writeln!(
                f,
                "  {} runs have no final summary: they go on, or the agent was killed",
                self.runs_without_end
            )?;
        }
        if self.summaries_lost > 0 {
            writeln!(f, "  {} are missing, which their agents count as lost", self.summaries_lost)?;
        }
        if self.signatures_valid > 0 {
            writeln!(f, "  {} signatures are valid", self.signatures_valid)?;
        }
        if self.signatures_unchecked > 0 {
            let unchecked = self.signatures_unchecked;
            writeln!(f, "  {unchecked} signatures were not checked: name a public key by --key")?;
        }
        writeln!(f, "records: {} expected, {} arrived", of.expected, of.arrived)?;
        writeln!(f, "  proven: {}", of.proven)?;
        for (records, what) in [
            (of.beside_missing, "not proven, beside missing ones in a link of the chain"),
            (of.without_link, "not proven, in no link of a chain"),
            (of.after_last_summary, "not proven, after the last summary of their run"),
            (of.before_first_summary, "not proven, before the oldest summary of their run"),
            (of.duplicates, "delivered again, unchanged"),
            (of.on_their_way, "missing, and possibly on their way"),
        ] {
            if records > 0 {
                writeln!(f, "  {what}: {records}")?;
            }
        }
        if of.missing + of.lost > 0 {
            writeln!(f, "  missing: {}; lost as the ledger counts: {}", of.missing, of.lost)?;
        }
        for finding in self.findings.iter().take(SHOWN) {
            writeln!(f, "{finding}")?;
        }
        if let more @ 1.. = self.findings.len().saturating_sub(SHOWN) {
            writeln!(f, "and {more} more; -o json has all of them")?;
        }
        match self.findings.is_empty() {
            true => writeln!(f, "no tampering found"),
            false => writeln!(f, "{} findings", self.findings.len()),
        }
    }
}

impl Finding {
    /// Returns the finding with a description.
    pub(super) fn because(self, what: &str) -> Self {
        Self { what: what.to_owned(), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FOUND")?;
        if !self.node.is_empty() {
            write!(f, " node {}", tap53_base::visible::visible(&self.node))?;
        }
        if !self.run_id.is_empty() {
            write!(f, " run {}", tap53_base::visible::visible(&self.run_id))?;
        }
        match self.windows {
            Some([first, last]) if first == last => write!(f, " window {first}")?,
            Some([first, last]) => write!(f, " windows {first} to {last}")?,
            None => {}
        }
        if let Some(worker) = self.worker {
            write!(f, " worker {worker}")?;
        }
        match self.records {
            Some([first, last]) if first == last => write!(f, " record {first}")?,
            Some([first, last]) => write!(f, " records {first} to {last}")?,
            None => {}
        }
        write!(f, ": {}", tap53_base::visible::visible(&self.what))
    }
}
