//! Several values of one measurement.

use std::fmt;

/// Least, median and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Returns the spread of values, of which there must be at least one.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Self { min: values[0], median: (lower + upper) / 2.0, max: values[values.len() - 1] }
    }

    /// Returns the spread of a figure of each run.
    pub(super) fn over<Run>(runs: &[Run], figure: impl Fn(&Run) -> f64) -> Self {
        Self::of(runs.iter().map(figure))
    }

    /// Formats it as a change in percent: 0.4 is −60 %.
    pub(super) fn as_change(self) -> String {
        let change = |ratio: f64| {
            let percent = (ratio - 1.0) * 100.0;
            format!("{}{:.0}", if percent < 0.0 { "−" } else { "+" }, percent.abs())
        };
        format!("{} … **{}** … {} %", change(self.min), change(self.median), change(self.max))
    }
}

/// `0.41 … **0.42** … 0.45`, with the given precision, else two digits.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Self { min, median, max } = self;
        write!(f, "{min:.digits$} … **{median:.digits$}** … {max:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([0.5, 0.1, 0.3]);
        assert_eq!(spread, Spread { min: 0.1, median: 0.3, max: 0.5 });
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
        assert_eq!(format!("{spread:.1}"), "0.1 … **0.3** … 0.5");
        assert_eq!(spread.as_change(), "−90 … **−70** … −50 %");
    }
}
