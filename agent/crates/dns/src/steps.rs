//! Counts steps in the tests of this crate, so that they can bound the work for a message by
//! something else than the code under test does: each octet that is written, each read from the
//! message, each turn of a loop over it. Elsewhere it does nothing.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts so many steps.
#[cfg(test)]
pub(super) fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// Counts nothing.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn count(_steps: usize) {}

/// Steps of this thread while `run` runs.
#[cfg(test)]
pub(super) fn steps_of(run: impl FnOnce()) -> usize {
    STEPS.set(0);
    run();
    STEPS.get()
}
