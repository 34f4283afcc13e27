//! Fixed reports: tables that are made of all selected records in one pass.
//!
//! A report keeps one row for each name, client, server or the like that occurs, so its memory grows with
//! their number and not with that of the records.

mod groups;
mod histogram;
mod signals;
mod table;
mod tables;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use clap::ValueEnum;

use crate::{
    format::Format,
    query::Consumer,
    row::{Fields, Row},
};

pub use groups::{Columns, Totals, endpoint};
pub use histogram::Histogram;
use signals::SignalTables;
pub use table::{Cell, Table};
use tables::GroupTables;

/// A fixed report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Names by number of transactions.
    TopNames,
    /// Clients: workloads or pods if they are known, else addresses.
    Clients,
    /// Response codes.
    Rcodes,
    /// Response times by server.
    Latency,
    /// Unanswered queries by client and server.
    Unanswered,
    /// Where answers of resolvers came from, and the time that took.
    Chains,
    /// Signs of spoofing: conflicting and forged responses and others.
    Conflicts,
    /// Domains below which a client exchanges data in names.
    Tunnels,
    /// Registrable domains that were seen for the first time, the latest first.
    NewDomains,
    /// Everything that an analyst may want to look at, by client and domain.
    Signals,
}

/// The table of a report in progress.
pub enum Tables {
    /// Counts of groups.
    Groups(GroupTables),
    /// Signals.
    Signals(SignalTables),
}

impl Tables {
    /// Creates a report without records; the fields that it needs are added to `fields`.
    #[must_use]
    pub fn new(kind: Kind, fields: &mut Fields) -> Self {
        match kind {
            Kind::Tunnels | Kind::NewDomains | Kind::Signals => {
                Self::Signals(SignalTables::new(kind, fields))
            }
            _ => Self::Groups(GroupTables::new(kind, fields)),
        }
    }

    /// Counts a record.
    pub fn add(&mut self, row: &Row<'_, '_>) {
        match self {
            Self::Groups(tables) => tables.add(row),
            Self::Signals(tables) => tables.add(row),
        }
    }

    /// Returns the table with at most `rows` rows.
    #[must_use]
    pub fn table(&self, rows: usize) -> Table {
        match self {
            Self::Groups(tables) => tables.table(rows),
            Self::Signals(tables) => tables.table(rows),
        }
    }
}

/// Makes a report of records.
pub struct Report<W> {
    tables: Tables,
    format: Format,
    rows: usize,
    out: W,
}

impl<W: Write> Report<W> {
    /// Creates a report of at most `rows` rows; the fields that it needs are added to `fields`.
    pub fn new(kind: Kind, format: Format, rows: usize, fields: &mut Fields, out: W) -> Self {
        Self { tables: Tables::new(kind, fields), format, rows, out }
    }
}

impl<W: Write> Consumer for Report<W> {
    fn take(&mut self, row: &Row<'_, '_>) -> io::Result<()> {
        self.tables.add(row);
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let table = self.tables.table(self.rows);
        self.out.write_all(&table.write(self.format))?;
        self.out.flush()
    }
}
