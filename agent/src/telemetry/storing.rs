//! Detects sinks that fail to store records.
//!
//! A sink that buffers is able to store: an unreachable broker loses nothing while memory or a spool
//! takes the records. A sink is failing from the moment that it has lost records and delivered none,
//! until it delivers again. This is derived from its counts, in the same way for every sink.

use tap53_ledger::{SinkCounts, SinkLoss};

/// State of the sinks at the last check.
#[derive(Clone, Debug, Default)]
pub(super) struct Storing {
    sinks: Vec<SinkState>,
}

#[derive(Clone, Debug)]
struct SinkState {
    name: String,
    counts: SinkCounts,
    /// Reason of the latest losses; `None` if the sink stores records.
    failing: Option<SinkLoss>,
}

impl Storing {
    /// Compares the sinks' counts with those of the last check.
    pub(super) fn look<'a>(&mut self, sinks: impl Iterator<Item = (&'a str, SinkCounts)>) {
        for (name, counts) in sinks {
            match self.sinks.iter_mut().find(|state| state.name == name) {
                Some(state) => state.look(counts),
                None => {
                    let counts_before = SinkCounts::default();
                    let mut state =
                        SinkState { name: name.to_owned(), counts: counts_before, failing: None };
                    state.look(counts);
                    self.sinks.push(state);
                }
            }
        }
    }

    /// Returns the sinks that fail to store records, with the reason.
    pub(super) fn failing(&self) -> impl Iterator<Item = (&str, SinkLoss)> {
        self.sinks.iter().filter_map(|state| Some((state.name.as_str(), state.failing?)))
    }
}

impl SinkState {
    fn look(&mut self, counts: SinkCounts) {
        if counts.delivered.records > self.counts.delivered.records {
            self.failing = None;
        } else if let Some(reason) = most_lost(&self.counts, &counts) {
            self.failing = Some(reason);
        }
        self.counts = counts;
    }
}

/// Returns the reason for most of the losses in between, without those that are not the sink's fault.
fn most_lost(before: &SinkCounts, after: &SinkCounts) -> Option<SinkLoss> {
    let lost = |reason: &SinkLoss| {
        let index = *reason as usize;
        after.lost[index].records.saturating_sub(before.lost[index].records)
    };
    SinkLoss::ALL
        .into_iter()
        .filter(|reason| !matches!(reason, SinkLoss::EncodeFailed) && lost(reason) > 0)
        .max_by_key(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tap53_base::amount::Amount;

    #[test]
    fn a_sink_that_loses_and_delivers_nothing_is_failing_until_it_delivers() {
        let mut storing = Storing::default();
        let mut counts = SinkCounts::default();
        let mut look = |counts: &SinkCounts| {
            storing.look([("kafka", *counts)].into_iter());
            storing.failing().next().map(|(name, reason)| (name.to_owned(), reason))
        };
        counts.in_flight = Amount { records: 5, messages: 9 };
        assert_eq!(look(&counts), None, "what waits is not lost");
        counts.lose(SinkLoss::EncodeFailed, Amount::record(1));
        assert_eq!(look(&counts), None, "the record was at fault");
        counts.lose(SinkLoss::Expired, Amount::record(1));
        let failing = Some(("kafka".to_owned(), SinkLoss::Expired));
        assert_eq!(look(&counts), failing);
        assert_eq!(look(&counts), failing, "nothing happened since");
        counts.delivered += Amount::record(1);
        assert_eq!(look(&counts), None);
        counts.delivered += Amount::record(1);
        counts.lose(SinkLoss::QueueFull, Amount::record(1));
        assert_eq!(look(&counts), None, "it stores some");
    }
}
