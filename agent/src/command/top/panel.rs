//! The panels, each a table.

use tap53::top::{Count, EndCounts, TopList};
use tap53_base::{visible::visible, vitals::SinkHealth};

use super::{
    super::table::Color,
    model::{Model, bound, certain, quantile},
    units,
};

/// A panel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Panel {
    #[default]
    Names,
    NxdomainNames,
    Workloads,
    Clients,
    Servers,
    Rcodes,
    Qtypes,
    Latency,
    Signals,
    Sinks,
    Losses,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Width in characters; 0 for the one that takes the rest.
    pub(super) width: u16,
    /// True if it is left out where there is little room.
    pub(super) is_wide: bool,
    /// True if it is aligned to the left.
    pub(super) is_text: bool,
}

const fn number(title: &'static str, width: u16) -> Column {
    Column { title, width, is_wide: false, is_text: false }
}

const fn wide(title: &'static str, width: u16) -> Column {
    Column { title, width, is_wide: true, is_text: false }
}

const fn text(title: &'static str, width: u16) -> Column {
    Column { title, width, is_wide: false, is_text: true }
}

const TOP: &[Column] = &[text("", 0), number("COUNT", 11), number("/S", 8), number("SHARE", 6)];
const KINDS: &[Column] = &[text("", 0), number("COUNT", 7), wide("/S", 8), number("SHARE", 6)];
const ENDS: &[Column] = &[
    text("", 0),
    number("COUNT", 9),
    number("/S", 7),
    wide("NXDOM", 6),
    wide("ERROR", 6),
    wide("UNANS", 6),
    wide("P50", 6),
    wide("P95", 6),
];
const LATENCY: &[Column] = &[text("UP TO", 7), wide("COUNT", 11), number("SHARE", 6), text("", 0)];
const SINKS: &[Column] = &[
    text("", 0),
    text("STATE", 13),
    number("DELIVERED", 11),
    wide("/S", 8),
    number("WAITING", 9),
    number("LOST", 7),
];
const LOSSES: &[Column] = &[text("", 0), text("REASON", 22), text("UNIT", 9), number("COUNT", 11)];

/// A cell: its text, its value for sorting, and its colour.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) value: f64,
    pub(super) color: Color,
    /// A part of one, drawn as a bar in place of the text.
    pub(super) bar: Option<f64>,
}

impl Cell {
    fn text(text: &str) -> Self {
        Self { text: visible(text).into_owned(), ..Self::default() }
    }

    #[expect(clippy::cast_precision_loss, reason = "only the order matters")]
    fn count(count: u64) -> Self {
        Self { text: units::count(count), value: count as f64, ..Self::default() }
    }

    fn rate(rate: f64) -> Self {
        Self { text: units::rate(rate), value: rate, ..Self::default() }
    }

    fn share(part: u64, whole: u64) -> Self {
        let value = units::ratio(part, whole).unwrap_or(-1.0);
        Self { text: units::share(part, whole), value, ..Self::default() }
    }

    fn colored(self, color: Color) -> Self {
        Self { color, ..self }
    }

    /// Returns the cell in a colour that says that something is wrong, unless its value is 0.
    fn bad_if_any(self) -> Self {
        let color = if self.value > 0.0 { Color::Bad } else { Color::Plain };
        self.colored(color)
    }
}

/// A row of a table.
pub(super) type Row = Vec<Cell>;

/// A panel's table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
    /// Text in place of rows if there are none.
    pub(super) empty: &'static str,
    /// Number of rows that the filter hides.
    pub(super) hidden: usize,
}

