//! Counts of records and of the messages in them.

/// Counts records, and the messages that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Records.
    pub records: u64,
    /// Messages.
    pub messages: u64,
}

impl Amount {
    /// Returns the amount of one record that stands for `messages`.
    #[must_use]
    pub const fn record(messages: u64) -> Self {
        Self { records: 1, messages }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.messages += other.messages;
    }
}

impl std::ops::SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.records = self.records.saturating_sub(other.records);
        self.messages = self.messages.saturating_sub(other.messages);
    }
}
