//! Wakes a worker that sleeps.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes a worker for events that do not arrive by its ring. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker(Option<Arc<EventFd>>);

impl Waker {
    /// Creates the waker of one worker. If the kernel provides no descriptor, the worker never
    /// sleeps long.
    #[must_use]
    pub fn new() -> Self {
        let made = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        if let Err(error) = &made {
            tracing::warn!(
                event = "worker_waker_failed",
                %error,
                "cannot create an eventfd to wake a worker: it polls its ring 20 times a second"
            );
        }
        Self(made.ok().map(Arc::new))
    }

    /// Ends the current wait of the worker, or else the next one.
    pub fn wake(&self) {
        if let Some(event) = &self.0 {
            // It fails after 2^64 - 2 wake-ups, which wake the worker as well.
            let _ = event.write(1);
        }
    }

    pub(super) const fn works(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|event| event.as_fd())
    }

    /// Resets all wake-ups until now.
    pub(super) fn clear(&self) {
        if let Some(event) = &self.0 {
            // It fails if there was no wake-up.
            let _ = event.read();
        }
    }
}

impl Default for Waker {
    fn default() -> Self {
        Self::new()
    }
}
