//! The reasons of failed exports, as metrics and the status name them.

/// The reason of a failed export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection to the collector.
    Unreachable,
    /// Its certificate does not verify.
    Untrusted,
    /// It did not answer in time.
    Timeout,
    /// It answered that it cannot accept metrics now: 429, 502, 503 or 504.
    Busy,
    /// It refused the request with another status.
    Refused,
    /// Its answer cannot be read.
    Unreadable,
    /// A file of the configuration cannot be read.
    File,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Untrusted,
        Self::Timeout,
        Self::Busy,
        Self::Refused,
        Self::Unreadable,
        Self::File,
    ];

    /// Returns its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::File => "file",
        }
    }
}
