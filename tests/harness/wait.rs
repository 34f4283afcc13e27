//! Waits for a condition without an event, up to a deadline.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Interval between two looks at a condition. Short against the seconds that parts take to start, and
/// long enough not to take the CPU away from the awaited work.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes everything in this process that waits here, or for a process's output, fail soon: for a
/// signal to stop, so that guards are dropped on the way out.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Fails once [`interrupt`] was called.
///
/// # Errors
/// "interrupted".
pub fn require_uninterrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Calls `look` until it gives a value, and returns that value.
///
/// For conditions outside this process that cannot be subscribed to (a file, a kernel object). A
/// process's output has [`Process::wait_for_line`](crate::process::Process::wait_for_line).
///
/// # Errors
/// The error of `look`, or after `deadline` one that names `what`.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    until_every(LOOK_INTERVAL, what, deadline, look)
}

/// Does the same as [`until`], with this interval between two checks: for checks that take CPU from the
/// awaited work.
///
/// # Errors
/// See [`until`].
pub fn until_every<T>(
    interval: Duration,
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        require_uninterrupted()?;
        if let Some(value) = look().with_context(|| format!("while waiting for {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        pause(interval);
    }
}

/// Waits for `interval`, also if something unparks the thread meanwhile, as the end of a scope with
/// threads does.
fn pause(interval: Duration) {
    let end = Instant::now() + interval;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}
