//! What a verification found.

use std::fmt;

use serde::Serialize;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Records are not as the agent wrote them: altered, exchanged, or one in place of another.
    RecordsAltered,
    /// More records are missing than the ledger counts as lost.
    RecordsMissing,
    /// Two different records have one number.
    RecordsConflict,
    /// No agent whose summaries are here wrote them.
    RecordsUnknown,
    /// They cannot be read.
    RecordsUnreadable,
    /// Summaries of a run are missing.
    SummariesMissing,
    /// A summary is not the one that the next one follows, or there are two of one window.
    SummaryAltered,
    /// A summary cannot be read.
    SummaryUnreadable,
    /// A summary is not signed by any of the given keys.
    SignatureInvalid,
}

/// One finding, with where it is as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
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
    /// In words.
    pub what: String,
}

/// Records by what is proven of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Records {
    /// Numbers that the summaries say were given.
    pub expected: u64,
    /// Different records that came.
    pub arrived: u64,
    /// The same record once more, as retries and restarts deliver it.
    pub duplicates: u64,
    /// As the agent wrote them.
    pub proven: u64,
    /// In a link of the chain of which another record is missing.
    pub beside_missing: u64,
    /// In no link: the agent writes none, or a summary is missing.
    pub without_link: u64,
    /// After the last summary of their run.
    pub after_last_summary: u64,
    /// Before the oldest summary of their run.
    pub before_first_summary: u64,
    /// Missing, and settled: they do not come any more.
    pub missing: u64,
    /// Missing, and possibly on their way.
    pub on_their_way: u64,
    /// Lost as the ledgers of these runs count.
    pub lost: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Runs of agents.
    pub runs: u64,
    /// Runs without a last summary: they go on, were killed, or it is missing.
    pub runs_without_end: u64,
    /// Different summaries.
    pub summaries: u64,
    /// Summaries that are missing, and that their agents say they lost.
    pub summaries_lost: u64,
    /// Those whose signature one of the given keys verifies.
    pub signatures_valid: u64,
    /// Those with a signature that nobody checked, for want of a key.
    pub signatures_unchecked: u64,
    /// Records.
    pub records: Records,
    /// What is wrong; empty if everything that came is what was written.
    pub findings: Vec<Finding>,
}

/// Findings that the text has at most.
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
    /// The same, with words.
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
