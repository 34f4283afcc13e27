//! The state of the view: what the agent reported, and what the user chose.

use std::collections::HashMap;

use jiff::Timestamp;
use tap53::top::{DnsCounts, Latency, Snapshot, TopItem};

use super::{panel::Panel, units};

/// Intervals that `+` and `-` choose from, in milliseconds.
const INTERVALS_MS: [u64; 8] = [250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/// Two snapshots, from which rates follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Readings {
    pub(super) now: Snapshot,
    /// The snapshot before; as if at the beginning, if there is none.
    pub(super) before: Snapshot,
}

impl Readings {
    /// Adds a snapshot. One of a new connection counts from its own beginning.
    pub(super) fn push(&mut self, snapshot: Snapshot, is_first: bool) {
        self.before =
            if is_first { Self::beginning(&snapshot) } else { std::mem::take(&mut self.now) };
        self.now = snapshot;
    }

    /// Returns the snapshot from which the first rates are computed: the counts of the DNS begin at 0, those
    /// of the agent long before.
    fn beginning(snapshot: &Snapshot) -> Snapshot {
        Snapshot { dns: DnsCounts::default(), ..snapshot.clone() }
    }

    /// Returns the time between the snapshots in seconds.
    fn seconds(&self) -> f64 {
        let ms = self.now.dns.elapsed_ms.saturating_sub(self.before.dns.elapsed_ms);
        f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / 1e3
    }

    /// Returns a difference per second.
    pub(super) fn per_second(&self, now: u64, before: u64) -> f64 {
        let seconds = self.seconds();
        let change = u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        if seconds > 0.0 { f64::from(change) / seconds } else { 0.0 }
    }

    /// Returns a difference.
    pub(super) fn change(&self, of: impl Fn(&DnsCounts) -> u64) -> u64 {
        of(&self.now.dns).saturating_sub(of(&self.before.dns))
    }

    /// Returns by how much a named count grew since the last snapshot; the earlier one is looked up once.
    pub(super) fn growth<'a>(
        &self,
        before: impl Iterator<Item = (&'a str, u64)>,
    ) -> impl Fn(&str, u64) -> f64 {
        let before: HashMap<&str, u64> = before.collect();
        move |name, now| self.per_second(now, before.get(name).copied().unwrap_or(0))
    }

    /// Returns the latencies since the last snapshot.
    pub(super) fn latency(&self) -> Latency {
        since(&self.now.dns.latency, &self.before.dns.latency)
    }
}

/// Returns the difference of two histograms.
fn since(now: &Latency, before: &Latency) -> Latency {
    let earlier = before.buckets.iter().copied().chain(std::iter::repeat(0));
    let buckets = now.buckets.iter().zip(earlier).map(|(now, before)| now.saturating_sub(before));
    Latency {
        bounds_ns: now.bounds_ns.clone(),
        buckets: buckets.collect(),
        sum_ns: now.sum_ns.saturating_sub(before.sum_ns),
    }
}

/// Returns the bound that a share of the latencies does not exceed, such as `≤1ms`; a dash without any.
pub(super) fn quantile(latency: &Latency, percent: u64) -> String {
    let total = latency.count();
    let mut seen = 0;
    for (position, count) in latency.buckets.iter().enumerate() {
        seen += count;
        if total > 0 && seen * 100 >= total * percent {
            return bound(latency, position);
        }
    }
    "-".to_owned()
}

/// Returns the bound of a bucket, such as `≤1ms`; that of the last one is `>5s`.
pub(super) fn bound(latency: &Latency, position: usize) -> String {
    match (latency.bounds_ns.get(position), latency.bounds_ns.last()) {
        (Some(bound), _) => format!("≤{}", units::nanoseconds(*bound)),
        (None, Some(last)) => format!(">{}", units::nanoseconds(*last)),
        (None, None) => "-".to_owned(),
    }
}

/// Returns the number of transactions that an item certainly has: it grows by what was counted, even if
/// another item had its counter before.
pub(super) fn certain(item: &TopItem) -> u64 {
    item.count.saturating_sub(item.error)
}

