//! A thread that does something slow, for who must not wait for it: a query to a server, with a backoff
//! after it failed.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The thread. It ends on its own once this is dropped, after its current work: nobody waits for that.
pub(super) struct Background(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_wanted: bool,
    stop: bool,
}

impl Background {
    /// Runs `work` now. It says after how long to run again; `None`: once it is wanted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        name: &str,
        mut work: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        thread::Builder::new().name(name.to_owned()).spawn(
            move || {
                while !of_thread.wait(work()) {}
            },
        )?;
        Ok(Self(shared))
    }

    /// Has the work done again, once a backoff is over.
    pub(super) fn want(&self) {
        self.0.lock().is_wanted = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the work is due; true if it never is again.
    fn wait(&self, pause: Option<Duration>) -> bool {
        let mut state = match pause {
            Some(pause) => {
                let runs = |state: &mut State| !state.stop;
                let waited = self.changed.wait_timeout_while(self.lock(), pause, runs);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let is_idle = |state: &mut State| !state.is_wanted && !state.stop;
                let waited = self.changed.wait_while(self.lock(), is_idle);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        state.is_wanted = false;
        state.stop
    }
}
