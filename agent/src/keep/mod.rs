//! Decides which transactions become records, so that there are fewer of them and none that matters is
//! missing: all that are notable or slow, and a share of the plain answers.

pub mod config;
mod description;

use std::time::Duration;

use tap53_attribution::pod_selection::PodSelector;
use tap53_records::encode::Owner;
use tap53_signals::Signals;
use tap53_transactions::{
    pair::Transaction,
    sampling::{Notable, Notables, SampleKey, Share},
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
    /// Shares of certain clients: the first selector that matches a client decides.
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

    /// Returns true if a transaction without signals is left out whoever its client is: then it needs no
    /// attribution.
    #[inline]
    #[must_use]
    pub fn leaves_out(&self, transaction: &Transaction<'_>) -> bool {
        self.rules.as_ref().is_some_and(|rules| {
            !rules.always_keeps(transaction, Signals::NONE)
                && !rules.most.holds(rules.by.hash(transaction))
        })
    }

    /// Decides on a transaction of `client` with these signals.
    #[inline]
    #[must_use]
    pub fn decide(
        &self,
        transaction: &Transaction<'_>,
        client: &Owner,
        signals: Signals,
    ) -> Decision {
        let share = match &self.rules {
            None if self.filter_share.is_none() => return Decision::Kept(None),
            None => Share::WHOLE,
            Some(rules) => match rules.share_of(transaction, client, signals) {
                Some(share) => share,
                None => return Decision::LeftOut,
            },
        };
        let share = self.filter_share.map_or(share, |filter| share.of(filter));
        Decision::Kept(Some(share.per_million()))
    }
}

impl Rules {
    #[inline]
    fn always_keeps(&self, transaction: &Transaction<'_>, signals: Signals) -> bool {
        let kinds = Notable::kinds_of(transaction).with(Notable::Signal, !signals.is_empty());
        kinds.intersects(self.always)
            || self.slower.is_some_and(|slower| latency(transaction) >= slower)
    }

    /// Returns the share that contains a transaction; `None` if it is left out.
    fn share_of(
        &self,
        transaction: &Transaction<'_>,
        client: &Owner,
        signals: Signals,
    ) -> Option<Share> {
        if self.always_keeps(transaction, signals) {
            return Some(Share::WHOLE);
        }
        let hash = self.by.hash(transaction);
        // Nearly all are outside of every share, so their client is not looked at.
        if !self.most.holds(hash) {
            return None;
        }
        let rule = self.by_client.iter().find(|(pods, _)| pods.selects(client.identity()));
        let share = rule.map_or(self.share, |(_, share)| *share);
        share.holds(hash).then_some(share)
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
