//! History of the interfaces' names, and of the times when capture on them started or stopped: for
//! the workers, which only see ifindexes.
//!
//! The thread that attaches writes it before programs run on the interface. The workers compare a
//! version for each ring item, and copy the changes if it has moved. A name is valid from a time
//! on, so that a record contains the name that the interface had when the packet passed, even if
//! the interface was renamed or its ifindex reused while the packet was in a ring.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Maximum number of removed interfaces whose names are kept, for transactions that still wait for
/// their response: at most ten minutes, by the configuration. Some 100 bytes each, in each worker.
const MAX_REMOVED: usize = 1_024;

/// Maximum number of names per interface; nobody renames an interface every second for the five
/// seconds that a query waits.
const MAX_NAMES: usize = 8;

/// Number of changes that a reader may miss without copying the whole table, so that a change costs
/// each worker one interface's names, however many interfaces there are.
const MAX_CHANGES: usize = 1_024;

/// A name and the time since when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Start of its validity, CLOCK_MONOTONIC nanoseconds.
    pub from_ns: u64,
    /// The name.
    pub name: String,
}

/// The table, shared by all threads.
#[derive(Debug, Default)]
pub struct Names {
    version: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Names by ifindex, oldest first.
    names: HashMap<u32, Vec<Since>>,
    /// Times when capture last started or stopped on named interfaces, CLOCK_MONOTONIC nanoseconds.
    switched: HashMap<u32, u64>,
    removed: RemovedInterfaces,
    /// The ifindexes of the latest changes; the last one led to the current version.
    changes: VecDeque<u32>,
}

/// Removed interfaces, in the order of their removal.
#[derive(Debug, Default)]
struct RemovedInterfaces {
    by_order: BTreeMap<u64, u32>,
    order: HashMap<u32, u64>,
    next: u64,
}

impl RemovedInterfaces {
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

    /// Removes the interface that was removed first, if there are more than [`MAX_REMOVED`].
    fn pop_excess(&mut self) -> Option<u32> {
        let (_, ifindex) =
            if self.order.len() > MAX_REMOVED { self.by_order.pop_first() } else { None }?;
        self.order.remove(&ifindex);
        Some(ifindex)
    }
}

/// The changes that a reader has not seen yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// Version of the table after these changes.
    pub version: u64,
    /// True if this is the whole table, which replaces the reader's copy.
    pub is_all: bool,
    /// Changes by ifindex; `None` for an interface that is dropped.
    pub interfaces: Vec<(u32, Option<T>)>,
}

impl Names {
    /// Creates a table of names that are valid from the start, such as those of a capture file.
    pub fn of(names: impl IntoIterator<Item = (u32, String)>) -> Self {
        let since = |(ifindex, name)| (ifindex, vec![Since { from_ns: 0, name }]);
        let table = Table { names: names.into_iter().map(since).collect(), ..Table::default() };
        // Later than the version of a new reader.
        Self { version: AtomicU64::new(1), table: Mutex::new(table) }
    }

    /// Sets the name of an interface from `now_ns` on.
    pub fn set(&self, ifindex: u32, name: &str, now_ns: u64) {
        let mut table = self.lock();
        table.removed.remove(ifindex);
        let names = table.names.entry(ifindex).or_default();
        if names.last().is_some_and(|last| last.name == name) {
            return;
        }
        // No packet came from it before it had its first name.
        let from_ns = if names.is_empty() { 0 } else { now_ns };
        if names.len() == MAX_NAMES {
            names.remove(0);
        }
        names.push(Since { from_ns, name: name.to_owned() });
        self.note_change(&mut table, ifindex);
    }

    /// Records that capture on a named interface starts or stops.
    pub fn switch(&self, ifindex: u32, now_ns: u64) {
        let mut table = self.lock();
        if table.names.contains_key(&ifindex) {
            table.switched.insert(ifindex, now_ns);
            self.note_change(&mut table, ifindex);
        }
    }

    /// Records that an interface was removed; its names are kept for a while.
    pub fn retire(&self, ifindex: u32) {
        let mut table = self.lock();
        if !table.names.contains_key(&ifindex) || table.removed.contains(ifindex) {
            return;
        }
        table.removed.push(ifindex);
        if let Some(oldest) = table.removed.pop_excess() {
            table.names.remove(&oldest);
            table.switched.remove(&oldest);
            self.note_change(&mut table, oldest);
        }
    }

    /// Returns the version, which every change increments; 0 while no interface has a name.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns the names of the interfaces that have changed since a version; a new reader has
    /// version 0.
    #[must_use]
    pub fn since(&self, version: u64) -> Changed<Vec<Since>> {
        self.changed(version, |table| &table.names)
    }

    /// Returns the times when capture last started or stopped, for interfaces changed since a
    /// version.
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
        if table.changes.len() == MAX_CHANGES {
            table.changes.pop_front();
        }
        table.changes.push_back(ifindex);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is consistent after each statement, so a panic in another owner does no harm.
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
        let expected = [(0, "eth0".to_owned()), (200, "wan0".to_owned())];
        assert_eq!(names_of(&names, 7), expected);
    }

    #[test]
    fn names_of_removed_interfaces_are_kept_up_to_a_limit() {
        let names = Names::default();
        let many = u32::try_from(MAX_REMOVED).unwrap() + 10;
        for ifindex in 1..=many {
            names.set(ifindex, "veth", 1);
            names.retire(ifindex);
            names.retire(ifindex);
        }
        assert_eq!(all(&names).len(), MAX_REMOVED);
        assert!(names_of(&names, 1).is_empty());
        assert_eq!(names_of(&names, many).len(), 1);
        for number in 0..100 {
            names.set(many, &format!("veth{number}"), number);
        }
        assert_eq!(names_of(&names, many).len(), MAX_NAMES);
    }

    #[test]
    fn an_interface_that_returned_is_not_dropped_as_removed() {
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

    /// A reader like the workers, which counts the names that it copies.
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
        // All names of each interface that changed, and those that were dropped.
        let limit = interfaces as usize + renames as usize * (MAX_NAMES + 1);
        assert!(reader.copied <= limit, "{} names copied, limit {limit}", reader.copied);
        assert_eq!(reader.table, all(&names));
    }

    #[test]
    fn a_reader_that_missed_many_changes_gets_the_same_table() {
        let names = Names::default();
        names.set(1, "a", 1);
        let (mut often, mut seldom) = (Reader::default(), Reader::default());
        seldom.read(&names);
        let changes = u32::try_from(MAX_CHANGES).unwrap();
        for number in 0..changes + 2 {
            names.set(2 + number, &format!("veth{number}"), 2);
            names.retire(2 + number);
            often.read(&names);
        }
        seldom.read(&names);
        assert_eq!(often.table, seldom.table);
        assert_eq!(often.table.len(), MAX_REMOVED + 1);
        names.switch(1, 9);
        let switched = names.switched_since(seldom.version);
        assert_eq!((switched.is_all, &switched.interfaces[..]), (false, &[(1, Some(9))][..]));
        assert!(names.switched_since(switched.version).interfaces.is_empty());
    }
}
