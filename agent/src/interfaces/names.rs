//! What interfaces were called, and when, and when capture on them began or ended: for the workers,
//! which see only their numbers.
//!
//! Written by whoever attaches, before programs run on the interface; read by the workers, which
//! look at a version for each record and copy the table when it has moved. A name holds from a time
//! on, so that a record carries the name that the interface had when the packet passed, also where
//! an interface was renamed or its number was given to another while the packet lay in a ring.

use std::{
    collections::{HashMap, VecDeque},
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
    /// Numbers of interfaces that are gone, in that order.
    gone: VecDeque<u32>,
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
        table.gone.retain(|gone| *gone != ifindex);
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
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Notes that capture on an interface that has a name begins or ends.
    pub fn switch(&self, ifindex: u32, now_ns: u64) {
        let mut table = self.lock();
        if table.names.contains_key(&ifindex) {
            table.switched.insert(ifindex, now_ns);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// When capture last began or ended on each interface.
    #[must_use]
    pub fn switched(&self) -> HashMap<u32, u64> {
        self.lock().switched.clone()
    }

    /// Notes that nothing more will come from an interface; its names are kept for a while.
    pub fn retire(&self, ifindex: u32) {
        let mut table = self.lock();
        if !table.names.contains_key(&ifindex) || table.gone.contains(&ifindex) {
            return;
        }
        table.gone.push_back(ifindex);
        if table.gone.len() > KEPT
            && let Some(oldest) = table.gone.pop_front()
        {
            table.names.remove(&oldest);
            table.switched.remove(&oldest);
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes with every change of the table; 0 while nothing was ever named.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The table and its version.
    #[must_use]
    pub fn read(&self) -> (u64, HashMap<u32, Vec<Since>>) {
        let table = self.lock();
        (self.version(), table.names.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Whole after each statement, so true even if another holder panicked.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(names: &Names, ifindex: u32) -> Vec<(u64, String)> {
        let (_, table) = names.read();
        let of = table.get(&ifindex).cloned().unwrap_or_default();
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
        assert_eq!(names.read().1.len(), KEPT);
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
}
