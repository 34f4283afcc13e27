//! Metrics as of one moment, without the forms of a protocol.

/// Names and values that tell the points of a metric apart.
pub type Attributes = Vec<(&'static str, String)>;

/// All metrics as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// When counting began, in nanoseconds since 1970 UTC.
    pub started_at_ns: u64,
    /// When the metrics were read, in nanoseconds since 1970 UTC.
    pub taken_at_ns: u64,
    /// The metrics, each name once.
    pub metrics: Vec<Metric>,
}

/// A metric with its points.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its meaning, in a sentence for people.
    pub description: &'static str,
    /// Its unit by UCUM; empty for counts.
    pub unit: &'static str,
    /// Its points.
    pub points: Points,
}

/// The points of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Points {
    /// Sums since the start, which only grow.
    Counter(Vec<Number>),
    /// Values that go up and down.
    Gauge(Vec<Number>),
    /// Observations since the start, by size.
    Histogram(Vec<Distribution>),
}

impl Points {
    /// Returns their number.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Counter(numbers) | Self::Gauge(numbers) => numbers.len(),
            Self::Histogram(distributions) => distributions.len(),
        }
    }

    /// Removes the first `count` points, and returns them.
    pub(crate) fn take(&mut self, count: usize) -> Self {
        match self {
            Self::Counter(numbers) => Self::Counter(numbers.drain(..count).collect()),
            Self::Gauge(numbers) => Self::Gauge(numbers.drain(..count).collect()),
            Self::Histogram(all) => Self::Histogram(all.drain(..count).collect()),
        }
    }
}

/// A number of a counter or gauge.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Its attributes.
    pub attributes: Attributes,
    /// The number; a count is exact up to 2^53.
    pub value: f64,
}

/// Observations by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Its attributes.
    pub attributes: Attributes,
    /// Upper bounds of the buckets.
    pub bounds: Vec<f64>,
    /// Observations for each bound, and last those above the largest bound.
    pub counts: Vec<u64>,
    /// Sum of the observations.
    pub sum: f64,
}
