//! Heartbeats of the workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Holds the time when a worker last polled its ring (one store per batch or idle poll) and the
/// number of packets it has taken from it (one store per packet).
#[derive(Clone, Debug)]
pub struct Heartbeat {
    worker: u16,
    signs: Arc<Signs>,
}

/// Values in cache lines of their own: workers write to them for each packet, and must not share
/// the lines.
#[derive(Debug)]
#[repr(align(128))]
struct Signs {
    /// CLOCK_MONOTONIC, nanoseconds.
    at_ns: AtomicU64,
    packets: AtomicU64,
}

impl Heartbeat {
    /// Creates the heartbeat of a worker that starts now.
    #[must_use]
    pub fn new(worker: u16, now_ns: u64) -> Self {
        let signs = Signs { at_ns: AtomicU64::new(now_ns), packets: AtomicU64::new(0) };
        Self { worker, signs: Arc::new(signs) }
    }

    /// Records that the worker polls its ring.
    pub fn beat(&self, now_ns: u64) {
        // Relaxed: no reader infers the state of other memory from this number.
        self.signs.at_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Counts another packet. Only the worker itself may call it: it is no atomic addition.
    #[inline]
    pub fn count_packet(&self) {
        let packets = self.signs.packets.load(Ordering::Relaxed);
        self.signs.packets.store(packets + 1, Ordering::Relaxed);
    }

    /// Returns two numbers. At least one of them changes whenever the worker makes progress.
    #[must_use]
    pub fn progress(&self) -> [u64; 2] {
        [&self.signs.at_ns, &self.signs.packets].map(|sign| sign.load(Ordering::Relaxed))
    }

    /// Returns the number of the worker.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        self.worker
    }

    /// Returns the time since the worker last polled its ring.
    #[must_use]
    pub fn age(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.signs.at_ns.load(Ordering::Relaxed)))
    }
}

/// Checks the heartbeats of all workers against a maximum age.
#[derive(Clone, Debug)]
pub struct Liveness {
    heartbeats: Arc<[Heartbeat]>,
    bound: Duration,
}

impl Liveness {
    /// Creates a check that succeeds while every heartbeat is younger than `bound`.
    #[must_use]
    pub fn new(heartbeats: Vec<Heartbeat>, bound: Duration) -> Self {
        Self { heartbeats: heartbeats.into(), bound }
    }

    /// Returns the heartbeats of all workers.
    #[must_use]
    pub fn heartbeats(&self) -> &[Heartbeat] {
        &self.heartbeats
    }

    /// Returns the reasons why the agent is not alive; empty if it is.
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
        // Another thread read the clock before the store; the age must not be negative.
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