impl Panel {
    pub(super) const ALL: [Self; 11] = [
        Self::Names,
        Self::NxdomainNames,
        Self::Workloads,
        Self::Clients,
        Self::Servers,
        Self::Rcodes,
        Self::Qtypes,
        Self::Latency,
        Self::Signals,
        Self::Sinks,
        Self::Losses,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Names => "Names",
            Self::NxdomainNames => "NXDOMAIN names",
            Self::Workloads => "Client workloads",
            Self::Clients => "Client addresses",
            Self::Servers => "Servers",
            Self::Rcodes => "Response codes",
            Self::Qtypes => "Query types",
            Self::Latency => "Latency",
            Self::Signals => "Signals",
            Self::Sinks => "Sinks and brokers",
            Self::Losses => "Losses",
        }
    }

    /// Returns the height, in relation to the other panels of a large terminal.
    pub(super) const fn weight(self) -> u16 {
        match self {
            Self::Names | Self::Workloads => 3,
            _ => 2,
        }
    }

    /// Returns true if the filter applies: rows are names of the DNS, of Kubernetes or of hosts.
    pub(super) const fn is_filtered(self) -> bool {
        matches!(
            self,
            Self::Names | Self::NxdomainNames | Self::Workloads | Self::Clients | Self::Servers
        )
    }

    const fn columns(self) -> &'static [Column] {
        match self {
            Self::Names | Self::NxdomainNames | Self::Clients => TOP,
            Self::Workloads | Self::Servers => ENDS,
            Self::Rcodes | Self::Qtypes | Self::Signals => KINDS,
            Self::Latency => LATENCY,
            Self::Sinks => SINKS,
            Self::Losses => LOSSES,
        }
    }

    /// Returns the number of columns that the panel can be sorted by; 0 if its order is fixed.
    pub(super) const fn sort_columns(self) -> usize {
        match self {
            Self::Latency | Self::Sinks | Self::Losses => 0,
            _ => self.columns().len(),
        }
    }

    /// Returns the table, filtered and sorted.
    pub(super) fn table(self, model: &Model) -> Table {
        let mut rows = self.rows(model);
        let all = rows.len();
        if self.is_filtered() {
            rows.retain(|row| model.passes(&row[0].text));
        }
        if self.sort_columns() > 0 {
            sort(&mut rows, model.sort(self));
        }
        let hidden = all - rows.len();
        let empty = match self {
            _ if hidden > 0 => "no row passes the filter",
            Self::Losses => "nothing was lost since the agent started",
            Self::Sinks => "the agent has no sink",
            _ => "none yet",
        };
        Table { columns: self.columns(), rows, empty, hidden }
    }

    fn rows(self, model: &Model) -> Vec<Row> {
        let (now, before) = (&model.shown().now.dns, &model.shown().before.dns);
        match self {
            Self::Names => top(model, &now.names, &before.names),
            Self::NxdomainNames => top(model, &now.nxdomain_names, &before.nxdomain_names),
            Self::Clients => top(model, &now.clients, &before.clients),
            Self::Workloads => ends(model, &now.workloads, &before.workloads),
            Self::Servers => ends(model, &now.servers, &before.servers),
            Self::Rcodes => rcodes(model, &now.rcodes, &before.rcodes),
            Self::Qtypes => kinds(model, &now.qtypes, &before.qtypes),
            Self::Signals => kinds(model, &now.signals, &before.signals),
            Self::Latency => latency(model),
            Self::Sinks => sinks(model),
            Self::Losses => losses(model),
        }
    }
}

/// Sorts by the first column from A to Z, by others from the largest value.
fn sort(rows: &mut [Row], column: usize) {
    match column {
        0 => rows.sort_by(|one, other| one[0].text.cmp(&other[0].text)),
        column => rows.sort_by(|one, other| {
            let by_value = other[column].value.total_cmp(&one[column].value);
            by_value.then_with(|| one[0].text.cmp(&other[0].text))
        }),
    }
}

fn top(model: &Model, now: &TopList, before: &TopList) -> Vec<Row> {
    let all = model.shown().now.dns.transactions;
    let before = before.items.iter().map(|item| (&*item.item, certain(item)));
    let growth = model.shown().growth(before);
    let row = |item: &tap53::top::TopItem| {
        let mut count = Cell::count(item.count);
        if item.error > 0 {
            count.text.insert(0, '~');
        }
        let rate = growth(&item.item, certain(item));
        vec![Cell::text(&item.item), count, Cell::rate(rate), Cell::share(item.count, all)]
    };
    now.items.iter().map(row).collect()
}

fn ends(model: &Model, now: &[EndCounts], before: &[EndCounts]) -> Vec<Row> {
    let growth = model.shown().growth(before.iter().map(|it| (&*it.name, it.transactions)));
    let row = |end: &EndCounts| {
        let all = end.transactions;
        let (errors, unanswered) = (Cell::share(end.errors, all), Cell::share(end.unanswered, all));
        vec![
            Cell::text(&end.name),
            Cell::count(all),
            Cell::rate(growth(&end.name, all)),
            Cell::share(end.nxdomain, all),
            errors.bad_if_any(),
            unanswered.bad_if_any(),
            latency_cell(end, 50),
            latency_cell(end, 95),
        ]
    };
    now.iter().map(row).collect()
}

fn latency_cell(end: &EndCounts, percent: u64) -> Cell {
    let text = quantile(&end.latency, percent);
    let position = (0..end.latency.buckets.len()).position(|at| bound(&end.latency, at) == text);
    let rank = position.and_then(|position| u32::try_from(position).ok());
    Cell { text, value: rank.map_or(-1.0, f64::from), ..Cell::default() }
}

