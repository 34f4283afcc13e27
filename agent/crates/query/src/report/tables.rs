//! What each report counts, and its table.

use hashbrown::HashMap;

use super::{Cell, Columns, Histogram, Kind, Table, Totals};
use crate::row::{Fields, Row, Slot};

/// A report in progress.
pub struct GroupTables {
    kind: Kind,
    columns: Columns,
    all: Totals,
    groups: HashMap<String, Group>,
    extra: Extra,
    key: String,
}

/// Fields that only some reports need.
#[derive(Clone, Copy)]
enum Extra {
    None,
    Chains { answered_from: Slot, upstream_count: Slot, upstream_time: Slot, resolver_time: Slot },
    Conflicts { anomalies: Slot },
}

/// A group of records.
#[derive(Default)]
struct Group {
    /// The texts of the group's columns.
    names: Vec<String>,
    totals: Totals,
    upstream_queries: u64,
    upstream: Histogram,
    resolver: Histogram,
    first_us: Option<i64>,
    last_us: Option<i64>,
}

impl GroupTables {
    /// Creates a report without records; the fields that it needs are added to `fields`.
    #[must_use]
    pub fn new(kind: Kind, fields: &mut Fields) -> Self {
        let extra = match kind {
            Kind::Chains => Extra::Chains {
                answered_from: fields.slot("answered_from"),
                upstream_count: fields.slot("upstream_count"),
                upstream_time: fields.slot("upstream_time_ns"),
                resolver_time: fields.slot("resolver_time_ns"),
            },
            Kind::Conflicts => Extra::Conflicts { anomalies: fields.slot("anomalies") },
            _ => Extra::None,
        };
        Self {
            kind,
            columns: Columns::new(fields),
            all: Totals::default(),
            groups: HashMap::new(),
            extra,
            key: String::new(),
        }
    }

    /// Counts a record.
    pub fn add(&mut self, row: &Row<'_, '_>) {
        let columns = self.columns;
        self.all.add(&columns, row);
        let (client, server) = (columns.client(row), columns.server(row));
        match (self.kind, self.extra) {
            (Kind::TopNames, _) => self.count(row, &[columns.qname(row)]),
            (Kind::Clients, _) => self.count(row, &[&client]),
            (Kind::Rcodes, _) => self.count(row, &[columns.rcode(row)]),
            (Kind::Latency, _) => self.count(row, &[&server]),
            (Kind::Unanswered, _) => self.count(row, &[&client, &server]),
            (Kind::Chains, Extra::Chains { answered_from, .. }) => {
                if let Some(from) = row.get(answered_from).text() {
                    self.count(row, &[&server, from]);
                }
            }
            (_, Extra::Conflicts { anomalies }) => {
                let mut kinds = Vec::new();
                row.get(anomalies).each(|kind| kinds.extend(kind.text()));
                for kind in kinds {
                    self.count(row, &[kind, &client, &server, columns.qname(row)]);
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, row: &Row<'_, '_>, names: &[&str]) {
        self.key.clear();
        for name in names {
            // No name has a line feed: the profiles separate by it.
            self.key.push_str(name);
            self.key.push('\n');
        }
        let group = self.groups.entry_ref(self.key.as_str()).or_insert_with(|| Group {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Group::default()
        });
        group.totals.add(&self.columns, row);
        if let Some(time) = self.columns.time(row) {
            group.first_us = Some(group.first_us.map_or(time, |first| first.min(time)));
            group.last_us = Some(group.last_us.map_or(time, |last| last.max(time)));
        }
        if let Extra::Chains { upstream_count, upstream_time, resolver_time, .. } = self.extra {
            let number = |slot: Slot| row.get(slot).number();
            group.upstream_queries +=
                number(upstream_count).and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
            number(upstream_time).into_iter().for_each(|time| group.upstream.add(time));
            number(resolver_time).into_iter().for_each(|time| group.resolver.add(time));
        }
    }

    /// Returns the table of the first `rows` groups.
    #[must_use]
    pub fn table(&self, rows: usize) -> Table {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        if self.kind == Kind::Unanswered {
            groups.retain(|group| group.totals.unanswered > 0);
            groups.sort_by(|one, other| {
                let by = |group: &Group| std::cmp::Reverse(group.totals.unanswered);
                by(one).cmp(&by(other)).then_with(|| one.names.cmp(&other.names))
            });
        } else {
            groups.sort_by(|one, other| {
                let by = |group: &Group| std::cmp::Reverse(group.totals.transactions);
                by(one).cmp(&by(other)).then_with(|| one.names.cmp(&other.names))
            });
        }
        groups.truncate(rows);
        let cells = |group: &&Group| {
            let names = group.names.iter().cloned().map(Cell::Text);
            names.chain(self.cells(group)).collect()
        };
        Table { columns: self.columns_of_table(), rows: groups.iter().map(cells).collect() }
    }

    fn columns_of_table(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::TopNames => {
                vec!["qname", "transactions", "share", "nxdomain", "servfail", "unanswered"]
            }
            Kind::Clients => vec![
                "client",
                "transactions",
                "share",
                "nxdomain",
                "servfail",
                "unanswered",
                "p50_ns",
                "p99_ns",
            ],
            Kind::Rcodes => vec!["rcode", "transactions", "share", "p50_ns"],
            Kind::Latency => {
                vec!["server", "answered", "p50_ns", "p90_ns", "p99_ns", "max_ns"]
            }
            Kind::Unanswered => vec!["client", "server", "unanswered", "transactions", "share"],
            Kind::Chains => vec![
                "server",
                "answered_from",
                "transactions",
                "share",
                "p50_ns",
                "upstream_queries",
                "upstream_p50_ns",
                "resolver_p50_ns",
            ],
            _ => {
                vec!["anomaly", "client", "server", "qname", "transactions", "first", "last"]
            }
        }
    }

    /// Returns the cells after the names.
    fn cells(&self, group: &Group) -> Vec<Cell> {
        let totals = &group.totals;
        let number = Cell::Number;
        let percentile = |percent| Cell::duration(totals.latency.percentile(percent));
        let share = Cell::share(totals.transactions, self.all.transactions);
        match self.kind {
            Kind::TopNames | Kind::Clients => {
                let mut cells = vec![number(totals.transactions), share];
                cells.extend([totals.nxdomain, totals.servfail, totals.unanswered].map(number));
                if self.kind == Kind::Clients {
                    cells.extend([50, 99].map(percentile));
                }
                cells
            }
            Kind::Rcodes => vec![number(totals.transactions), share, percentile(50)],
            Kind::Latency => {
                let max = Cell::duration(totals.latency.max());
                let mut cells = vec![number(totals.latency.count())];
                cells.extend([50, 90, 99].map(percentile));
                cells.push(max);
                cells
            }
            Kind::Unanswered => vec![
                number(totals.unanswered),
                number(totals.transactions),
                Cell::share(totals.unanswered, totals.transactions),
            ],
            Kind::Chains => vec![
                number(totals.transactions),
                share,
                percentile(50),
                number(group.upstream_queries),
                Cell::duration(group.upstream.percentile(50)),
                Cell::duration(group.resolver.percentile(50)),
            ],
            _ => {
                let time = |time: Option<i64>| time.map_or(Cell::Empty, Cell::Time);
                vec![number(totals.transactions), time(group.first_us), time(group.last_us)]
            }
        }
    }
}
