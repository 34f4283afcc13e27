//! The chain of digests over a worker's records, which summaries publish link by link.
//!
//! ```text
//!  records   1 … 256        257 … 512       513 … 700      by number, as they were encoded
//!  links     L₁ ──────────▶ L₂ ───────────▶ L₃             Lₙ = H(Lₙ₋₁, numbers, H(records))
//!            └─────────── published by the window's summary ┘
//! ```
//!
//! - **Every link is published**, so a record that was lost, as the ledger counts, leaves one link
//!   without proof and not all that follow.
//! - **A link covers whole records as single objects**: a header that names the schema, then the
//!   datum. A reader who has the values alone encodes them again; see `docs/decisions/tamper.md`.
//! - **Memory and summaries are bounded.** Links of one window grow: each time [`Chain::links_before_doubling`]
//!   of them are sealed, the next cover twice as many records.
//! - **BLAKE3 is fast on long input only**, so the bytes of many records are hashed at once. Batches
//!   shorter than [`PIECE`] are gathered first.
//!
//! A worker locks its own chain once for each batch. Only the writer of summaries contends for it, once a
//! window.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Serialize, Serializer};
use tap53_records::encode::{Batch, Fingerprint, read_single_object};

/// Bytes of records that are hashed at once; a multiple of what BLAKE3 hashes in parallel.
const PIECE: usize = 32 << 10;

/// Records of the first links of a window.
const FIRST_RECORDS: u64 = 256;

/// Links of one window in all workers' chains before the next ones cover twice as many records.
const LINKS_BEFORE_DOUBLING: usize = 1_024;

/// Bounds of the same number for one worker.
const MOST_BEFORE_DOUBLING: usize = 256;
const LEAST_BEFORE_DOUBLING: usize = 16;

/// Contexts of the digests (BLAKE3 derive_key). Another construction must get other texts.
const LINK: &str = "tap53 2026-11 ledger chain link";
const CONTENT: &str = "tap53 2026-11 ledger chain content";
const BEGINNING: &str = "tap53 2026-11 ledger chain beginning";

/// A BLAKE3 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

/// The digest of consecutive records of a worker, chained to the link before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Number of the last of its records.
    pub last_record_number: i64,
    /// Number of records that it covers.
    pub records: i64,
    /// Digest by [`ContentHasher::link`].
    pub digest: Digest,
}

/// Hashes the records of a link, in the order of their numbers.
#[derive(Clone)]
pub struct ContentHasher(blake3::Hasher);

impl Default for ContentHasher {
    fn default() -> Self {
        Self(blake3::Hasher::new_derive_key(CONTENT))
    }
}

impl ContentHasher {
    /// Adds bytes of records, each a single object.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of the link over the `records` records that were added, up to number `last`, after
    /// the link `before`.
    #[must_use]
    pub fn link(&self, before: Digest, last: u64, records: u64) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key(LINK);
        hasher.update(&before.0).update(&last.to_le_bytes()).update(&records.to_le_bytes());
        hasher.update(self.0.finalize().as_bytes());
        hasher.finalize().into()
    }
}

/// Returns the digest that the first link of a chain follows. It binds the chain to run, sink and worker.
#[must_use]
pub fn beginning(run_id: &str, sink: &str, worker: u32) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(BEGINNING);
    for text in [run_id, sink] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.update(&worker.to_le_bytes());
    hasher.finalize().into()
}

/// The part of one worker's chain that a summary publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerChain {
    /// Number of the worker.
    pub worker: i32,
    /// The link that the first of `links` follows.
    pub before: Digest,
    /// Links that were sealed in the window, in their order.
    pub links: Vec<Link>,
}

/// The chain of one worker and one sink.
pub struct Chain {
    worker: u16,
    /// Links of one window before the next ones cover twice as many records.
    links_before_doubling: AtomicUsize,
    open: Mutex<Open>,
}

struct Open {
    /// The last link that a summary has.
    published: Digest,
    /// Links that were sealed since then.
    links: Vec<Link>,
    content: ContentHasher,
    /// Records that wait until there are enough bytes to hash.
    gathered: Vec<u8>,
    /// The number that follows the last one that was added.
    next: u64,
    /// Records in the link that is not sealed yet.
    records: u64,
    /// Fingerprint of the schema that records are written with, once there was one.
    fingerprint: Option<Fingerprint>,
}

impl Chain {
    /// Creates the chain of a worker that has not recorded anything yet.
    #[must_use]
    pub fn new(run_id: &str, sink: &str, worker: u16) -> Self {
        let open = Open {
            published: beginning(run_id, sink, worker.into()),
            links: Vec::new(),
            content: ContentHasher::default(),
            gathered: Vec::with_capacity(PIECE),
            next: 1,
            records: 0,
            fingerprint: None,
        };
        Self {
            worker,
            links_before_doubling: AtomicUsize::new(MOST_BEFORE_DOUBLING),
            open: Mutex::new(open),
        }
    }

