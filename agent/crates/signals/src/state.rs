//! The state that workers share: tables, and the file of first-seen domains.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::fast::SeedableRandomState;
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;
use tap53_base::{
    backoff::Backoff,
    threads::{Background, Requests, Round},
};

use crate::{
    burst::Burst,
    config::SignalsConfig,
    first_seen::FirstSeen,
    rebinding::Suffixes,
    recent::Recent,
    state_file::{Error, Identity, StateFile},
    striped::Striped,
    tunnel::Tunnel,
};

/// Time between two writes of the state in which it has changed.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// A day in microseconds.
const DAY_US: i64 = 86_400_000_000;

/// The signals of all workers. Cheap to clone; the state is written once more when the last clone is
/// dropped.
#[derive(Clone)]
pub struct SharedSignals {
    pub(crate) shared: Arc<Shared>,
    _writer: Option<Arc<Background>>,
}

/// The state that workers share.
pub(crate) struct Shared {
    pub(crate) config: SignalsConfig,
    /// With random keys in a running agent, so that nobody can prepare names that share a bit or a bucket.
    pub(crate) hasher: SeedableRandomState,
    pub(crate) internal: Suffixes,
    pub(crate) lookup_services: Suffixes,
    pub(crate) private_zones: Suffixes,
    pub(crate) domains: FirstSeen,
    identity: Identity,
    /// Time from which on new domains are marked, in microseconds since 1970 UTC.
    pub(crate) learned_at_us: i64,
    pub(crate) tunnels: Striped<Tunnel>,
    pub(crate) bursts: Striped<Burst>,
    state: Mutex<State>,
    resets: AtomicU64,
    write_failures: AtomicU64,
}

/// The state file.
#[derive(Default)]
struct State {
    /// `None` until it could be created.
    file: Option<StateFile>,
    /// True since the last attempt to write failed.
    is_failing: bool,
}

/// Use of the tables, and failures of the state file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of domains of the node and its workloads.
    pub domains: u64,
    /// Number of domains that others replaced because the table is full.
    pub domains_replaced: u64,
    /// Number of state files that could not be used; the table was then empty.
    pub state_resets: u64,
    /// Number of attempts to write the state that failed.
    pub state_write_failures: u64,
}

impl SharedSignals {
    /// Creates the tables of `workers`, and restores the domains of the state file. A file that cannot be
    /// used is logged and counted, and is no error: domains are then new once more.
    #[must_use]
    pub fn open(config: &SignalsConfig, workers: usize, now_us: i64) -> Self {
        let restored = Restored::open(config, workers, now_us);
        let shared = Shared::new(config, workers, restored, SeedableRandomState::random());
        let shared = Arc::new(shared);
        let writes = config.new_domains && config.state.is_some();
        let writer = writes.then(|| shared.clone().write_in_background()).flatten();
        Self { shared, _writer: writer.map(Arc::new) }
    }

    /// Creates the tables of a replay that begins at `now_us`. They have no state, so a domain is new where
    /// the captures have it first, and the same captures have the same signals each time.
    #[must_use]
    pub fn of_replay(config: &SignalsConfig, now_us: i64) -> Self {
        let config = SignalsConfig { learning: Duration::ZERO, state: None, ..config.clone() };
        let identity = Identity { key: [0; 16], created_at_us: now_us };
        let empty = Restored::empty(domains_bytes(&config, 1), identity);
        let shared = Shared::new(&config, 1, empty, SeedableRandomState::fixed());
        Self { shared: Arc::new(shared), _writer: None }
    }

    /// Writes what has changed to the state file now.
    pub fn flush(&self) {
        self.shared.write();
    }

    /// Returns what the tables hold.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let shared = &self.shared;
        Usage {
            domains: shared.domains.occupied(),
            domains_replaced: shared.domains.replaced(),
            state_resets: shared.resets.load(Ordering::Relaxed),
            state_write_failures: shared.write_failures.load(Ordering::Relaxed),
        }
    }

    /// Returns the memory of the tables and of the detectors of `workers`, in bytes.
    #[must_use]
    pub fn memory_bytes(&self, workers: usize) -> usize {
        let Shared { domains, tunnels, bursts, .. } = &*self.shared;
        domains.bytes() + tunnels.bytes() + bursts.bytes() + workers * Recent::BYTES
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.write();
    }
}

