//! Waiting for a condition that has no event of its own, up to a deadline.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Interval between two looks at a condition. Short against the seconds that parts take to start, and
/// long enough not to take the CPU away from what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

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
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = look().with_context(|| format!("while waiting for {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        std::thread::park_timeout(LOOK_INTERVAL);
    }
}
