//! The notes that the tables of all workers share.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use hashbrown::DefaultHashBuilder;

use super::truncation::Truncations;

/// Number of places for the workers of queries, a power of two; 32 KiB for the agent.
const PLACES: usize = 16_384;

/// Notes that the tables of all workers share.
#[derive(Clone, Default)]
pub struct SharedNotes {
    /// All tables hash alike, so that one finds what another has noted.
    pub(super) hasher: DefaultHashBuilder,
    pub(super) truncations: Truncations,
    workers: Option<QueryWorkers>,
}

impl SharedNotes {
    /// Creates the notes of several workers, which also note the worker of each query.
    #[must_use]
    pub fn between(workers: usize) -> Self {
        let workers = (workers > 1).then(QueryWorkers::new);
        Self { workers, ..Self::default() }
    }

    /// Notes that a query with this hash of its client and question is pending at a worker.
    #[inline]
    pub(super) fn note_worker(&self, hash: u64, worker: u16) {
        if let Some(workers) = &self.workers {
            workers.place(hash).store(worker.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Returns the worker that noted such a query last, or another query at the same place.
    pub(super) fn worker(&self, hash: u64) -> Option<u16> {
        let noted = self.workers.as_ref()?.place(hash).load(Ordering::Relaxed);
        noted.checked_sub(1)
    }
}

/// The worker of the latest query of each client and question, plus one; 0 for none. A response with
/// a wrong identifier is in another ring than the query that it pretends to answer, and finds its
/// worker here. A note is one store, which nothing waits for.
#[derive(Clone)]
struct QueryWorkers(Arc<[AtomicU16]>);

impl QueryWorkers {
    fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU16::new(0)).collect())
    }

    #[inline]
    fn place(&self, hash: u64) -> &AtomicU16 {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let place = hash as usize & (PLACES - 1);
        &self.0[place]
    }
}
