//! The speed of a replay: as fast as possible, or relative to the recorded times.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Speed at which frames are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Speed {
    /// Without pauses.
    #[default]
    AsFast,
    /// At the recorded speed times this factor.
    Recorded(f64),
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "as-fast" => Ok(Self::AsFast),
            "recorded" => Ok(Self::Recorded(1.0)),
            factor => match factor.parse::<f64>() {
                Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Self::Recorded(factor)),
                _ => Err("must be as-fast, recorded, or a factor above 0, such as 2 or 0.5".into()),
            },
        }
    }
}

/// Computes when the next frame is due.
pub(super) struct Pace {
    speed: Speed,
    /// Start of the replay, and the time of its first frame.
    began: Option<(Instant, u64)>,
}

impl Pace {
    pub(super) const fn new(speed: Speed) -> Self {
        Self { speed, began: None }
    }

    /// Resets the clock of the frames: the time between two files is not waited for.
    pub(super) const fn begin(&mut self) {
        self.began = None;
    }

    /// Returns the start of the replay and the time after it at which the frame of `at_ns` is due;
    /// `None` if it is due at once.
    pub(super) fn due(&mut self, at_ns: u64) -> Option<(Instant, Duration)> {
        let Speed::Recorded(factor) = self.speed else { return None };
        let (began, first_ns) = *self.began.get_or_insert_with(|| (Instant::now(), at_ns));
        let after = Duration::from_nanos(at_ns.checked_sub(first_ns)?).as_secs_f64() / factor;
        let after = Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX);
        (began.elapsed() < after).then_some((began, after))
    }
}

/// Sleeps until `after` has passed since `began`, or `stop` is set and this thread unparked.
pub(super) fn sleep((began, after): (Instant, Duration), stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let left = after.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_word_or_a_factor() {
        assert_eq!("as-fast".parse(), Ok(Speed::AsFast));
        assert_eq!("recorded".parse(), Ok(Speed::Recorded(1.0)));
        assert_eq!("0.5".parse(), Ok(Speed::Recorded(0.5)));
        for text in ["", "fast", "0", "-1", "inf", "NaN", "1e999"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_frame_is_due_when_its_time_has_passed_by_the_factor() {
        let mut pace = Pace::new(Speed::Recorded(0.5));
        let hour_ns = 3_600_000_000_000;
        assert_eq!(pace.due(hour_ns), None);
        let (_, after) = pace.due(2 * hour_ns).unwrap();
        assert_eq!(after, Duration::from_secs(7_200));
        // Time that goes backwards, and a whole range of it.
        assert_eq!(pace.due(0), None);
        assert!(pace.due(u64::MAX).is_some());
        pace.begin();
        assert_eq!(pace.due(9 * hour_ns), None);
        assert_eq!(Pace::new(Speed::AsFast).due(0), None);
        assert!(Pace::new(Speed::Recorded(1e-300)).due(0).is_none());
    }

    #[test]
    fn sleeping_ends_when_it_is_stopped() {
        let stop = AtomicBool::new(true);
        sleep((Instant::now(), Duration::MAX), &stop);
    }
}
