//! Threads that end with their owner.
//!
//! A [`JoinedThread`] is stopped and joined, since its work must be finished. A [`Background`] thread
//! queries something slow, with a backoff after failures, and is not joined.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::backoff::Backoff;

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _log = PanicLog(name);
        work();
    })
}

/// Logs that a thread panicked, which would otherwise pass unnoticed.
struct PanicLog(&'static str);

impl Drop for PanicLog {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = self.0;
            tracing::error!(event = "thread_panicked", thread = name, "thread {name} panicked");
        }
    }
}

/// A thread that is stopped and joined when this is dropped.
pub struct JoinedThread {
    stop: Box<dyn Fn() + Send + Sync>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl JoinedThread {
    /// Starts `work`, which must return soon after `stop` was called.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
        stop: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let handle = spawn(name, work)?;
        Ok(Self { stop: Box::new(stop), handle: Mutex::new(Some(handle)) })
    }

    /// Stops the thread and waits for its end.
    pub fn stop(&self) {
        let Some(handle) = self.handle.lock().take() else { return };
        (self.stop)();
        // Its panic has been logged.
        let _ = handle.join();
    }
}

impl Drop for JoinedThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The outcome of a round of a [`Background`] thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// It succeeded. The next round begins once it is requested, and after this time if there is
    /// one.
    Done(Option<Duration>),
    /// It failed. The next round begins after the backoff, and after this time: no request ends
    /// that earlier.
    Failed(Duration),
}

/// Requests rounds of a [`Background`] thread, also before that is started.
#[derive(Clone, Default)]
pub struct Requests(Arc<Shared>);

impl Requests {
    /// Requests one more round. Requests during a round, or before one has begun, are one.
    pub fn request(&self) {
        self.0.state.lock().is_requested = true;
        self.0.changed.notify_all();
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_requested: bool,
    stop: bool,
}

/// A thread that works in rounds. Once this is dropped it ends after its current round, and is not
/// joined.
pub struct Background(Requests);

impl Background {
    /// Starts the first round now, and others by each round's outcome and by `requests`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        name: &'static str,
        requests: Requests,
        mut backoff: Backoff,
        mut work: impl FnMut() -> Round + Send + 'static,
    ) -> io::Result<Self> {
        let shared = requests.0.clone();
        spawn(name, move || {
            while shared.begin_round() {
                match work() {
                    Round::Done(pause) => {
                        backoff.reset();
                        shared.wait_for_request(pause);
                    }
                    Round::Failed(pause) => shared.wait_for_stop(backoff.fail().max(pause)),
                }
            }
        })?;
        Ok(Self(requests))
    }

    /// Requests one more round; after a failure, it begins after the backoff.
    pub fn request(&self) {
        self.0.request();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let shared = &self.0.0;
        shared.state.lock().stop = true;
        shared.changed.notify_all();
    }
}

impl Shared {
    /// Clears the request that this round answers; false where the thread must end.
    fn begin_round(&self) -> bool {
        let mut state = self.state.lock();
        state.is_requested = false;
        !state.stop
    }

    fn wait_for_request(&self, pause: Option<Duration>) {
        let mut state = self.state.lock();
        let is_idle = |state: &mut State| !state.is_requested && !state.stop;
        match pause {
            Some(pause) => drop(self.changed.wait_while_for(&mut state, is_idle, pause)),
            None => self.changed.wait_while(&mut state, is_idle),
        }
    }

    fn wait_for_stop(&self, pause: Duration) {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.stop, pause);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn background(
        outcomes: Vec<Round>,
        requests: &Requests,
    ) -> (Background, mpsc::Receiver<usize>) {
        let (rounds, seen) = mpsc::channel();
        let mut number = 0;
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let background = Background::start("test", requests.clone(), backoff, move || {
            number += 1;
            // The test may have ended.
            let _ = rounds.send(number);
            outcomes.get(number - 1).copied().unwrap_or(Round::Done(None))
        });
        (background.unwrap(), seen)
    }

    #[test]
    fn rounds_follow_failures_pauses_and_requests_and_nothing_else() {
        let requests = Requests::default();
        // It is for the first round, which begins anyway.
        requests.request();
        let pause = Duration::from_millis(1);
        let outcomes = vec![Round::Failed(pause), Round::Done(Some(pause)), Round::Done(None)];
        let (background, rounds) = background(outcomes, &requests);
        let next = || rounds.recv_timeout(DEADLINE).unwrap();
        assert_eq!([next(), next(), next()], [1, 2, 3]);
        assert_eq!(rounds.recv_timeout(20 * pause), Err(mpsc::RecvTimeoutError::Timeout));
        background.request();
        assert_eq!(next(), 4);
        requests.request();
        assert_eq!(next(), 5);
        drop(background);
        // The sender goes with the thread.
        assert_eq!(rounds.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_request_does_not_end_the_pause_after_a_failure_and_a_drop_does() {
        let (background, rounds) =
            background(vec![Round::Failed(Duration::from_secs(3_600))], &Requests::default());
        assert_eq!(rounds.recv_timeout(DEADLINE), Ok(1));
        background.request();
        let wait = rounds.recv_timeout(Duration::from_millis(20));
        assert_eq!(wait, Err(mpsc::RecvTimeoutError::Timeout));
        drop(background);
        assert_eq!(rounds.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_joined_thread_has_ended_when_its_owner_is_dropped() {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let work = move || {
            stopped.recv().unwrap();
            end.send(()).unwrap();
        };
        drop(JoinedThread::start("test", work, move || stop.send(()).unwrap()).unwrap());
        assert_eq!(ended.try_recv(), Ok(()));
    }
}
