//! What interfaces were called, and when, and when capture on them began or ended: for the workers,
//! which see only their numbers.
//!
//! Written by whoever attaches, before programs run on the interface; read by the workers, which
//! look at a version for each record and copy what has changed when it has moved. A name holds from a time
//! on, so that a record carries the name that the interface had when the packet passed, also where
//! an interface was renamed or its number was given to another while the packet lay in a ring.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Interfaces that are gone and whose names are kept, for transactions that still wait for their
/// response: at most ten minutes, by the configuration. Some 100 bytes each, in each worker.
const KEPT: usize = 1_024;

/// Names that one interface had, at most; a rename a second for the five seconds that a query waits
/// is more than anybody does.
const RENAMES: usize = 8;

/// Changes that a reader may be behind without copying the whole table, so that a change costs each
/// worker one interface's names, however many there are.
const CHANGES: usize = 1_024;

/// A name and since when it holds, CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// From when on.
    pub from_ns: u64,
    /// The name.
    pub name: String,
}

/// The table, shared by all.
#[derive(Debug, Default)]
pub struct Names {
    version: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By number, oldest name first.
    names: HashMap<u32, Vec<Since>>,
    /// When capture last began or ended, CLOCK_MONOTONIC nanoseconds; of named ones.
    switched: HashMap<u32, u64>,
    gone: Gone,
    /// The interfaces of the latest changes; the last one made the current version.
    changes: VecDeque<u32>,
}

/// Interfaces that are gone, in that order.
#[derive(Debug, Default)]
struct Gone {
    by_order: BTreeMap<u64, u32>,
    order: HashMap<u32, u64>,
    next: u64,
}

impl Gone {
    fn push(&mut self, ifindex: u32) {
        self.by_order.insert(self.next, ifindex);
        self.order.insert(ifindex, self.next);
        self.next += 1;
    }

    fn contains(&self, ifindex: u32) -> bool {
        self.order.contains_key(&ifindex)
    }

    fn remove(&mut self, ifindex: u32) {
        if let Some(order) = self.order.remove(&ifindex) {
            self.by_order.remove(&order);
        }
    }

    /// The one that has been gone longest, where there are more than [`KEPT`].
    fn pop_beyond(&mut self) -> Option<u32> {
        let (_, ifindex) = if self.order.len() > KEPT { self.by_order.pop_first() } else { None }?;
        self.order.remove(&ifindex);
        Some(ifindex)
    }
}

/// What a reader does not have yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// Version of the table that the reader has then.
    pub version: u64,
    /// True if this is all there is, and what the reader has is to be forgotten.
    pub is_all: bool,
    /// By number; `None` of an interface that is forgotten.
    pub interfaces: Vec<(u32, Option<T>)>,
}

impl Names {
    /// Names that hold from the beginning, such as those of a capture file.
    pub fn of(names: impl IntoIterator<Item = (u32, String)>) -> Self {
        let since = |(ifindex, name)| (ifindex, vec![Since { from_ns: 0, name }]);
        let table = Table { names: names.into_iter().map(since).collect(), ..Table::default() };
        // Past the version that a reader begins with.
        Self { version: AtomicU64::new(1), table: Mutex::new(table) }
    }

    /// Gives an interface a name from `now_ns` on.
    pub fn set(&self, ifindex: u32, name: &str, now_ns: u64) {
        let mut table = self.lock();
        table.gone.remove(ifindex);
        let names = table.names.entry(ifindex).or_default();
        if names.last().is_some_and(|last| last.name == name) {
            return;
        }
        // Nothing came from it before it had its first name.
        let from_ns = if names.is_empty() { 0 } else { now_ns };
        if names.len() == RENAMES {
            names.remove(0);
        }
        names.push(Since { from_ns, name: name.to_owned() });
        self.note_change(&mut table, ifindex);
    }

    /// Notes that capture on an interface that has a name begins or ends.
    pub fn switch(&self, ifindex: u32, now_ns: u64) {
        let mut table = self.lock();
        if table.names.contains_key(&ifindex) {
            table.switched.insert(ifindex, now_ns);
            self.note_change(&mut table, ifindex);
        }
    }

    /// Notes that nothing more will come from an interface; its names are kept for a while.
    pub fn retire(&self, ifindex: u32) {
        let mut table = self.lock();
        if !table.names.contains_key(&ifindex) || table.gone.contains(ifindex) {
            return;
        }
        table.gone.push(ifindex);
        if let Some(oldest) = table.gone.pop_beyond() {
            table.names.remove(&oldest);
            table.switched.remove(&oldest);
            self.note_change(&mut table, oldest);
        }
    }

    /// Changes with every change of the table; 0 while nothing was ever named.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The names of the interfaces that have changed since the version that the reader has; 0 of one
    /// that has none.
    #[must_use]
    pub fn since(&self, version: u64) -> Changed<Vec<Since>> {
        self.changed(version, |table| &table.names)
    }

    /// When capture last began or ended on each interface that has changed since that version.
    #[must_use]
    pub fn switched_since(&self, version: u64) -> Changed<u64> {
        self.changed(version, |table| &table.switched)
    }