    /// Adds the records of a batch of single objects, of which the first has this number.
    pub fn add(&self, first: u64, batch: &Batch) {
        let doubling = self.links_before_doubling.load(Ordering::Relaxed);
        let mut open = self.lock();
        open.begin_at(first, batch.bytes());
        let (mut done, mut start) = (0, 0);
        while done < batch.entries() {
            let room = open.room(doubling);
            let rest = batch.entries() - done;
            let taken = usize::try_from(room).map_or(rest, |room| room.min(rest));
            let end = batch.end_of(done + taken);
            open.add(taken as u64, batch.bytes().get(start..end).unwrap_or_default());
            (done, start) = (done + taken, end);
            if taken as u64 == room {
                open.seal();
            }
        }
    }

    /// Seals the link that is open, and takes the links since this was last called; with the
    /// fingerprint of the records' schema.
    fn cut(&self) -> (WorkerChain, Option<Fingerprint>) {
        let mut open = self.lock();
        open.seal();
        let links = std::mem::take(&mut open.links);
        let before = open.published;
        if let Some(last) = links.last() {
            open.published = last.digest;
        }
        (WorkerChain { worker: self.worker.into(), before, links }, open.fingerprint)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A panic in between leaves a link that proves nothing, which a reader sees.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Seals the open link where a number is missing: a record that could not be encoded is in no link.
    fn begin_at(&mut self, first: u64, bytes: &[u8]) {
        if self.fingerprint.is_none() {
            self.fingerprint = read_single_object(bytes).map(|(fingerprint, _)| fingerprint);
        }
        if first != self.next {
            self.seal();
            self.next = first;
        }
    }

    /// Returns how many records the open link still takes.
    fn room(&self, links_before_doubling: usize) -> u64 {
        let doublings = (self.links.len() / links_before_doubling.max(1)).min(32);
        (FIRST_RECORDS << doublings).saturating_sub(self.records).max(1)
    }

    fn add(&mut self, records: u64, mut bytes: &[u8]) {
        self.next += records;
        self.records += records;
        if !self.gathered.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(PIECE - self.gathered.len()));
            self.gathered.extend_from_slice(head);
            bytes = rest;
            if self.gathered.len() < PIECE {
                return;
            }
            self.content.update(&self.gathered);
            self.gathered.clear();
        }
        let whole = bytes.len() - bytes.len() % PIECE;
        let (pieces, rest) = bytes.split_at(whole);
        if !pieces.is_empty() {
            self.content.update(pieces);
        }
        self.gathered.extend_from_slice(rest);
    }

    fn seal(&mut self) {
        if self.records == 0 {
            return;
        }
        self.content.update(&self.gathered);
        self.gathered.clear();
        let before = self.links.last().map_or(self.published, |link| link.digest);
        let (last, records) = (self.next - 1, self.records);
        let digest = std::mem::take(&mut self.content).link(before, last, records);
        let [last_record_number, records] =
            [last, records].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        self.links.push(Link { last_record_number, records, digest });
        self.records = 0;
    }
}

/// The chains of all workers for one sink.
#[derive(Default)]
pub struct Chains {
    sink: String,
    chains: Mutex<Vec<std::sync::Arc<Chain>>>,
}

/// The parts of all chains that a summary publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// One part for each worker, in the order in which they began.
    pub chains: Vec<WorkerChain>,
    /// Fingerprint of the schema that records are written with, once there was one.
    pub fingerprint: Option<Fingerprint>,
}

impl Chains {
    /// Creates the chains of a sink with this name.
    #[must_use]
    pub fn of(sink: &str) -> Self {
        Self { sink: sink.to_owned(), chains: Mutex::default() }
    }

    /// Begins the chain of a worker.
    pub fn begin(&self, run_id: &str, worker: u16) -> std::sync::Arc<Chain> {
        let chain = std::sync::Arc::new(Chain::new(run_id, &self.sink, worker));
        let mut chains = self.lock();
        chains.push(chain.clone());
        let doubling = (LINKS_BEFORE_DOUBLING / chains.len())
            .clamp(LEAST_BEFORE_DOUBLING, MOST_BEFORE_DOUBLING);
        for chain in chains.iter() {
            chain.links_before_doubling.store(doubling, Ordering::Relaxed);
        }
        chain
    }

    /// Ends a window, and returns the parts that its summary publishes.
    pub fn cut(&self) -> Cut {
        let mut cut = Cut::default();
        for chain in self.lock().iter() {
            let (of_worker, fingerprint) = chain.cut();
            cut.chains.push(of_worker);
            cut.fingerprint = cut.fingerprint.or(fingerprint);
        }
        cut
    }

    fn lock(&self) -> MutexGuard<'_, Vec<std::sync::Arc<Chain>>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
