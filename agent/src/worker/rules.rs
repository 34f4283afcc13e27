//! Filters and privacy rules, which can change while the workers run.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tap53_transactions::{
    filter::{Filter, FilterReason, config::FilterConfig},
    pair::Transaction,
    privacy::{Policy, config::PrivacyConfig},
};

/// Filter and privacy rules. They change together: no record is created under the filter of one
/// configuration and the privacy rules of another.
#[derive(Clone, Default)]
pub struct Rules {
    /// Filter that decides which transactions become records.
    pub filter: Arc<Filter>,
    /// Privacy rules for the records.
    pub privacy: Arc<Policy>,
}

impl Rules {
    /// Creates the rules of a checked configuration.
    #[must_use]
    pub fn new(filter: &FilterConfig, privacy: &PrivacyConfig) -> Self {
        Self { filter: Arc::new(Filter::new(filter)), privacy: Arc::new(Policy::new(privacy)) }
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

    /// Returns the privacy rules.
    #[inline]
    pub(super) fn privacy(&self) -> &Policy {
        &self.rules.privacy
    }
}
