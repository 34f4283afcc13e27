//! What an operator may change while the workers run: filters and privacy rules.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tap53_transactions::{
    filter::{Filter, config::FilterConfig},
    privacy::{Policy, config::PrivacyConfig},
};

/// Filter and privacy rules, which change together: no record is made by one of each.
#[derive(Clone, Default)]
pub struct Rules {
    /// Which transactions become records.
    pub filter: Arc<Filter>,
    /// What records show of addresses.
    pub privacy: Arc<Policy>,
}

impl Rules {
    /// The rules of a checked configuration.
    #[must_use]
    pub fn new(filter: &FilterConfig, privacy: &PrivacyConfig) -> Self {
        Self { filter: Arc::new(Filter::new(filter)), privacy: Arc::new(Policy::new(privacy)) }
    }
}

/// The rules in force, which each worker looks at once a batch.
#[derive(Default)]
pub struct RulesInForce {
    generation: AtomicU64,
    rules: Mutex<Rules>,
}

impl RulesInForce {
    /// Begins with these.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { generation: AtomicU64::new(0), rules: Mutex::new(rules) }
    }

    /// Puts others in their place, from the workers' next batches on.
    pub fn replace(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes with every replacement.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The rules as of now.
    #[must_use]
    pub fn read(&self) -> Rules {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
