//! The workers' signs of life.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// When a worker last looked at its ring: one store for each batch, or idle look.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    worker: u16,
    /// CLOCK_MONOTONIC.
    at_ns: Arc<AtomicU64>,
}

impl Heartbeat {
    /// The heartbeat of a worker that begins now.
    #[must_use]
    pub fn new(worker: u16, now_ns: u64) -> Self {
        Self { worker, at_ns: Arc::new(AtomicU64::new(now_ns)) }
    }

    /// Says that the worker is at its ring.
    pub fn beat(&self, now_ns: u64) {
        // Relaxed: a lone number, which nothing else is read by.
        self.at_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Number of the worker.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        self.worker
    }

    /// How long ago the worker was at its ring.
    #[must_use]
    pub fn age(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.at_ns.load(Ordering::Relaxed)))
    }
}

/// The heartbeats of all workers, and how old one may be.
#[derive(Clone, Debug)]
pub struct Liveness {
    heartbeats: Arc<[Heartbeat]>,
    bound: Duration,
}

impl Liveness {
    /// Alive while every heartbeat is younger than `bound`.
    #[must_use]
    pub fn new(heartbeats: Vec<Heartbeat>, bound: Duration) -> Self {
        Self { heartbeats: heartbeats.into(), bound }
    }

    /// The heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> &[Heartbeat] {
        &self.heartbeats
    }

    /// Why the agent is not alive; none if it is.
    #[must_use]
    pub fn reasons(&self, now_ns: u64) -> Vec<String> {
        let old = self.heartbeats.iter().filter(|heartbeat| heartbeat.age(now_ns) >= self.bound);
        old.map(|heartbeat| {
            format!(
                "worker {} has not been at its ring for {} s (bound: {} s)",
                heartbeat.worker,
                heartbeat.age(now_ns).as_secs(),
                self.bound.as_secs_f64()
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_stays_away_is_enough_and_its_return_too() {
        let heartbeats = vec![Heartbeat::new(0, 0), Heartbeat::new(1, 0)];
        let liveness = Liveness::new(heartbeats.clone(), Duration::from_secs(15));
        assert!(liveness.reasons(14_999_999_999).is_empty());
        heartbeats[0].beat(14_000_000_000);
        let reasons = liveness.reasons(16_000_000_000);
        assert_eq!(reasons, ["worker 1 has not been at its ring for 16 s (bound: 15 s)"]);
        heartbeats[1].beat(16_000_000_000);
        assert!(liveness.reasons(16_000_000_000).is_empty());
        // Read by another thread before the store: the clock does not run backwards here.
        assert_eq!(heartbeats[1].age(0), Duration::ZERO);
    }
}
