//! The reports about signals: tunnels, domains that were seen first, and all signals.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use hashbrown::{HashMap, HashSet};
use tap53_signals::Signal;

use super::{Cell, Columns, Kind, Table};
use crate::{
    row::{Fields, Row, Slot},
    signals::{Detected, Detection},
};

/// Maximum number of query types that a row names.
const SHOWN_TYPES: usize = 4;

/// A report about signals in progress.
pub struct SignalTables {
    kind: Kind,
    columns: Columns,
    qtype: Slot,
    sizes: [Slot; 2],
    detection: Detection,
    groups: HashMap<String, Group>,
    hasher: RandomState,
}

/// A client and a domain, or a domain, or one of them with a signal.
#[derive(Default)]
struct Group {
    /// The texts of the group's first columns.
    key: Vec<String>,
    transactions: u64,
    /// Transactions with the signal.
    marked: u64,
    /// Client and name of the first one of them.
    first_marked: Option<(String, String)>,
    /// Time of the first one of them.
    marked_us: Option<i64>,
    /// Times of the first and the last transaction.
    span_us: Option<(i64, i64)>,
    bytes: u64,
    /// Hashes of names and clients.
    names: HashSet<u64>,
    clients: HashSet<u64>,
    types: BTreeMap<String, u64>,
}

impl SignalTables {
    /// Creates a report without records; the fields that it needs are added to `fields`.
    #[must_use]
    pub fn new(kind: Kind, fields: &mut Fields) -> Self {
        Self {
            kind,
            columns: Columns::new(fields),
            qtype: fields.slot("qtype"),
            sizes: ["query_size", "response_size"].map(|name| fields.slot(name)),
            detection: Detection::new(fields),
            groups: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Counts a record.
    pub fn add(&mut self, row: &Row<'_, '_>) {
        let detected = self.detection.observe(row);
        let Some(domain) = self.detection.domain(row) else { return };
        let client = self.columns.client(row);
        let has = |signal| detected.signals.contains(signal);
        match self.kind {
            Kind::Tunnels => self.count(row, &[&client, domain], has(Signal::Tunnel)),
            Kind::NewDomains => {
                let is_new = has(Signal::NewDomainNode) || has(Signal::NewDomainWorkload);
                self.count(row, &[domain], is_new);
            }
            _ => {
                for signal in detected.signals.iter().filter(|signal| tells(detected, *signal)) {
                    self.count(row, &[signal.name(), &client, domain], true);
                }
            }
        }
    }

    fn count(&mut self, row: &Row<'_, '_>, key: &[&str], is_marked: bool) {
        // No name has a line feed: the profiles separate by it.
        let group = self.groups.entry_ref(key.join("\n").as_str()).or_insert_with(|| Group {
            key: key.iter().map(|text| (*text).to_owned()).collect(),
            ..Group::default()
        });
        let (client, qname) = (self.columns.client(row), self.columns.qname(row));
        group.transactions += 1;
        group.names.insert(self.hasher.hash_one(qname));
        group.clients.insert(self.hasher.hash_one(&*client));
        if let Some(qtype) = row.get(self.qtype).text() {
            match group.types.get_mut(qtype) {
                Some(count) => *count += 1,
                None => drop(group.types.insert(qtype.to_owned(), 1)),
            }
        }
        let bytes = self.sizes.map(|slot| row.get(slot).number().unwrap_or(0));
        group.bytes += bytes.iter().filter_map(|it| u64::try_from(*it).ok()).sum::<u64>();
        let time = self.columns.time(row);
        if let Some(time) = time {
            let (first, last) = group.span_us.unwrap_or((time, time));
            group.span_us = Some((first.min(time), last.max(time)));
        }
        if is_marked {
            group.marked += 1;
            if group.marked_us.is_none_or(|first| time.is_some_and(|time| time < first)) {
                group.marked_us = time;
                group.first_marked = Some((client.into_owned(), qname.to_owned()));
            }
        }
    }

    /// Returns the table of the first `rows` groups.
    #[must_use]
    pub fn table(&self, rows: usize) -> Table {
        let mut groups: Vec<&Group> = self.groups.values().filter(|it| it.marked > 0).collect();
        groups.sort_by(|one, other| self.order(one).cmp(&self.order(other)));
        groups.truncate(rows);
        let cells = |group: &&Group| self.cells(group);
        Table { columns: self.columns_of_table(), rows: groups.iter().map(cells).collect() }
    }

    /// Returns the place of a group among others: tunnels by their transactions, new domains from the
    /// latest one on.
    fn order<'a>(&self, group: &'a Group) -> (Reverse<i64>, &'a [String]) {
        let by = match self.kind {
            Kind::NewDomains => group.marked_us.unwrap_or(i64::MIN),
            _ => i64::try_from(group.marked).unwrap_or(i64::MAX),
        };
        (Reverse(by), &group.key)
    }

    fn columns_of_table(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Tunnels => vec![
                "client",
                "domain",
                "transactions",
                "marked",
                "names",
                "bytes",
                "qtypes",
                "first",
                "duration_ns",
            ],
            Kind::NewDomains => vec![
                "domain",
                "first",
                "first_client",
                "first_qname",
                "clients",
                "names",
                "transactions",
            ],
            _ => vec!["signal", "client", "domain", "transactions", "names", "first", "last"],
        }
    }

    fn cells(&self, group: &Group) -> Vec<Cell> {
        let number = Cell::Number;
        let count = |set: &HashSet<u64>| Cell::Number(set.len() as u64);
        let time = |time: Option<i64>| time.map_or(Cell::Empty, Cell::Time);
        let (first, last) = group.span_us.unzip();
        let mut cells: Vec<Cell> = group.key.iter().cloned().map(Cell::Text).collect();
        cells.extend(match self.kind {
            Kind::Tunnels => vec![
                number(group.transactions),
                number(group.marked),
                count(&group.names),
                number(group.bytes),
                Cell::Text(group.shown_types()),
                time(first),
                Cell::duration(group.duration_ns()),
            ],
            Kind::NewDomains => {
                let (client, qname) = group.first_marked.clone().unwrap_or_default();
                vec![
                    time(group.marked_us),
                    Cell::Text(client),
                    Cell::Text(qname),
                    count(&group.clients),
                    count(&group.names),
                    number(group.transactions),
                ]
            }
            _ => vec![number(group.transactions), count(&group.names), time(first), time(last)],
        });
        cells
    }
}

impl Group {
    fn duration_ns(&self) -> Option<i64> {
        self.span_us.map(|(first, last)| last.saturating_sub(first).saturating_mul(1_000))
    }

    /// Returns the most frequent query types.
    fn shown_types(&self) -> String {
        let mut types: Vec<_> = self.types.iter().collect();
        types.sort_by_key(|(name, count)| (Reverse(**count), *name));
        let names: Vec<&str> =
            types.iter().take(SHOWN_TYPES).map(|(name, _)| name.as_str()).collect();
        let more = if types.len() > SHOWN_TYPES { " …" } else { "" };
        names.join(" ") + more
    }
}

/// Returns false for domains that are only new because nothing is before the file.
fn tells(detected: Detected, signal: Signal) -> bool {
    detected.is_of_agent || !matches!(signal, Signal::NewDomainNode | Signal::NewDomainWorkload)
}
