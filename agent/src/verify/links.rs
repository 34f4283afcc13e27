//! Collects the records of one worker until a link of its chain can be recomputed.

use std::collections::{BTreeMap, HashMap};

use tap53_ledger::chain::{ContentHasher, Digest};

use super::summary::{WorkerLink, WorkerLinks};

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Some of its records have not arrived.
    Open,
    /// All of its records have arrived, as the agent wrote them.
    Proven,
    /// All numbers have arrived, but not as the agent wrote them.
    Altered,
}

/// A link with its records so far.
pub(super) struct Link {
    pub(super) first: u64,
    pub(super) last: u64,
    before: Digest,
    digest: Digest,
    /// Records by number, until all have arrived.
    bodies: BTreeMap<u64, Box<[u8]>>,
    pub(super) arrived: u64,
    pub(super) state: State,
}

/// Outcome of adding a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    /// The same record has arrived before.
    Duplicate,
    /// Another record with its number has arrived before.
    Conflict,
}

/// One worker's links and records.
#[derive(Default)]
pub(super) struct Worker {
    /// Links by their last numbers.
    pub(super) links: BTreeMap<u64, Link>,
    /// 128 bits of the hash of each record that has arrived, by number.
    seen: HashMap<u64, u128>,
}

impl Worker {
    /// Adds the links of a summary; returns false if their numbers are invalid.
    pub(super) fn add_links(&mut self, chain: &WorkerLinks) -> bool {
        let mut before = chain.before;
        chain.links.iter().all(|link| {
            let is_new = self.add_link(before, link);
            before = link.digest;
            is_new
        })
    }

    fn add_link(&mut self, before: Digest, link: &WorkerLink) -> bool {
        let Some(first) = link.records.checked_sub(1).and_then(|rest| link.last.checked_sub(rest))
        else {
            return false;
        };
        let overlaps =
            self.links.range(first..).next().is_some_and(|(_, next)| next.first <= link.last);
        let (last, digest) = (link.last, link.digest);
        let (bodies, state) = (BTreeMap::new(), State::Open);
        let link = Link { first, last, before, digest, bodies, arrived: 0, state };
        first > 0 && !overlaps && self.links.insert(last, link).is_none()
    }

    /// Adds a record in single-object encoding.
    pub(super) fn add(&mut self, number: u64, single_object: &[u8]) -> Added {
        let hash = blake3::hash(single_object);
        let hash = u128::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 16]));
        match self.seen.insert(number, hash) {
            None => {}
            Some(before) if before == hash => return Added::Duplicate,
            Some(_) => return Added::Conflict,
        }
        if let Some((_, link)) = self.links.range_mut(number..).next()
            && link.first <= number
        {
            link.add(number, single_object);
        }
        Added::New
    }

    /// Returns the numbers that have arrived, in order.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = self.seen.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Returns true if a link covers the number.
    pub(super) fn covers(&self, number: u64) -> bool {
        self.links.range(number..).next().is_some_and(|(_, link)| link.first <= number)
    }
}

impl Link {
    const fn records(&self) -> u64 {
        self.last - self.first + 1
    }

    fn add(&mut self, number: u64, single_object: &[u8]) {
        self.bodies.insert(number, single_object.into());
        self.arrived += 1;
        if self.arrived == self.records() {
            let mut content = ContentHasher::default();
            std::mem::take(&mut self.bodies).values().for_each(|body| content.update(body));
            let is_same = content.link(self.before, self.last, self.records()) == self.digest;
            self.state = if is_same { State::Proven } else { State::Altered };
        }
    }
}
