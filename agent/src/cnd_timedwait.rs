//! C11's `cnd_timedwait` by the monotonic clock, for the whole process.
//!
//! librdkafka computes the end of a wait by the wall clock, and passes it to `cnd_timedwait`, which
//! uses the wall clock too. If the clock is set back by an hour while a thread waits, the thread waits
//! an hour longer: nothing reconnects, nothing times out (librdkafka, issue 2145). This definition
//! replaces glibc's: it computes the rest of the wait when it begins, and waits for that time by
//! CLOCK_MONOTONIC.
//!
//! It is part of the binary and not of the library, whose users keep their C library's. Remove it when
//! the librdkafka in use waits by a monotonic clock itself (`cnd_timedwait_abs` in its
//! `tinycthread_extra.c`).
//!
//! glibc's own one is `pthread_cond_timedwait` on the same objects: `cnd_t` and `mtx_t` contain its
//! condition and mutex (nptl, `thrd_priv.h`).

use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, ETIMEDOUT, c_int, clock_gettime, clockid_t, pthread_cond_t,
    pthread_mutex_t, timespec,
};

/// Results of C11's `<threads.h>`, with glibc's numbers.
const THRD_SUCCESS: c_int = 0;
const THRD_ERROR: c_int = 2;
const THRD_TIMEDOUT: c_int = 4;

const NS_PER_S: i64 = 1_000_000_000;

unsafe extern "C" {
    /// Exists since glibc 2.30.
    fn pthread_cond_clockwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
}

/// Waits as C11's `cnd_timedwait` does, but is not affected by changes of the wall clock.
///
/// # Safety
/// The same as for C's function: a condition, a mutex that this thread has locked, and a time by the wall clock.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cnd_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's time can be read, and the clocks are written to places of ours.
    let left = unsafe { *until };
    let Some((wall, steady)) = now(CLOCK_REALTIME).zip(now(CLOCK_MONOTONIC)) else {
        return THRD_ERROR;
    };
    let until = later_by(steady, until_then_ns(wall, left));
    // SAFETY: condition and mutex are the caller's to wait with.
    match unsafe { pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &raw const until) } {
        0 => THRD_SUCCESS,
        ETIMEDOUT => THRD_TIMEDOUT,
        _ => THRD_ERROR,
    }
}

fn now(clock: clockid_t) -> Option<timespec> {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to `time` alone.
    let failed = unsafe { clock_gettime(clock, &raw mut time) };
    (failed == 0).then_some(time)
}

/// Returns the nanoseconds from one time to a later one; 0 to an earlier one.
fn until_then_ns(from: timespec, to: timespec) -> i64 {
    let seconds = to.tv_sec.saturating_sub(from.tv_sec);
    seconds.saturating_mul(NS_PER_S).saturating_add(to.tv_nsec - from.tv_nsec).max(0)
}

fn later_by(time: timespec, ns: i64) -> timespec {
    let (seconds, ns) = (ns / NS_PER_S, time.tv_nsec + ns % NS_PER_S);
    timespec { tv_sec: time.tv_sec.saturating_add(seconds + ns / NS_PER_S), tv_nsec: ns % NS_PER_S }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const fn at(tv_sec: i64, tv_nsec: i64) -> timespec {
        timespec { tv_sec, tv_nsec }
    }

    #[test]
    fn the_rest_of_a_wait_is_computed_across_seconds_and_is_never_negative() {
        assert_eq!(until_then_ns(at(10, 900_000_000), at(12, 100_000_000)), 1_200_000_000);
        assert_eq!(until_then_ns(at(12, 0), at(10, 0)), 0);
        let time = later_by(at(5, 900_000_000), 1_200_000_000);
        assert_eq!((time.tv_sec, time.tv_nsec), (7, 100_000_000));
    }

    #[test]
    fn a_wait_without_a_signal_times_out() {
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        let until = later_by(now(CLOCK_REALTIME).expect("a clock"), 50_000_000);
        let begin = Instant::now();
        // SAFETY: both are initialised, live longer than the calls, and are this thread's alone.
        let outcome = unsafe {
            libc::pthread_mutex_lock(&raw mut mutex);
            let outcome = cnd_timedwait(&raw mut condition, &raw mut mutex, &raw const until);
            libc::pthread_mutex_unlock(&raw mut mutex);
            outcome
        };
        assert_eq!(outcome, THRD_TIMEDOUT);
        assert!(begin.elapsed() >= Duration::from_millis(49), "{:?}", begin.elapsed());
    }
}
