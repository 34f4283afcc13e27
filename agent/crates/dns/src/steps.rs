//! Counts steps in the tests of this crate, so that they can bound the work for a message
//! independently of the code under test: each octet that is written, each octet read from the
//! message, each iteration of a loop over it. Outside of tests it does nothing.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Adds `steps` to the count.
#[cfg(test)]
pub(super) fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// Does nothing.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn count(_steps: usize) {}

/// Returns the steps of this thread while `run` runs.
#[cfg(test)]
pub(super) fn steps_of(run: impl FnOnce()) -> usize {
    STEPS.set(0);
    run();
    STEPS.get()
}