fn kinds(model: &Model, now: &[Count], before: &[Count]) -> Vec<Row> {
    let growth = model.shown().growth(before.iter().map(|it| (&*it.name, it.count)));
    let all = model.shown().now.dns.transactions;
    let row = |count: &Count| {
        let rate = growth(&count.name, count.count);
        let share = Cell::share(count.count, all);
        let mut number = Cell::count(count.count);
        number.text = units::short(count.count);
        vec![Cell::text(&count.name), number, Cell::rate(rate), share]
    };
    now.iter().map(row).collect()
}

/// Response codes, and the queries without one.
fn rcodes(model: &Model, now: &[Count], before: &[Count]) -> Vec<Row> {
    let unanswered = |dns: &tap53::top::DnsCounts| Count {
        name: "unanswered".to_owned(),
        count: dns.unanswered,
    };
    let readings = model.shown();
    let mut now = now.to_vec();
    if readings.now.dns.unanswered > 0 {
        now.push(unanswered(&readings.now.dns));
    }
    let before = [before, &[unanswered(&readings.before.dns)]].concat();
    let mut rows = kinds(model, &now, &before);
    for row in &mut rows {
        row[0].color = match &*row[0].text {
            "NOERROR" => Color::Good,
            "NXDOMAIN" => Color::Notable,
            _ => Color::Bad,
        };
    }
    rows
}

fn latency(model: &Model) -> Vec<Row> {
    let latency = &model.shown().now.dns.latency;
    let all = latency.count();
    let most = latency.buckets.iter().copied().max().unwrap_or(0);
    let row = |(position, count): (usize, &u64)| {
        let bar = Cell { bar: units::ratio(*count, most), ..Cell::default() };
        let limit = bound(latency, position);
        vec![Cell::text(&limit), Cell::count(*count), Cell::share(*count, all), bar]
    };
    // Outer buckets without a response are left out.
    let is_used = |count: &u64| *count > 0;
    let first = latency.buckets.iter().position(is_used).unwrap_or(0);
    let last = latency.buckets.iter().rposition(is_used).map_or(0, |last| last + 1);
    latency.buckets.iter().enumerate().take(last).skip(first).map(row).collect()
}

fn sinks(model: &Model) -> Vec<Row> {
    let readings = model.shown();
    let health = &readings.now.agent.health.sinks;
    let before = readings.before.sinks.iter().map(|it| (&*it.name, it.delivered));
    let growth = readings.growth(before);
    let mut rows = Vec::new();
    for sink in &readings.now.sinks {
        let health = health.iter().find(|health| health.name == sink.name);
        rows.push(vec![
            Cell::text(&sink.name),
            state(health),
            Cell::count(sink.delivered),
            Cell::rate(growth(&sink.name, sink.delivered)),
            Cell::count(sink.in_flight + sink.spooled),
            Cell::count(sink.lost).bad_if_any(),
        ]);
        rows.extend(health.into_iter().flat_map(problems));
    }
    rows
}

fn state(health: Option<&SinkHealth>) -> Cell {
    match health {
        None => Cell::text("unknown"),
        Some(health) if health.condition.ok => Cell::text("ok").colored(Color::Good),
        Some(_) => Cell::text("failing").colored(Color::Bad),
    }
}

/// Returns a row for each reason for which a sink fails, and for each broker.
fn problems(health: &SinkHealth) -> Vec<Row> {
    let line = |first: String, second: Cell| {
        let mut row = vec![Cell::text(&first), second];
        row.resize(SINKS.len(), Cell::default());
        row
    };
    let reasons = health.condition.reasons.iter();
    let reasons = reasons.map(|reason| line(format!("  {reason}"), Cell::default()));
    let brokers = health.brokers.iter().map(|broker| {
        let state = match broker.connected {
            true => Cell::text("connected").colored(Color::Good),
            false => Cell::text("not connected"),
        };
        line(format!("  broker {}", broker.name), state)
    });
    reasons.chain(brokers).collect()
}

fn losses(model: &Model) -> Vec<Row> {
    let row = |loss: &tap53::top::Loss| {
        vec![
            Cell::text(&loss.stage),
            Cell::text(&loss.reason),
            Cell::text(&loss.unit),
            Cell::count(loss.count).colored(Color::Bad),
        ]
    };
    model.shown().now.losses.iter().map(row).collect()
}