    fn changed<T: Clone>(&self, known: u64, of: impl Fn(&Table) -> &HashMap<u32, T>) -> Changed<T> {
        let table = self.lock();
        let (version, map) = (self.version(), of(&table));
        let behind = usize::try_from(version.saturating_sub(known)).unwrap_or(usize::MAX);
        let Some(before) = table.changes.len().checked_sub(behind) else {
            let all = map.iter().map(|(ifindex, value)| (*ifindex, Some(value.clone())));
            return Changed { version, is_all: true, interfaces: all.collect() };
        };
        let mut numbers: Vec<u32> = table.changes.range(before..).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let interfaces =
            numbers.into_iter().map(|ifindex| (ifindex, map.get(&ifindex).cloned())).collect();
        Changed { version, is_all: false, interfaces }
    }

    fn note_change(&self, table: &mut Table, ifindex: u32) {
        if table.changes.len() == CHANGES {
            table.changes.pop_front();
        }
        table.changes.push_back(ifindex);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Whole after each statement, so true even if another holder panicked.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &Names) -> HashMap<u32, Vec<Since>> {
        let all = names.since(0);
        all.interfaces.into_iter().filter_map(|(ifindex, names)| Some((ifindex, names?))).collect()
    }

    fn names_of(names: &Names, ifindex: u32) -> Vec<(u64, String)> {
        let of = all(names).remove(&ifindex).unwrap_or_default();
        of.into_iter().map(|since| (since.from_ns, since.name)).collect()
    }

    #[test]
    fn a_name_holds_from_its_time_on_and_the_first_from_the_beginning() {
        let names = Names::default();
        names.set(7, "eth0", 100);
        let version = names.version();
        names.set(7, "eth0", 150);
        assert_eq!(names.version(), version, "nothing new");
        names.set(7, "wan0", 200);
        assert!(names.version() > version);
        let held = [(0, "eth0".to_owned()), (200, "wan0".to_owned())];
        assert_eq!(names_of(&names, 7), held);
    }

    #[test]
    fn names_of_the_gone_are_kept_up_to_a_limit_and_names_in_all_stay_bounded() {
        let names = Names::default();
        let many = u32::try_from(KEPT).unwrap() + 10;
        for ifindex in 1..=many {
            names.set(ifindex, "veth", 1);
            names.retire(ifindex);
            names.retire(ifindex);
        }
        assert_eq!(all(&names).len(), KEPT);
        assert!(names_of(&names, 1).is_empty());
        assert_eq!(names_of(&names, many).len(), 1);
        for number in 0..100 {
            names.set(many, &format!("veth{number}"), number);
        }
        assert_eq!(names_of(&names, many).len(), RENAMES);
    }

    #[test]
    fn an_interface_that_is_back_is_not_forgotten_as_gone() {
        let names = Names::default();
        names.set(1, "a", 1);
        names.retire(1);
        names.set(1, "b", 2);
        for ifindex in 2..2_000 {
            names.set(ifindex, "veth", 3);
            names.retire(ifindex);
        }
        assert_eq!(names_of(&names, 1).len(), 2);
    }

    /// A reader as the workers are, which counts the names that it copies.
    #[derive(Default)]
    struct Reader {
        version: u64,
        table: HashMap<u32, Vec<Since>>,
        copied: usize,
    }

    impl Reader {
        fn read(&mut self, names: &Names) {
            let changed = names.since(self.version);
            self.version = changed.version;
            if changed.is_all {
                self.table.clear();
            }
            for (ifindex, names) in changed.interfaces {
                self.copied += names.as_ref().map_or(1, Vec::len);
                match names {
                    Some(names) => self.table.insert(ifindex, names),
                    None => self.table.remove(&ifindex),
                };
            }
        }
    }

    #[test]
    fn a_change_costs_a_reader_one_interface_however_many_there_are() {
        let names = Names::default();
        let interfaces = 2_000;
        for ifindex in 1..=interfaces {
            names.set(ifindex, "veth", 1);
        }
        let mut reader = Reader::default();
        reader.read(&names);
        assert_eq!(reader.copied, interfaces as usize, "all of them, once");
        let renames = 20_000;
        for number in 0..renames {
            let ifindex = 1 + number % interfaces;
            names.set(ifindex, &format!("veth{number}"), 2 + u64::from(number));
            if number % 3 == 0 {
                names.retire(1 + (number + 7) % interfaces);
            }
            reader.read(&names);
        }
        // Each interface that changed, with all of its names, and those that were forgotten.
        let limit = interfaces as usize + renames as usize * (RENAMES + 1);
        assert!(reader.copied <= limit, "{} names copied, limit {limit}", reader.copied);
        assert_eq!(reader.table, all(&names));
    }

    #[test]
    fn a_reader_that_is_far_behind_has_the_same_as_one_that_is_not() {
        let names = Names::default();
        names.set(1, "a", 1);
        let (mut often, mut seldom) = (Reader::default(), Reader::default());
        seldom.read(&names);
        let changes = u32::try_from(CHANGES).unwrap();
        for number in 0..changes + 2 {
            names.set(2 + number, &format!("veth{number}"), 2);
            names.retire(2 + number);
            often.read(&names);
        }
        seldom.read(&names);
        assert_eq!(often.table, seldom.table);
        assert_eq!(often.table.len(), KEPT + 1);
        names.switch(1, 9);
        let switched = names.switched_since(seldom.version);
        assert_eq!((switched.is_all, &switched.interfaces[..]), (false, &[(1, Some(9))][..]));
        assert!(names.switched_since(switched.version).interfaces.is_empty());
    }
}
