//! A share of transactions, in millionths.

use std::fmt;

use serde::{Serialize, Serializer};

use super::SampleHash;

/// A share of transactions: a whole number of millionths, at least one. The number is exact, so that
/// counts can be estimated from records that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

/// The millionths of the whole.
const WHOLE: u32 = 1_000_000;

/// The greatest difference from a whole number of millionths that is due to decimal fractions.
const ROUNDING: f64 = 1e-6;

impl Share {
    /// All transactions.
    pub const WHOLE: Self = Self(WHOLE);

    /// Converts a number above 0, up to 1.
    ///
    /// # Errors
    /// Returns the reason why the number is no share.
    pub fn new(share: f64) -> Result<Self, String> {
        if !(share > 0.0 && share <= 1.0) {
            return Err("must be a number above 0, up to 1".to_owned());
        }
        let millionths = share * f64::from(WHOLE);
        let whole = millionths.round();
        if whole < 1.0 || (millionths - whole).abs() > ROUNDING {
            return Err("must have at most six decimals, such as 0.05 or 0.000001".to_owned());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "1 to a million"
        )]
        Ok(Self(whole as u32))
    }

    /// Returns true if it is all transactions.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 == WHOLE
    }

    /// Returns the number of transactions of one million.
    #[must_use]
    pub const fn per_million(self) -> u32 {
        self.0
    }

    /// Returns this share of another one, rounded to millionths: that of transactions that pass two
    /// independent selections.
    #[must_use]
    pub fn of(self, share: f64) -> Self {
        let millionths = (f64::from(self.0) * share).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        Self(millionths.clamp(1.0, f64::from(WHOLE)) as u32)
    }

    /// Returns true if a transaction with this hash is in the share.
    #[inline]
    #[must_use]
    pub fn holds(self, hash: SampleHash) -> bool {
        // The product spreads the hashes evenly over the millionths.
        let millionth = (u128::from(hash.0) * u128::from(WHOLE)) >> 64;
        millionth < u128::from(self.0)
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// Formats a percentage.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10_000.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / f64::from(WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_number_of_millionths() {
        for (share, millionths) in [
            (1.0, 1_000_000),
            (0.05, 50_000),
            (0.1 + 0.2, 300_000),
            (0.000_001, 1),
            (1e-6, 1),
            (0.999_999, 999_999),
            (0.000_007, 7),
        ] {
            assert_eq!(Share::new(share).map(Share::per_million), Ok(millionths), "{share}");
        }
        for share in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY, 1e-7, 0.333_333_3] {
            assert!(Share::new(share).is_err(), "{share}");
        }
    }

    #[test]
    fn every_share_is_written_as_it_is_read() {
        for millionths in (1..=WHOLE).step_by(7) {
            let share = Share(millionths);
            let number: f64 = serde_json::to_string(&share).unwrap().parse().unwrap();
            assert_eq!(Share::new(number), Ok(share));
        }
    }

    #[test]
    fn the_first_and_the_last_hash_are_in_the_first_and_the_last_millionth() {
        let [first, last] = [0, u64::MAX].map(SampleHash);
        assert!(Share(1).holds(first) && !Share(1).holds(last));
        assert!(!Share(WHOLE - 1).holds(last) && Share::WHOLE.holds(last));
    }

    #[test]
    fn a_share_of_a_share_is_their_product_and_never_nothing() {
        let share = Share::new(0.05).unwrap();
        assert_eq!(share.of(0.5).per_million(), 25_000);
        assert_eq!(share.of(1.0), share);
        assert_eq!(Share(1).of(0.1).per_million(), 1);
        assert_eq!(share.to_string(), "5 %");
        assert_eq!(Share(1_500).to_string(), "0.15 %");
    }
}
