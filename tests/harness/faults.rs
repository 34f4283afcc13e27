//! The cost of a fault: a row of `docs/faults.md`. Tests write the rows, `cargo xtask faults` creates the
//! table, and both get the verdict from here, which depends on the row's numbers only.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Names the file to which the tests append a line of JSON for each row. Where it is set, they take
/// the numbers of the long form.
pub const ROWS_VARIABLE: &str = "TAP53_FAULT_ROWS";

/// The outcome of a numbered stream under one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its place in the table.
    pub place: u32,
    /// The fault, for people.
    pub fault: String,
    /// The spool's mode.
    pub mode: String,
    /// Numbered queries sent while an agent captured.
    pub sent: u64,
    /// Messages in the topic.
    pub messages: u64,
    /// Different values of `record_id` among them.
    pub records: u64,
    /// Different numbers among them.
    pub numbers: u64,
    /// Numbers among them that were never sent.
    pub foreign: u64,
    /// Losses by reason, from the ledgers of all runs.
    pub lost: BTreeMap<String, u64>,
    /// Numbers that a killed agent had captured and not yet accepted, which it cannot count.
    pub unaccepted: u64,
    /// Records that a killed agent may have had in memory, by its configuration, in all kills.
    pub bound: u64,
    /// Runs of the agent that ended and wrote a ledger.
    pub ledgers: u64,
    /// Number of these that balance.
    pub balanced: u64,
    /// Runs that were killed.
    pub kills: u64,
    /// Most memory that the agent had resident, KiB.
    pub peak_kib: u64,
    /// The memory limit, if one was set.
    pub cap_kib: Option<u64>,
    /// Lines of its log with WARN or ERROR.
    pub complaints: u64,
}

impl Row {
    /// Numbers that were sent and are not in the topic.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        (self.sent + self.foreign).saturating_sub(self.numbers)
    }

    /// Messages whose record came before.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.messages.saturating_sub(self.records)
    }

    /// Losses that a ledger counts.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Returns the violations of the identity that each number is consumed, or counted under a reason.
    /// Empty if it holds.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.sent == 0 || self.ledgers == 0 {
            problems.push("nothing was tried".to_owned());
        }
        let explained = self.counted() + self.unaccepted + self.bound;
        if self.missing() > explained {
            problems.push(format!("{} missing, {explained} explained", self.missing()));
        }
        if self.foreign > 0 {
            problems.push(format!("{} that nobody sent", self.foreign));
        }
        if self.balanced != self.ledgers {
            problems.push(format!("{} of {} ledgers balance", self.balanced, self.ledgers));
        }
        if let Some(cap_kib) = self.cap_kib
            && self.peak_kib > cap_kib
        {
            problems.push(format!("{} KiB of {cap_kib}", self.peak_kib));
        }
        problems
    }

    /// Appends it to the file of [`ROWS_VARIABLE`], where that is set.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn write(&self) -> Result<()> {
        let Some(path) = env::var_os(ROWS_VARIABLE) else { return Ok(()) };
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(&line))
            .with_context(|| format!("write {}", Path::new(&path).display()))
    }

    /// All rows of a file, in the order of the table. Of those that were tried more than once, the
    /// last.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_all(path: &Path) -> Result<Vec<Self>> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut rows = BTreeMap::new();
        for line in text.lines() {
            let row: Self = serde_json::from_str(line).context("a row")?;
            rows.insert((row.place, row.mode.clone()), row);
        }
        Ok(rows.into_values().collect())
    }
}

/// True where the numbers of the long form are wanted.
#[must_use]
pub fn is_long() -> bool {
    env::var_os(ROWS_VARIABLE).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            sent: 100,
            messages: 95,
            records: 90,
            numbers: 90,
            lost: BTreeMap::from([("dropped_oldest".to_owned(), 10)]),
            ledgers: 1,
            balanced: 1,
            ..Row::default()
        }
    }

    #[test]
    fn what_is_missing_must_be_explained() {
        assert_eq!(row().problems(), Vec::<String>::new());
        assert_eq!((row().missing(), row().duplicates()), (10, 5));
        let mut silent = row();
        silent.lost = BTreeMap::from([("dropped_oldest".to_owned(), 9)]);
        assert_eq!(silent.problems(), ["10 missing, 9 explained"]);
        silent.unaccepted = 1;
        assert_eq!(silent.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_number_that_nobody_sent_does_not_stand_for_one_that_is_missing() {
        let foreign = Row { numbers: 91, foreign: 1, ..row() };
        assert_eq!(foreign.missing(), 10);
        assert_eq!(foreign.problems(), ["1 that nobody sent"]);
    }

    #[test]
    fn imbalance_memory_and_nothing_tried_are_problems() {
        assert_eq!(Row { balanced: 0, ..row() }.problems(), ["0 of 1 ledgers balance"]);
        let large = Row { peak_kib: 9, cap_kib: Some(8), ..row() };
        assert_eq!(large.problems(), ["9 KiB of 8"]);
        assert_eq!(Row::default().problems(), ["nothing was tried"]);
    }
}
