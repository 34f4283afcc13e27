//! Checks the clock, from which records have their times.

use jiff::{Timestamp, civil::date, tz::TimeZone};
use nix::errno::Errno;

use super::Check;

const AREA: &str = "clock";

/// Error in microseconds above which the transactions of two nodes cannot be ordered by time.
const LARGE_ERROR_US: i64 = 1_000_000;

pub(super) fn look() -> Vec<Check> {
    let now = Timestamp::now();
    if let Some(wrong) = implausible(now) {
        return vec![wrong];
    }
    vec![synchronised(now, read())]
}

/// Reports a clock that started at 1970, as on a machine without a battery.
fn implausible(now: Timestamp) -> Option<Check> {
    // tap53 did not exist before.
    let year = now.to_zoned(TimeZone::UTC).date();
    let plausible = date(2025, 1, 1)..date(2100, 1, 1);
    (!plausible.contains(&year)).then(|| {
        Check::fail(
            AREA,
            now.to_string(),
            "records would have this time",
            "timedatectl set-ntp true   # or: date --set",
        )
    })
}

/// Reads from the kernel whether its clock is synchronised, and its maximum error in microseconds.
fn read() -> Result<(bool, i64), Errno> {
    // SAFETY: an all-zero timex is a valid value, and means: change nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call, which may write it.
    let state = Errno::result(unsafe { libc::adjtimex(&raw mut clock) })?;
    // TIME_ERROR, timex.h.
    const NOT_SYNCHRONISED: libc::c_int = 5;
    Ok((state != NOT_SYNCHRONISED && clock.status & libc::STA_UNSYNC == 0, clock.maxerror))
}

fn synchronised(now: Timestamp, found: Result<(bool, i64), Errno>) -> Check {
    let what = format!("{now:.0}");
    let steer = "timedatectl set-ntp true   # or start chronyd on the node";
    match found {
        Ok((true, error_us)) if error_us < LARGE_ERROR_US => {
            Check::ok(AREA, format!("{what}, synchronised to {} ms", (error_us + 999) / 1_000))
        }
        Ok((true, error_us)) => {
            let wrong = format!("may be off by {} ms", error_us / 1_000);
            Check::warn(AREA, what, wrong, "chronyc tracking")
        }
        Ok((false, _)) => Check::warn(
            AREA,
            what,
            "not synchronised (adjtimex): the times of two nodes will differ",
            steer,
        ),
        Err(errno) => Check::warn(AREA, what, format!("adjtimex: {errno}"), steer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn a_clock_at_1970_is_a_failure() {
        assert_eq!(implausible(Timestamp::UNIX_EPOCH).unwrap().verdict, Verdict::Fail);
        assert!(implausible("2026-11-25T12:00:00Z".parse().unwrap()).is_none());
    }

    #[test]
    fn an_unsynchronised_clock_is_a_warning() {
        let verdict = |found| synchronised(Timestamp::UNIX_EPOCH, found).verdict;
        assert_eq!(verdict(Ok((true, 5_000))), Verdict::Ok);
        assert_eq!(verdict(Ok((true, 16_000_000))), Verdict::Warn);
        assert_eq!(verdict(Ok((false, 0))), Verdict::Warn);
        assert_eq!(verdict(Err(Errno::EPERM)), Verdict::Warn);
    }
}
