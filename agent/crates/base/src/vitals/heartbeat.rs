//! The workers' signs of life.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// When a worker last looked at its ring, one store for each batch or idle look, and how many packets
/// it has taken out of it, one store for each.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    worker: u16,
    signs: Arc<Signs>,
}

/// In cache lines of their own: workers write here for each packet, and share nothing.
#[derive(Debug)]
#[repr(align(128))]
struct Signs {
    /// CLOCK_MONOTONIC.
    at_ns: AtomicU64,
    packets: AtomicU64,
}

impl Heartbeat {
    /// The heartbeat of a worker that begins now.
    #[must_use]
    pub fn new(worker: u16, now_ns: u64) -> Self {
        let signs = Signs { at_ns: AtomicU64::new(now_ns), packets: AtomicU64::new(0) };
        Self { worker, signs: Arc::new(signs) }
    }

    /// Says that the worker is at its ring.
    pub fn beat(&self, now_ns: u64) {
        // Relaxed: a lone number, which nothing else is read by.
        self.signs.at_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Says that the worker has taken another packet. For the worker alone, so it takes no atomic
    /// addition.
    #[inline]
    pub fn count_packet(&self) {
        let packets = self.signs.packets.load(Ordering::Relaxed);
        self.signs.packets.store(packets + 1, Ordering::Relaxed);
    }

    /// Two numbers of which one changes whenever the worker gets on.
    #[must_use]
    pub fn progress(&self) -> [u64; 2] {
        [&self.signs.at_ns, &self.signs.packets].map(|sign| sign.load(Ordering::Relaxed))
    }

    /// Number of the worker.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        self.worker
    }

    /// How long ago the worker was at its ring.
    #[must_use]
    pub fn age(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.signs.at_ns.load(Ordering::Relaxed)))
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

    #[test]
    fn each_packet_and_each_look_at_the_ring_is_progress() {
        let heartbeat = Heartbeat::new(0, 5);
        let before = heartbeat.progress();
        heartbeat.count_packet();
        let packet = heartbeat.progress();
        heartbeat.beat(6);
        assert!(before != packet && packet != heartbeat.progress());
    }
}
