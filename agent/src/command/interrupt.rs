//! Ctrl-C and the end of its time end a follower with a closing line.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Exit status of a process that SIGINT ends, as a shell reports it.
const BY_SIGINT: i32 = 130;

/// Exit status of a process that writes to a blocked output when its time has ended.
const BLOCKED: i32 = 1;

/// Time for the output to be written after the follower's time has ended. The reader may be gone
/// without closing its end, as when `kubectl exec` is killed.
const BLOCKED_LIMIT: Duration = Duration::from_secs(2);

/// Waits for SIGINT and SIGTERM on a thread of its own, and ends the connection then, so that a read of
/// it returns. A second signal ends the process: its output may be blocked.
pub(super) struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    is_requested: AtomicBool,
    is_expired: AtomicBool,
    connection: Mutex<Option<UnixStream>>,
}

impl Interrupt {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// When the signals cannot be blocked, or the thread cannot be started.
    pub(super) fn new() -> anyhow::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        // Before the first thread starts, which inherits the mask.
        signals.thread_block().context("cannot block signals")?;
        let state = Arc::<State>::default();
        let shared = state.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while signals.wait().is_ok() {
                    if shared.is_requested.swap(true, Ordering::AcqRel) {
                        std::process::exit(BY_SIGINT);
                    }
                    shared.end();
                }
            })
            .context("cannot start the thread that waits for signals")?;
        Ok(Self(state))
    }

    /// Sets the connection that a signal ends.
    pub(super) fn ends(&self, connection: UnixStream) {
        *self.0.lock() = Some(connection);
        if self.is_requested() || self.is_expired() {
            self.0.end();
        }
    }

    /// Ends the connection after `duration`, and the process soon after that.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn expires_after(&self, duration: Duration) -> anyhow::Result<()> {
        let shared = self.0.clone();
        thread::Builder::new()
            .name("deadline".to_owned())
            .spawn(move || {
                thread::sleep(duration);
                shared.is_expired.store(true, Ordering::Release);
                shared.end();
                thread::sleep(BLOCKED_LIMIT);
                std::process::exit(BLOCKED);
            })
            .context("cannot start the thread that waits for the end of the time")?;
        Ok(())
    }

    /// Returns true after the time of [`Self::expires_after`].
    pub(super) fn is_expired(&self) -> bool {
        self.0.is_expired.load(Ordering::Acquire)
    }

    pub(super) fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::Acquire)
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        // A panic cannot leave half a connection.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        if let Some(connection) = &*self.lock() {
            // It may have ended already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
