//! Decides which transactions become records, so that there are fewer of them and none that matters is
//! missing: all that are notable or slow, and a share of the plain answers.

pub mod config;
mod description;

use std::time::Duration;

use tap53_attribution::pod_selection::PodSelector;
use tap53_records::encode::Owner;
use tap53_transactions::{
    pair::Transaction,
    sampling::{Notables, SampleKey, Share},
};

use config::KeepConfig;

/// Decides which transactions become records.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// `None` if all of them do.
    rules: Option<Box<Rules>>,
    /// The share of transactions that `filter.sample` keeps, before.
    filter_share: Option<f64>,
}

#[derive(Clone, Debug)]
struct Rules {
    always: Notables,
    slower: Option<Duration>,
    by: SampleKey,
    share: Share,
    /// The greatest share of all rules.
    most: Share,
    /// Of several that select a client, the first decides.
    by_client: Vec<(PodSelector, Share)>,
}

/// The decision on a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It becomes a record, with this number of one million such transactions that do, if that is not all.
    Kept(Option<u32>),
    /// It is left out.
    LeftOut,
}

impl Decision {
    /// Returns true if the transaction becomes a record.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// Returns the number of one million such transactions that are kept; `None` if all of them are.
    #[must_use]
    pub const fn kept_per_million(self) -> Option<u32> {
        match self {
            Self::Kept(number) => number,
            Self::LeftOut => None,
        }
    }
}

impl Keep {
    /// Creates the rules of a checked configuration. `filter_share` is the value of `filter.sample`.
    #[must_use]
    pub fn new(config: &KeepConfig, filter_share: f64) -> Self {
        let rules = (!config.keeps_everything()).then(|| {
            Box::new(Rules {
                always: config.always,
                slower: config.slower,
                by: config.by,
                share: config.share,
                most: config.rules.iter().map(|it| it.share).fold(config.share, Share::max),
                by_client: config.rules.iter().map(|it| (it.pods.clone(), it.share)).collect(),
            })
        });
        Self { rules, filter_share: (filter_share < 1.0).then_some(filter_share) }
    }

    /// Returns true if a transaction is left out whoever its client is: then it needs no attribution.
    #[inline]
    #[must_use]
    pub fn leaves_out(&self, transaction: &Transaction<'_>) -> bool {
        self.rules.as_ref().is_some_and(|rules| {
            !rules.always_keeps(transaction) && !rules.most.holds(rules.by.hash(transaction))
        })
    }

    /// Decides on a transaction of `client`.
    #[inline]
    #[must_use]
    pub fn decide(&self, transaction: &Transaction<'_>, client: &Owner) -> Decision {
        let share = match &self.rules {
            None if self.filter_share.is_none() => return Decision::Kept(None),
            None => Share::WHOLE,
            Some(rules) if rules.always_keeps(transaction) => Share::WHOLE,
            Some(rules) => {
                let share = rules.share_of(client);
                if !share.holds(rules.by.hash(transaction)) {
                    return Decision::LeftOut;
                }
                share
            }
        };
        let share = self.filter_share.map_or(share, |filter| share.of(filter));
        Decision::Kept(Some(share.per_million()))
    }
}

impl Rules {
    #[inline]
    fn always_keeps(&self, transaction: &Transaction<'_>) -> bool {
        Notables::of(transaction).overlaps(self.always)
            || self.slower.is_some_and(|slower| latency(transaction) >= slower)
    }

    fn share_of(&self, client: &Owner) -> Share {
        let rule = self.by_client.iter().find(|(pods, _)| pods.selects(client.identity()));
        rule.map_or(self.share, |(_, share)| *share)
    }
}

/// Returns the time from the first query to the response; 0 if one is missing.
fn latency(transaction: &Transaction<'_>) -> Duration {
    match (transaction.query(), transaction.response()) {
        (Some(query), Some(response)) => {
            Duration::from_nanos(response.at_ns.saturating_sub(query.at_ns))
        }
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests;
