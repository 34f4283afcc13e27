//! Readings of the agent's status from the run loop, which concurrent requests share.
//!
//! - **Requests share a reading** that began after they arrived, so that any number of them costs the
//!   run loop at most two readings at a time.
//! - **There are at most [`PER_SECOND`] readings a second.** Requests beyond get the latest one, which
//!   is some tens of milliseconds old: a flood of requests takes next to nothing from capture, and each
//!   of them is answered.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use crate::control::Status;

/// Maximum number of readings a second, and of readings at once after a pause.
const PER_SECOND: u32 = 20;

/// Maximum age of a reading that is shown again.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Deadline for an answer of the run loop; less than the ten seconds that Prometheus waits.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Maximum number of requests that wait for a reading: half of all connections, so that the others
/// are left for requests that need none.
const WAITING: usize = 32;

/// One reading.
pub(super) struct Reading {
    pub(super) status: Status,
    /// The metrics as text, rendered at the first request for them.
    pub(super) metrics: OnceLock<Bytes>,
    begun_at: Instant,
}

/// The readings of a server.
pub(super) struct Readings {
    latest: Mutex<Latest>,
    waiting: Semaphore,
}

struct Latest {
    reading: Option<Arc<Reading>>,
    /// Number of readings that are allowed now; grows with time.
    allowed: f64,
    allowed_at: Instant,
}

impl Readings {
    pub(super) fn new(now: Instant) -> Self {
        let latest = Latest { reading: None, allowed: PER_SECOND.into(), allowed_at: now };
        Self { latest: Mutex::new(latest), waiting: Semaphore::new(WAITING) }
    }

    /// Returns a reading of the status; `request` gets one from the run loop.
    ///
    /// # Errors
    /// A text for people if there is no answer.
    pub(super) async fn read<F>(
        &self,
        request: impl FnOnce() -> F,
    ) -> Result<Arc<Reading>, &'static str>
    where
        F: Future<Output = Option<Status>>,
    {
        let came_at = Instant::now();
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err("too many requests wait for the run loop");
        };
        let read = async {
            let mut latest = self.latest.lock().await;
            if let Some(reading) = latest.fit_for(came_at, Instant::now()) {
                return Some(reading);
            }
            let begun_at = Instant::now();
            let status = request().await?;
            let reading = Arc::new(Reading { status, metrics: OnceLock::new(), begun_at });
            latest.reading = Some(reading.clone());
            Some(reading)
        };
        match timeout(ANSWER_DEADLINE, read).await {
            Ok(Some(reading)) => Ok(reading),
            Ok(None) => Err("the agent is stopping"),
            Err(_) => Err("the run loop does not answer"),
        }
    }
}

impl Latest {
    /// Returns the latest reading, if it is recent enough for a request that arrived at `came_at`;
    /// otherwise counts one more reading.
    fn fit_for(&mut self, came_at: Instant, now: Instant) -> Option<Arc<Reading>> {
        let passed = now.saturating_duration_since(self.allowed_at).as_secs_f64();
        let most = f64::from(PER_SECOND);
        self.allowed = (self.allowed + passed * most).min(most);
        self.allowed_at = now;
        let fits = |reading: &&Arc<Reading>| {
            let age = now.saturating_duration_since(reading.begun_at);
            reading.begun_at >= came_at || (self.allowed < 1.0 && age < MAX_AGE)
        };
        let fit = self.reading.as_ref().filter(fits).cloned();
        if fit.is_none() {
            self.allowed = (self.allowed - 1.0).max(0.0);
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest(start: Instant) -> Latest {
        Latest { reading: None, allowed: PER_SECOND.into(), allowed_at: start }
    }

    fn reading(begun_at: Instant) -> Option<Arc<Reading>> {
        let status = crate::control::tests::status();
        Some(Arc::new(Reading { status, metrics: OnceLock::new(), begun_at }))
    }

    #[test]
    fn requests_that_arrived_before_a_reading_began_share_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut latest = latest(start);
        assert!(latest.fit_for(at(0), at(0)).is_none());
        latest.reading = reading(at(5));
        assert!(latest.fit_for(at(3), at(9)).is_some(), "it came while another was read");
        assert!(latest.fit_for(at(6), at(9)).is_none(), "it may have to see what happened since");
    }

    #[test]
    fn a_flood_gets_the_latest_reading_and_a_bounded_number_of_readings() {
        let start = Instant::now();
        let mut latest = latest(start);
        let mut made = 0;
        // Ten seconds of a request each millisecond.
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            match latest.fit_for(now, now) {
                None => {
                    made += 1;
                    latest.reading = reading(now);
                }
                Some(shown) => {
                    assert!(now - shown.begun_at <= Duration::from_millis(60), "{ms}");
                }
            }
        }
        assert!((200..=222).contains(&made), "{made}");
    }

    #[test]
    fn an_old_reading_is_not_shown_if_the_run_loop_hangs() {
        let start = Instant::now();
        let mut latest = latest(start);
        latest.reading = reading(start);
        latest.allowed = 0.0;
        let now = start + Duration::from_millis(1);
        assert!(latest.fit_for(now, now).is_some());
        let mut asked = 0;
        for ms in 1_000..1_020 {
            let now = start + Duration::from_millis(ms);
            latest.allowed = 0.0;
            asked += usize::from(latest.fit_for(now, now).is_none());
        }
        assert_eq!(asked, 20, "each requests a new reading");
    }

    #[test]
    fn concurrent_requests_cost_two_readings() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let readings = Readings::new(Instant::now());
        let asked = std::cell::Cell::new(0);
        runtime.block_on(async {
            let ask = || async {
                asked.set(asked.get() + 1);
                tokio::task::yield_now().await;
                Some(crate::control::tests::status())
            };
            let read = || readings.read(ask);
            let read = tokio::join!(read(), read(), read(), read(), read(), read());
            assert!(read.0.is_ok() && read.5.is_ok());
        });
        // One that was under way when the others came, and one for all of those.
        assert_eq!(asked.get(), 2);
    }
}
