//! Rows of `docs/signals-evaluation.md`: tests write them, `cargo xtask signals` makes the page.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Names the file to which the tests append a line of JSON for each row. Where it is set, they take the
/// long form.
pub const ROWS_VARIABLE: &str = "TAP53_SIGNAL_ROWS";

/// Returns true in the long form.
#[must_use]
pub fn is_long() -> bool {
    env::var_os(ROWS_VARIABLE).is_some()
}

/// A row of a table of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// Its cells.
    pub cells: Vec<String>,
}

/// A table of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// The benign lookups by what made them.
    Benign,
    /// Runs of benign lookups, with their false alarms.
    Alarms,
    /// Benign domains that were taken for tunnels, and clients for generators of domains.
    Named,
    /// Tunnels by tool, type and rate.
    Tunnels,
    /// Bursts by family and rate.
    Bursts,
    /// Rebinding by target.
    Rebinding,
}

impl Table {
    /// Returns the headings of its columns.
    #[must_use]
    pub const fn headings(self) -> &'static [&'static str] {
        match self {
            Self::Benign => &["made by", "lookups", "registrable domains", "clients"],
            Self::Alarms => &[
                "run",
                "lookups",
                "domains",
                "taken for tunnels",
                "rebinding",
                "clients",
                "taken for a generator",
            ],
            Self::Named => &["run", "signal", "domain or client", "made by", "marked lookups"],
            Self::Tunnels => &[
                "tool",
                "type",
                "payload, packets a second",
                "queries a second",
                "trials",
                "found",
                "queries: median",
                "most",
                "seconds: median",
                "most",
            ],
            Self::Bursts => {
                &["family", "domains a second", "trials", "found", "domains: median", "most"]
            }
            Self::Rebinding => &["target", "trials", "found", "marked before"],
        }
    }
}

impl Row {
    /// Prints the row, and appends it to the file if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<()> {
        println!("{:?}: {}", self.table, self.cells.join(" | "));
        let Some(path) = env::var_os(ROWS_VARIABLE) else { return Ok(()) };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", Path::new(&path).display()))?;
        writeln!(file, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }

    /// Reads all rows of a file.
    ///
    /// # Errors
    /// When a line is none.
    pub fn read_all(path: &Path) -> Result<Vec<Self>> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}