/// The connection to the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Connection {
    /// Connected since the start.
    #[default]
    Connected,
    /// Not connected since this time, for this reason.
    Lost { at: String, why: String },
    /// Reconnected at this time; counts restarted.
    Again { at: String },
}

/// The meaning of keys at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Normal,
    Help,
    /// The filter is being written.
    Filter,
}

/// The state of the view.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    latest: Readings,
    /// The readings that a paused view shows.
    paused: Option<Box<Readings>>,
    pub(super) connection: Connection,
    pub(super) mode: Mode,
    pub(super) filter: String,
    /// The filter before the user began to write another one.
    pub(super) filter_before: String,
    pub(super) focus: Panel,
    pub(super) is_zoomed: bool,
    pub(super) scroll: usize,
    /// Sort column of each panel; the second one if it is missing.
    sort: HashMap<Panel, usize>,
    pub(super) interval_ms: u64,
    /// The options that select transactions, as they were given.
    pub(super) selection: String,
    is_connected: bool,
}

impl Model {
    pub(super) fn new(interval_ms: u64, selection: String) -> Self {
        Self { interval_ms, selection, ..Self::default() }
    }

    pub(super) fn push(&mut self, snapshot: Snapshot) {
        self.latest.push(snapshot, !self.is_connected);
        if let Connection::Lost { .. } = self.connection {
            self.connection = Connection::Again { at: clock() };
        }
        self.is_connected = true;
        if !self.panels().contains(&self.focus) {
            self.focus = Panel::default();
        }
    }

    pub(super) fn lose(&mut self, why: String) {
        self.is_connected = false;
        let at = match &self.connection {
            Connection::Lost { at, .. } => at.clone(),
            _ => clock(),
        };
        self.connection = Connection::Lost { at, why };
    }

    /// Returns what is shown.
    pub(super) fn shown(&self) -> &Readings {
        self.paused.as_deref().unwrap_or(&self.latest)
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub(super) fn toggle_pause(&mut self) {
        self.paused = match self.paused {
            Some(_) => None,
            None => Some(Box::new(self.latest.clone())),
        };
    }

    /// Returns the panels that there are: signals only if the agent reports any.
    pub(super) fn panels(&self) -> Vec<Panel> {
        let has_signals = !self.shown().now.dns.signals.is_empty();
        Panel::ALL.into_iter().filter(|panel| *panel != Panel::Signals || has_signals).collect()
    }

    /// Chooses the panel `by` places further.
    pub(super) fn move_focus(&mut self, by: isize) {
        let panels = self.panels();
        let position = panels.iter().position(|panel| *panel == self.focus).unwrap_or(0);
        let count = isize::try_from(panels.len()).unwrap_or(1);
        let next = isize::try_from(position).unwrap_or(0).saturating_add(by).rem_euclid(count);
        self.focus = panels[next.unsigned_abs()];
        self.scroll = 0;
    }

    /// Returns the column by which a panel is sorted.
    pub(super) fn sort(&self, panel: Panel) -> usize {
        self.sort.get(&panel).copied().unwrap_or(1)
    }

    /// Sorts the chosen panel by its next column.
    pub(super) fn sort_by_next(&mut self) {
        let columns = self.focus.sort_columns();
        if columns > 0 {
            let next = (self.sort(self.focus) + 1) % columns;
            self.sort.insert(self.focus, next);
        }
    }

    /// Chooses a longer or shorter interval; returns it if it is another one.
    pub(super) fn change_interval(&mut self, longer: bool) -> Option<u64> {
        let next = match longer {
            true => INTERVALS_MS.into_iter().find(|ms| *ms > self.interval_ms),
            false => INTERVALS_MS.into_iter().rfind(|ms| *ms < self.interval_ms),
        }?;
        self.interval_ms = next;
        Some(next)
    }

    /// Returns true if a name passes the filter.
    pub(super) fn passes(&self, name: &str) -> bool {
        self.filter.is_empty()
            || name.to_ascii_lowercase().contains(&self.filter.to_ascii_lowercase())
    }
}

/// Returns the time of day in UTC.
pub(super) fn clock() -> String {
    Timestamp::now().strftime("%H:%M:%SZ").to_string()
}
