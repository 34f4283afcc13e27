//! A histogram of durations with a bounded relative error.

use std::collections::BTreeMap;

/// Buckets in each power of two; a bucket's middle is at most 1/32 from a value in it.
const PER_OCTAVE_BITS: u32 = 4;

/// Counts durations in nanoseconds. Quantiles have a relative error of at most 3.2 %; minimum and maximum
/// are exact.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    buckets: BTreeMap<u16, u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts a duration; a negative one counts as 0.
    pub fn add(&mut self, nanoseconds: i64) {
        let value = u64::try_from(nanoseconds).unwrap_or(0);
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Returns the number of durations.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the largest duration in nanoseconds.
    #[must_use]
    pub fn max(&self) -> Option<i64> {
        (self.count > 0).then(|| self.max.cast_signed())
    }

    /// Returns the duration in nanoseconds that `percent` % of the durations do not exceed.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<i64> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, count) in &self.buckets {
            below += count;
            if below >= wanted {
                return Some(middle(*bucket).min(self.max).cast_signed());
            }
        }
        None
    }
}

/// Returns the number of the bucket of a value.
fn bucket(value: u64) -> u16 {
    let octave = value.max(1).ilog2();
    let shift = octave.saturating_sub(PER_OCTAVE_BITS);
    let number = (u64::from(shift) << PER_OCTAVE_BITS) + (value >> shift);
    // At most 60 * 16 + 31.
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Returns the middle of a bucket.
fn middle(bucket: u16) -> u64 {
    let per_octave = 1u16 << PER_OCTAVE_BITS;
    let shift = (bucket / per_octave).saturating_sub(1);
    let low = u64::from(bucket - shift * per_octave) << shift;
    low + ((1 << shift) >> 1)
}
