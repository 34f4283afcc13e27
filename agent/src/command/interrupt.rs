//! Ctrl-C ends a follower with a closing line.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Exit status of a process that SIGINT ends, as a shell reports it.
const BY_SIGINT: i32 = 130;

/// Waits for SIGINT and SIGTERM on a thread of its own, and ends the connection then, so that a read of
/// it returns. A second signal ends the process: its output may be blocked.
pub(super) struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    is_requested: AtomicBool,
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
        if self.is_requested() {
            self.0.end();
        }
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
