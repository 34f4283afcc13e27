//! Sets of labels.

use core::{fmt, iter, marker::PhantomData};

use crate::Label;

/// A set of at most eight labels, in one byte. It serializes as the list of their names if the feature
/// `serde` is enabled.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Set<L> {
    bits: u8,
    of: PhantomData<L>,
}

impl<L> Set<L> {
    /// The empty set.
    pub const NONE: Self = Self { bits: 0, of: PhantomData };

    /// Returns true if the set is empty.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool
    where
        L: Copy,
    {
        self.bits == 0
    }
}

impl<L: Label> Set<L> {
    /// All labels.
    pub const ALL: Self = {
        assert!(L::LABELS.len() <= u8::BITS as usize, "a set has at most eight labels");
        Self { bits: (1_u16 << L::LABELS.len()).wrapping_sub(1).to_le_bytes()[0], of: PhantomData }
    };

    /// Adds a label.
    #[inline]
    pub fn add(&mut self, label: L) {
        *self = self.with(label, true);
    }

    /// Returns the set with `label` added if `is_set`.
    #[inline]
    #[must_use]
    pub fn with(self, label: L, is_set: bool) -> Self {
        Self::from_bits(self.bits | u8::from(is_set) << label.index())
    }

    /// Returns the labels of either set.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits, of: PhantomData }
    }

    /// Returns true if both sets have a label in common.
    #[inline]
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.bits & other.bits != 0
    }

    /// Returns true if `label` is in the set.
    #[inline]
    #[must_use]
    pub fn contains(self, label: L) -> bool {
        self.bits & 1 << label.index() != 0
    }

    /// Returns the number of labels.
    #[inline]
    #[must_use]
    pub const fn len(self) -> usize {
        self.bits.count_ones() as usize
    }

    /// Returns the labels, in index order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = L> + Clone {
        let mut rest = self.bits;
        // An empty set, which is the usual one, costs one comparison. After the last label the index is 8.
        iter::from_fn(move || {
            let label = L::LABELS.get(rest.trailing_zeros() as usize)?;
            rest &= rest.wrapping_sub(1);
            Some(*label)
        })
    }

    /// Returns the names of the labels, in index order.
    #[inline]
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        self.iter().map(L::label)
    }

    /// Returns the set as bits, bit 0 for the label with index 0.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Returns the set of [`bits`](Self::bits). Bits without a label are ignored.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self { bits: bits & Self::ALL.bits, of: PhantomData }
    }
}

impl<L> Default for Set<L> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<L: Label + fmt::Debug> fmt::Debug for Set<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl<L: Label> FromIterator<L> for Set<L> {
    fn from_iter<I: IntoIterator<Item = L>>(labels: I) -> Self {
        labels.into_iter().fold(Self::NONE, |set, label| set.with(label, true))
    }
}

#[cfg(feature = "serde")]
impl<L: Label> serde::Serialize for Set<L> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        // With the length: a serializer of Avro writes a sequence of unknown length in another form.
        let mut names = serializer.serialize_seq(Some(self.len()))?;
        for name in self.names() {
            names.serialize_element(name)?;
        }
        names.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::labels! {
        /// Labels of these tests.
        enum Colour {
            /// Short waves.
            Blue = "blue";
            /// Long waves.
            Red = "red";
            /// All of them.
            White = "white";
        }
    }

    crate::labels! {
        /// The maximum number of labels in a set.
        enum Digit {
            /// 0.
            Zero = "0";
            /// 1.
            One = "1";
            /// 2.
            Two = "2";
            /// 3.
            Three = "3";
            /// 4.
            Four = "4";
            /// 5.
            Five = "5";
            /// 6.
            Six = "6";
            /// 7.
            Seven = "7";
        }
    }

    #[test]
    fn a_set_iterates_in_index_order() {
        let set: Set<Colour> = [Colour::White, Colour::Blue, Colour::White].into_iter().collect();
        assert!(set.iter().eq([Colour::Blue, Colour::White]));
        assert!(set.names().eq(["blue", "white"]));
        assert_eq!((set.len(), set.is_empty(), set.contains(Colour::Red)), (2, false, false));
        assert_eq!(set.with(Colour::Red, true), Set::ALL);
        assert_eq!(set.with(Colour::Red, false), set);
    }

    #[test]
    fn sets_are_joined_and_compared() {
        let [blue, red] =
            [Colour::Blue, Colour::Red].map(|colour| Set::<Colour>::NONE.with(colour, true));
        assert!(blue.union(red).names().eq(["blue", "red"]));
        assert!(blue.union(red).intersects(red) && !blue.intersects(red));
        assert_eq!(Set::<Colour>::default(), Set::NONE);
    }

    #[test]
    fn bits_without_a_label_are_ignored() {
        assert_eq!(Set::<Colour>::from_bits(u8::MAX), Set::ALL);
        assert_eq!(Set::<Colour>::ALL.bits(), 0b111);
        assert_eq!(Set::<Digit>::ALL.bits(), u8::MAX);
        assert_eq!(Set::<Digit>::from_bits(0x80).iter().next(), Some(Digit::Seven));
    }
}
