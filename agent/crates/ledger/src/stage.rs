//! The form of a stage: terms, each with its fate, from which every view of the ledger derives.

use std::collections::BTreeMap;

use serde::Serialize;
use tap53_reasons::{Fate, Reason};

/// Counts by the name of their reason; every reason is there.
pub type ByReason = BTreeMap<&'static str, u64>;

/// Returns the counts of the reasons that have this fate.
pub(crate) fn by_reason<R: Reason>(fate: Fate, count: impl Fn(R) -> u64) -> ByReason {
    let reasons = R::LABELS.iter().filter(|reason| reason.fate() == fate);
    reasons.map(|reason| (reason.label(), count(*reason))).collect()
}

/// Returns the sum over all reasons.
pub(crate) fn sum(by_reason: &ByReason) -> u64 {
    by_reason.values().sum()
}

/// The value of a term.
#[derive(Clone, Copy, Debug)]
pub enum Total<'a> {
    /// One number.
    One(u64),
    /// A number for each reason.
    Each(&'a ByReason),
}

impl Total<'_> {
    /// Returns the sum over all reasons.
    pub(crate) fn sum(self) -> u64 {
        match self {
            Self::One(count) => count,
            Self::Each(by_reason) => sum(by_reason),
        }
    }
}

/// A type that can be the value of a term.
pub trait Countable {
    /// The metric's label for the reason, where there is one.
    const LABEL: Option<&'static str> = None;

    /// Returns the value.
    fn total(&self) -> Total<'_>;
}

impl Countable for u64 {
    fn total(&self) -> Total<'_> {
        Total::One(*self)
    }
}

impl Countable for ByReason {
    const LABEL: Option<&'static str> = Some("reason");

    fn total(&self) -> Total<'_> {
        Total::Each(self)
    }
}

/// The number of each worker's last record; together they are the number of all records.
impl Countable for Vec<u64> {
    fn total(&self) -> Total<'_> {
        Total::One(self.iter().sum())
    }
}

/// Counts by the `parse_status` of a record.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct ByStatus(pub ByReason);

impl Countable for ByStatus {
    const LABEL: Option<&'static str> = Some("parse_status");

    fn total(&self) -> Total<'_> {
        Total::Each(&self.0)
    }
}

/// A term of a stage's sum, or a number beside it.
pub struct Term<S> {
    /// Its name in the sum; the key in JSON unless the table gives another.
    pub name: &'static str,
    /// Its part in the sum.
    pub fate: Fate,
    /// True if the text shows it even if it is zero.
    pub always: bool,
    /// The name of its metric: a counter if it ends with `_total`, a gauge otherwise.
    pub metric: Option<&'static str>,
    /// The metric's help.
    pub help: &'static str,
    /// The metric's label for the reason, where there is one.
    pub label: Option<&'static str>,
    /// Reads its value.
    pub read: fn(&S) -> Total<'_>,
}

/// A line of the ledger: `Σ taken = Σ passed + Σ waiting + Σ filtered + Σ ignored + Σ lost`.
pub trait Stage: Sized + 'static {
    /// Its name in summaries.
    const NAME: &'static str;
    /// The unit that it counts.
    const UNIT: &'static str;
    /// All terms, in the order of the table.
    const TERMS: &'static [Term<Self>];

    /// Returns the terms of a fate, in the order of the table.
    fn terms(fate: Fate) -> impl Iterator<Item = &'static Term<Self>> {
        Self::TERMS.iter().filter(move |term| term.fate == fate)
    }

    /// Returns every count in the sum: by fate, then in the order of the table, then by reason.
    fn counts(&self) -> Vec<StageCount> {
        let (stage, unit) = (Self::NAME, Self::UNIT);
        let mut counts = Vec::new();
        for Term { name, fate, read, .. } in Fate::SUMMED.into_iter().flat_map(Self::terms) {
            let mut push =
                |reason, total| counts.push(StageCount { stage, unit, fate: *fate, reason, total });
            match read(self) {
                Total::One(total) => push(*name, total),
                Total::Each(by_reason) => {
                    by_reason.iter().for_each(|(reason, total)| push(*reason, *total));
                }
            }
        }
        counts
    }

    /// Returns what does not add up, if it does not.
    fn imbalance(&self) -> Option<String> {
        let total = |fate| Self::terms(fate).map(|term| (term.read)(self).sum()).sum::<u64>();
        let [taken_as, accounted_as @ ..] = Fate::SUMMED;
        let (taken, accounted) = (total(taken_as), accounted_as.into_iter().map(total).sum());
        let names: Vec<_> = Self::terms(taken_as).map(|term| term.name).collect();
        differ(&names.join(" and "), taken, accounted)
    }
}

/// Says that two numbers differ, if they do.
pub(crate) fn differ(name: &str, left: u64, right: u64) -> Option<String> {
    (left != right).then(|| format!("{name}: {left} is not {right}"))
}

/// One count in the sum of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageCount {
    /// Name of the stage.
    pub stage: &'static str,
    /// The unit that the stage counts.
    pub unit: &'static str,
    /// Its part in the sum.
    pub fate: Fate,
    /// The reason, or the name of the term.
    pub reason: &'static str,
    /// Since the start of the run.
    pub total: u64,
}

/// Declares a stage: a struct with a field for each term, whose key in JSON is the field's name. The
/// last part of a term is the help of its metric and the field's documentation.
macro_rules! stage {
    (
        $(#[$meta:meta])*
        $stage:ident $name:literal of $unit:literal {
            $(
                $(#[$field_meta:meta])*
                $field:ident $(as $term:literal)?: $type:ty
                    = $fate:ident $($always:ident)?, $metric:expr, $help:literal;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Serialize)]
        pub struct $stage {
            $(
                #[doc = $help]
                $(#[$field_meta])*
                pub $field: $type,
            )*
        }

        impl $crate::stage::Stage for $stage {
            const NAME: &'static str = $name;
            const UNIT: &'static str = $unit;
            const TERMS: &'static [$crate::stage::Term<Self>] = &[
                $($crate::stage::Term {
                    name: [$($term,)? stringify!($field)][0],
                    fate: tap53_reasons::Fate::$fate,
                    always: $crate::stage::stage!(@always $($always)?),
                    metric: $metric,
                    help: $help,
                    label: <$type as $crate::stage::Countable>::LABEL,
                    read: |stage| $crate::stage::Countable::total(&stage.$field),
                },)*
            ];
        }
    };
    (@always always) => { true };
    (@always) => { false };
}
pub(crate) use stage;
