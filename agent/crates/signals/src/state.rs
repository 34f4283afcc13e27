//! What the workers share: tables, and the file of first-seen domains.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;
use tap53_base::{
    backoff::Backoff,
    threads::{Background, Requests, Round},
};

use crate::{
    burst::Burst,
    config::SignalsConfig,
    detector::Detector,
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
    shared: Arc<Shared>,
    _writer: Option<Arc<Background>>,
}

/// What workers share.
pub(crate) struct Shared {
    pub(crate) config: SignalsConfig,
    pub(crate) hasher: DefaultHashBuilder,
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

/// What the tables hold, and what happened to the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of domains of the node and its workloads.
    pub domains: u64,
    /// Number of domains that others replaced because the table is full.
    pub domains_replaced: u64,
    /// Number of state files that were damaged and begun anew.
    pub state_resets: u64,
    /// Number of attempts to write the state that failed.
    pub state_write_failures: u64,
}

impl SharedSignals {
    /// Creates the tables of `workers`, and restores the domains of the state file. A file that cannot be
    /// used is logged and counted, and is no error: domains are then new once more.
    #[must_use]
    pub fn open(config: &SignalsConfig, workers: usize, now_us: i64) -> Self {
        let shared = Arc::new(Shared::open(config, workers, now_us));
        let writes = config.new_domains && config.state.is_some();
        let writer = writes.then(|| shared.clone().write_in_background()).flatten();
        Self { shared, _writer: writer.map(Arc::new) }
    }

    /// Creates the detector of one more worker.
    #[must_use]
    pub fn detector(&self) -> Detector {
        Detector::new(self.shared.clone())
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
    fn open(config: &SignalsConfig, workers: usize, now_us: i64) -> Self {
        let memory = (config.max_memory_mib as usize) << 20;
        let memory = memory.saturating_sub(workers.saturating_mul(Recent::BYTES)).max(1 << 20);
        let domains_bytes = if config.new_domains { memory / 8 * 5 } else { 0 };
        let resets = AtomicU64::new(0);
        let (domains, identity) = restored(config, domains_bytes, &resets)
            .unwrap_or_else(|| (FirstSeen::new(domains_bytes), Identity::new(now_us)));
        let learning_us = i64::try_from(config.learning.as_micros()).unwrap_or(i64::MAX);
        Self {
            hasher: DefaultHashBuilder::default(),
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
            resets,
            write_failures: AtomicU64::new(0),
        }
    }

    fn write_in_background(self: Arc<Self>) -> Option<Background> {
        self.write();
        // Not the tables: they end with the last worker, and this thread with them.
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

/// Returns the table of the state file, if there is one that can be used.
fn restored(
    config: &SignalsConfig,
    bytes: usize,
    resets: &AtomicU64,
) -> Option<(FirstSeen, Identity)> {
    let path = config.state.as_ref().filter(|_| config.new_domains)?;
    let loaded = StateFile::load(path).and_then(|loaded| {
        let Some((identity, content)) = loaded else { return Ok(None) };
        let domains = FirstSeen::new(bytes);
        if domains.restore(&content) {
            Ok(Some((domains, identity)))
        } else {
            Err(Error::Damaged { path: path.clone(), what: "a domain has a wrong checksum" })
        }
    });
    loaded.unwrap_or_else(|error| {
        resets.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            event = "signals_state_reset",
            %error,
            "cannot use the state of signals: it begins anew, and each domain is new once more"
        );
        None
    })
}
