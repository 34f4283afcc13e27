//! Filters, the rules of what is kept, and privacy rules, which can change while the workers run.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tap53_attribution::pod_selection::PodFilter;
use tap53_records::encode::Owner;
use tap53_signals::Signals;
use tap53_transactions::{
    filter::{Filter, FilterReason},
    pair::Transaction,
    privacy::{Policy, config::PrivacyConfig},
};

use crate::keep::{
    Decision, Keep,
    config::{KeepConfig, RecordFilterConfig},
};

/// Filters, the rules of what is kept, and privacy rules. They change together: no record is created under
/// the filter of one configuration and the privacy rules of another.
#[derive(Clone, Default)]
pub struct Rules {
    /// Filter that decides which transactions become records.
    pub filter: Arc<Filter>,
    /// Filter by the client's pod.
    pub pods: Arc<PodFilter>,
    /// The transactions that are kept of those that the filters let pass.
    pub keep: Arc<Keep>,
    /// Privacy rules for the records.
    pub privacy: Arc<Policy>,
}

impl Rules {
    /// Creates the rules of a checked configuration.
    #[must_use]
    pub fn new(filter: &RecordFilterConfig, privacy: &PrivacyConfig, keep: &KeepConfig) -> Self {
        Self {
            filter: Arc::new(Filter::new(&filter.exchanges)),
            pods: Arc::new(PodFilter::new(&filter.pods)),
            keep: Arc::new(Keep::new(keep, filter.exchanges.sample)),
            privacy: Arc::new(Policy::new(privacy)),
        }
    }

    /// Returns why the filter excludes a transaction; `None` if it does not.
    fn excludes(&self, transaction: &Transaction<'_>) -> Option<FilterReason> {
        if self.filter.keeps_everything() {
            return None;
        }
        let flow = &transaction.flow;
        // A response repeats the question, so it replaces a query that was not seen.
        let message = &transaction.first().message;
        let questions = message.question().into_iter().chain(message.more_questions());
        self.filter.decide(flow.client.ip(), flow.server.ip(), questions)
    }
}

/// The rules in force, which each worker reads once a batch.
#[derive(Default)]
pub struct RulesInForce {
    generation: AtomicU64,
    rules: Mutex<Rules>,
}

impl RulesInForce {
    /// Creates the rules in force at the start.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { generation: AtomicU64::new(0), rules: Mutex::new(rules) }
    }

    /// Replaces the rules, from the workers' next batches on.
    pub fn replace(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns a number that changes with every replacement.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the rules in force.
    #[must_use]
    pub fn read(&self) -> Rules {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A worker's copy of the rules in force.
pub(super) struct RulesReader {
    rules: Rules,
    in_force: Arc<RulesInForce>,
    /// Generation of `in_force` that `rules` has.
    generation: u64,
}

impl RulesReader {
    pub(super) fn new(in_force: Arc<RulesInForce>) -> Self {
        // The generation first: rules that are replaced in between are read again.
        let generation = in_force.generation();
        Self { rules: in_force.read(), generation, in_force }
    }

    /// Reads the rules again if they were replaced.
    pub(super) fn refresh(&mut self) {
        let generation = self.in_force.generation();
        if generation != self.generation {
            self.generation = generation;
            self.rules = self.in_force.read();
        }
    }

    /// Returns why the filter excludes a transaction; `None` if it does not.
    #[inline]
    pub(super) fn excludes(&self, transaction: &Transaction<'_>) -> Option<FilterReason> {
        self.rules.excludes(transaction)
    }

    /// Returns true if a transaction that the filter does not exclude is left out whoever its client is.
    #[inline]
    pub(super) fn leaves_out(&self, transaction: &Transaction<'_>) -> bool {
        // A filter by pod decides first.
        self.rules.pods.keeps_everything() && self.rules.keep.leaves_out(transaction)
    }

    /// Returns why the filter by pod excludes the transactions of a client; `None` if it does not.
    #[inline]
    pub(super) fn excludes_client(&self, client: &Owner) -> Option<FilterReason> {
        if self.rules.pods.keeps_everything() {
            return None;
        }
        self.rules.pods.decide(client.identity())
    }

    /// Decides whether a transaction that no filter excludes becomes a record. `signals` is `None` if the agent
    /// does not look for them.
    #[inline]
    pub(super) fn decide(
        &self,
        transaction: &Transaction<'_>,
        client: &Owner,
        signals: Option<Signals>,
    ) -> Decision {
        self.rules.keep.decide(transaction, client, signals.unwrap_or_default())
    }

    /// Returns the privacy rules.
    #[inline]
    pub(super) fn privacy(&self) -> &Policy {
        &self.rules.privacy
    }
}
