//! Filters, the rules of what is kept, and privacy rules, which can change while the workers run.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tap53_attribution::pod_selection::PodFilter;
use tap53_transactions::{
    filter::Filter,
    privacy::{Policy, config::PrivacyConfig},
};

use crate::{
    config::{KeepConfig, RecordFilterConfig},
    keep::Keep,
};

/// Filters, the rules of what is kept, and privacy rules. They change together: no record is created under the filter of one
/// configuration and the privacy rules of another.
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
