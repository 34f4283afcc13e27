//! Random numbers that are the same for a seed in every build.

use std::time::Duration;

/// SplitMix64: a counter through a mixing function. Good enough for streams of names, and five lines, so
/// that no version of a crate changes the streams.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the generator of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // The high half of a product: as even as 64 bits allow.
        let product = u128::from(self.bits()) * (end as u128);
        usize::try_from(product >> 64).expect("below `end`")
    }

    /// Returns a number below `end`.
    pub fn octet_below(&mut self, end: u8) -> u8 {
        u8::try_from(self.below(end.into())).unwrap_or(u8::MAX)
    }

    /// Returns true with a probability of `percent`.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns one of `items`.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Returns `length` characters of `alphabet`.
    pub fn text(&mut self, length: usize, alphabet: &str) -> String {
        let alphabet = alphabet.as_bytes();
        (0..length).map(|_| char::from(self.pick(alphabet))).collect()
    }

    /// Returns `length` hexadecimal digits.
    pub fn hex(&mut self, length: usize) -> String {
        self.text(length, "0123456789abcdef")
    }

    /// Returns a UUID of version 4.
    pub fn uuid(&mut self) -> String {
        let (a, b, c, d, e) = (self.hex(8), self.hex(4), self.hex(3), self.hex(3), self.hex(12));
        format!("{a}-{b}-4{c}-{}{d}-{e}", self.pick(&['8', '9', 'a', 'b']))
    }

    /// Returns `length` random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.bits().to_le_bytes()[0]).collect()
    }

    /// Returns the time to the next event of a Poisson process with this mean.
    pub fn interval(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// Returns a time below `end`.
    pub fn time(&mut self, end: Duration) -> Duration {
        end.mul_f64(self.unit())
    }

    /// Returns a number in [0, 1).
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Mixes the bits of a number, so that what is made of consecutive numbers looks unrelated.
pub(super) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Ranks with the probabilities of Zipf's law: that of rank n is proportional to n^-1.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(ranks: u32) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=ranks).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    /// Returns a rank from 0.
    pub(super) fn rank(&self, random: &mut Random) -> usize {
        let total = self.cumulated.last().copied().unwrap_or_default();
        let wanted = random.unit() * total;
        self.cumulated.partition_point(|sum| *sum <= wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_zipf() {
        let (zipf, mut random) = (Zipf::new(1_000), Random::new(1));
        let mut counts = [0_u32; 1_000];
        for _ in 0..100_000 {
            counts[zipf.rank(&mut random)] += 1;
        }
        // The sum of 1/n up to 1000 is 7.485: 13 360 of rank 1 are expected, and 1 336 of rank 10.
        assert!((12_900..13_800).contains(&counts[0]), "{}", counts[0]);
        assert!((1_200..1_480).contains(&counts[9]), "{}", counts[9]);
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_it() {
        let mut random = Random::new(2);
        let drawn: std::collections::BTreeSet<_> = (0..1_000).map(|_| random.below(7)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    }
}
