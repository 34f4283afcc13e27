//! Finds sinks that do not store the records that they take.
//!
//! A sink that waits is able to store: an unreachable broker costs nothing while memory or a spool
//! takes the records. A sink fails from the moment that it lost records and delivered none, until it
//! delivers again. Its counts decide, so that every sink is judged alike.

use tap53_ledger::{SinkCounts, SinkLoss};

/// What the sinks had counted when they were last looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Storing {
    sinks: Vec<Looked>,
}

#[derive(Clone, Debug)]
struct Looked {
    name: String,
    counts: SinkCounts,
    /// Why it lost what it took last.
    failing: Option<SinkLoss>,
}

impl Storing {
    /// Looks at what the sinks have counted since.
    pub(super) fn look<'a>(&mut self, sinks: impl Iterator<Item = (&'a str, SinkCounts)>) {
        for (name, counts) in sinks {
            match self.sinks.iter_mut().find(|looked| looked.name == name) {
                Some(looked) => looked.look(counts),
                None => {
                    let counts_before = SinkCounts::default();
                    let mut looked =
                        Looked { name: name.to_owned(), counts: counts_before, failing: None };
                    looked.look(counts);
                    self.sinks.push(looked);
                }
            }
        }
    }

    /// Sinks that cannot store, and why.
    pub(super) fn failing(&self) -> impl Iterator<Item = (&str, SinkLoss)> {
        self.sinks.iter().filter_map(|looked| Some((looked.name.as_str(), looked.failing?)))
    }
}

impl Looked {
    fn look(&mut self, counts: SinkCounts) {
        if counts.delivered.records > self.counts.delivered.records {
            self.failing = None;
        } else if let Some(reason) = most_lost(&self.counts, &counts) {
            self.failing = Some(reason);
        }
        self.counts = counts;
    }
}

/// The reason by which most records were lost in between, of those that the sink is to blame for.
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
