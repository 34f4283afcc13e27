//! Why something is ignored or lost. A reason is written once, as an entry of [`reasons!`]:
//!
//! ```
//! use tap53_reasons::{Fate, Reason, reasons};
//!
//! reasons! {
//!     /// Why a parcel is not delivered.
//!     pub enum ParcelLoss {
//!         /// The address does not exist.
//!         NoAddress = "no_address", Lost, "ask the sender";
//!         /// It is addressed to its sender.
//!         ToSender = "to_sender", Ignored;
//!     }
//! }
//!
//! assert_eq!(ParcelLoss::ALL.map(ParcelLoss::name), ["no_address", "to_sender"]);
//! assert_eq!(ParcelLoss::NoAddress.fate(), Fate::Lost);
//! assert_eq!(ParcelLoss::NoAddress.meaning(), "The address does not exist.");
//! assert_eq!(ParcelLoss::NoAddress.remedy(), Some("ask the sender"));
//! assert_eq!(ParcelLoss::ToSender.remedy(), None);
//! ```
//!
//! A [`Set`] holds labels of one enum.
//!
//! The lines of the ledger, its JSON, summaries, metrics and `docs/loss-reasons.md` derive from these
//! entries. The crate is `no_std` and below all others, since the kernel programs count by reasons too.

#![no_std]
#![forbid(unsafe_code)]

mod set;

pub use set::Set;

/// The part that a number has in the sum of a stage: `Σ taken = Σ passed + Σ waiting + Σ filtered +
/// Σ ignored + Σ lost`. The declaration order is that of text and summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It came into the stage.
    Taken,
    /// It went on to the next stage.
    Passed,
    /// It is still in the stage.
    Waiting,
    /// A filter of the configuration excluded it.
    Filtered,
    /// It is rightly not passed on, and nothing is missing.
    Ignored,
    /// It is missing from here on.
    Lost,
    /// It is published with the stage and is no part of its sum.
    Outside,
}

impl Fate {
    /// The fates in the sum, in their order.
    pub const SUMMED: [Self; 6] =
        [Self::Taken, Self::Passed, Self::Waiting, Self::Filtered, Self::Ignored, Self::Lost];

    /// Returns its name in text, summaries and SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Passed => "passed",
            Self::Waiting => "waiting",
            Self::Filtered => "filtered",
            Self::Ignored => "ignored",
            Self::Lost => "lost",
            Self::Outside => "outside",
        }
    }
}

/// An enum that [`labels!`] or [`reasons!`] declared.
pub trait Label: Copy + 'static {
    /// All of them, in index order.
    const LABELS: &'static [Self];

    /// Returns its position in [`LABELS`](Self::LABELS), and in arrays of counts.
    fn index(self) -> usize;

    /// Returns its name in the ledger, in records, in metrics and in the manual.
    fn label(self) -> &'static str;
}

/// An enum that [`reasons!`] declared.
pub trait Reason: Label {
    /// Returns what it means for completeness.
    fn fate(self) -> Fate;

    /// Returns its documentation, for the manual.
    fn meaning(self) -> &'static str;

    /// Returns what an operator does about it; `None` if nothing needs to be done.
    fn remedy(self) -> Option<&'static str>;
}

/// Declares an enum of reasons. An entry is its documentation, `Variant = "label", Fate` and, where an
/// operator can do something, a remedy.
#[macro_export]
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $variant:ident = $label:literal, $fate:ident $(, $remedy:literal)?;
            )+
        }
    ) => {
        $crate::labels! {
            $(#[$meta])*
            $visibility enum $name {
                $(
                    $(#[doc = $doc])+
                    $(#[doc = concat!("\n\nTo do: ", $remedy, ".")])?
                    $variant = $label;
                )+
            }
        }

        impl $name {
            /// Returns what it means for completeness.
            #[must_use]
            $visibility const fn fate(self) -> $crate::Fate {
                match self {
                    $(Self::$variant => $crate::Fate::$fate,)+
                }
            }
        }

        impl $crate::Reason for $name {
            fn fate(self) -> $crate::Fate {
                self.fate()
            }

            fn meaning(self) -> &'static str {
                // Each line of documentation begins with a space.
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }

            fn remedy(self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => [$($remedy)?].first().copied(),)+
                }
            }
        }
    };
}

/// Declares an enum of names alone: `Variant = "label";` with its documentation.
#[macro_export]
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $(
                $(#[$entry:meta])+
                $variant:ident = $label:literal;
            )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $(
                $(#[$entry])+
                $variant,
            )+
        }

        impl $name {
            /// All of them, in index order.
            $visibility const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Returns its name in the ledger, in records and in metrics.
            #[must_use]
            $visibility const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        impl $crate::Label for $name {
            const LABELS: &'static [Self] = &Self::ALL;

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            #[inline]
            fn label(self) -> &'static str {
                self.name()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::{Fate, Label as _, Reason as _};

    reasons! {
        /// Reasons of these tests.
        enum Example {
            /// The first line
            /// goes on in the second.
            First = "first", Lost, "look at it";
            /// Nothing is missing.
            Second = "second", Ignored;
        }
    }

    #[test]
    fn an_entry_is_index_label_fate_meaning_and_remedy() {
        assert_eq!(Example::LABELS, Example::ALL);
        assert_eq!(Example::ALL.map(Example::index), [0, 1]);
        assert_eq!(Example::ALL.map(Example::label), ["first", "second"]);
        assert_eq!(Example::ALL.map(Example::fate), [Fate::Lost, Fate::Ignored]);
        assert_eq!(Example::First.meaning(), "The first line goes on in the second.");
        assert_eq!(Example::ALL.map(Example::remedy), [Some("look at it"), None]);
    }

    #[test]
    fn the_fates_of_a_sum_are_in_their_order() {
        assert!(Fate::SUMMED.is_sorted());
        assert!(!Fate::SUMMED.contains(&Fate::Outside));
    }
}