impl std::fmt::Debug for SharedSignals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSignals").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(
        config: &SignalsConfig,
        workers: usize,
        restored: Restored,
        hasher: SeedableRandomState,
    ) -> Self {
        let Restored { domains, identity, resets } = restored;
        let memory = tables_bytes(config, workers);
        let learning_us = i64::try_from(config.learning.as_micros()).unwrap_or(i64::MAX);
        Self {
            hasher,
            internal: Suffixes::new(&config.internal_suffixes),
            lookup_services: Suffixes::new(
                config.lookup_services.iter().chain(&config.internal_suffixes),
            ),
            private_zones: Suffixes::new(&config.private_zones),
            domains,
            identity,
            learned_at_us: identity.created_at_us.saturating_add(learning_us),
            tunnels: Striped::new(if config.tunnels { memory / 4 } else { 0 }),
            bursts: Striped::new(if config.dga { memory / 32 } else { 0 }),
            config: config.clone(),
            state: Mutex::default(),
            resets: AtomicU64::new(resets),
            write_failures: AtomicU64::new(0),
        }
    }

    fn write_in_background(self: Arc<Self>) -> Option<Background> {
        self.write();
        // Weak: the tables are dropped with the last worker, and then this thread has nothing to write.
        let shared = Arc::downgrade(&self);
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        Background::start("signals-state", Requests::default(), backoff, move || {
            match shared.upgrade().map(|shared| shared.write()) {
                Some(false) => Round::Failed(WRITE_INTERVAL),
                Some(true) => Round::Done(Some(WRITE_INTERVAL)),
                None => Round::Done(None),
            }
        })
        .inspect_err(|error| {
            tracing::error!(
                event = "signals_state_not_written",
                %error,
                "cannot start the thread that writes the state of signals: domains are new again after a restart"
            );
        })
        .ok()
    }

    /// Writes what has changed; returns false if that failed.
    fn write(&self) -> bool {
        let (true, Some(path)) = (self.config.new_domains, &self.config.state) else { return true };
        let mut state = self.state.lock();
        let written = match &state.file {
            Some(file) => file.write(&self.domains),
            None => StateFile::create(path, self.identity, &self.domains)
                .map(|file| state.file = Some(file)),
        };
        let Err(error) = written else {
            state.is_failing = false;
            return true;
        };
        self.write_failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut state.is_failing, true) {
            tracing::warn!(
                event = "signals_state_not_written",
                %error,
                "cannot write the state of signals: domains that were seen meanwhile are new again after a restart"
            );
        }
        false
    }

    /// Returns the hash of a domain, of the node or of a workload. It is the same in the next run.
    #[inline]
    pub(crate) fn hash(&self, domain: &str, workload: Option<(&str, &str)>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.identity.key);
        if let Some((namespace, name)) = workload {
            hasher.write(namespace.as_bytes());
            hasher.write_u8(b'/');
            hasher.write(name.as_bytes());
            hasher.write_u8(b'/');
        }
        hasher.write(domain.as_bytes());
        hasher.finish()
    }

    /// Returns the day since the state was created.
    #[inline]
    pub(crate) fn day(&self, at_us: i64) -> u64 {
        let since = at_us.saturating_sub(self.identity.created_at_us) / DAY_US;
        u64::try_from(since).unwrap_or_default()
    }
}

impl Identity {
    fn new(now_us: i64) -> Self {
        let random = || RandomState::new().build_hasher().finish().to_le_bytes();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random());
        key[8..].copy_from_slice(&random());
        Self { key, created_at_us: now_us }
    }
}

/// Returns the memory of the tables: what the detectors of the workers leave, but at least 1 MiB.
fn tables_bytes(config: &SignalsConfig, workers: usize) -> usize {
    let memory = (config.max_memory_mib as usize) << 20;
    memory.saturating_sub(workers.saturating_mul(Recent::BYTES)).max(1 << 20)
}

fn domains_bytes(config: &SignalsConfig, workers: usize) -> usize {
    if config.new_domains { tables_bytes(config, workers) / 8 * 5 } else { 0 }
}

/// The domains of the state file, or an empty table.
struct Restored {
    domains: FirstSeen,
    identity: Identity,
    /// Number of state files that could not be used.
    resets: u64,
}

impl Restored {
    fn open(config: &SignalsConfig, workers: usize, now_us: i64) -> Self {
        let bytes = domains_bytes(config, workers);
        let path = config.state.as_ref().filter(|_| config.new_domains);
        let loaded = path.map_or(Ok(None), |path| Self::load(path, bytes));
        let empty = || Self::empty(bytes, Identity::new(now_us));
        loaded.map(|loaded| loaded.unwrap_or_else(empty)).unwrap_or_else(|error| {
            tracing::warn!(
                event = "signals_state_reset",
                %error,
                "cannot use the state of signals, starting with an empty one: each domain is new again"
            );
            Self { resets: 1, ..empty() }
        })
    }

    fn empty(bytes: usize, identity: Identity) -> Self {
        Self { domains: FirstSeen::new(bytes), identity, resets: 0 }
    }

    /// Reads the state file; returns `None` if there is none.
    fn load(path: &Path, bytes: usize) -> Result<Option<Self>, Error> {
        let Some((identity, content)) = StateFile::load(path)? else { return Ok(None) };
        let restored = Self::empty(bytes, identity);
        if restored.domains.restore(&content) {
            Ok(Some(restored))
        } else {
            Err(Error::Damaged { path: path.to_owned(), what: "a domain has a wrong checksum" })
        }
    }
}
