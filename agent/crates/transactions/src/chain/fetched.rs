//! Questions that a resolver has fetched from authoritative servers. Some resolvers keep the flag AA in
//! their cache, so an answer with it may be a cached one.

use std::mem;

use hashbrown::HashSet;

use super::{Names, names::question};

/// Number of entries after which the earlier ones are dropped.
const ENTRIES: usize = 4_096;

/// Stands for a name's siblings in place of a type and class; no question has it.
const SIBLINGS: (u16, u16) = (0, 0);

/// The questions that were fetched or found here last. At least the last [`ENTRIES`] are kept, whatever
/// other questions come: a fixed table would drop a name for another one of its slot.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    recent: HashSet<u64>,
    earlier: HashSet<u64>,
}

impl Fetched {
    /// Notes a question that an authoritative server answered.
    pub(super) fn note(&mut self, names: &Names) {
        self.insert(question(names.name, names.kind));
        if let Some(siblings) = siblings(names) {
            self.insert(siblings);
        }
    }

    /// Returns true if the question was fetched.
    pub(super) fn contains(&mut self, names: &Names) -> bool {
        self.find(question(names.name, names.kind))
    }

    /// Returns true if a question for a sibling of the name was fetched.
    pub(super) fn contains_sibling(&mut self, names: &Names) -> bool {
        siblings(names).is_some_and(|siblings| self.find(siblings))
    }

    fn find(&mut self, hash: u64) -> bool {
        let is_found = self.recent.contains(&hash) || self.earlier.contains(&hash);
        if is_found {
            self.insert(hash);
        }
        is_found
    }

    fn insert(&mut self, hash: u64) {
        if self.recent.len() >= ENTRIES {
            self.earlier = mem::take(&mut self.recent);
        }
        self.recent.insert(hash);
    }
}

fn siblings(names: &Names) -> Option<u64> {
    names.ancestors.first().map(|parent| question(*parent, SIBLINGS))
}
