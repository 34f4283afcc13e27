//! Bursts of registrable domains that do not exist, by client: malware that generates domains tries many
//! until one exists.

use crate::{striped::Entry, window::Window};

/// Minimum number of different domains that do not exist, if most of them look generated.
const MIN_DOMAINS: u16 = 30;

/// Minimum number if they do not. About 60 domains set so many of the 128 bits.
const MIN_WORDS: u16 = 50;

/// One in this number of the domains that exist is counted, by its hash: most of them cost nothing.
const RESOLVED_SAMPLE: u64 = 8;

/// The counts of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Burst {
    /// A bit for each domain of this interval, by its hash.
    domains: [u64; 2],
    window: Window,
    counted: u16,
    generated: u16,
    /// A bit for each sampled domain of this interval that exists, by its hash.
    resolved_domains: u64,
    resolved: u16,
}

/// Returns true if a domain that exists is in the sample that [`Burst::count_resolved`] wants.
#[inline]
pub(crate) const fn is_sampled(domain: u64) -> bool {
    domain.is_multiple_of(RESOLVED_SAMPLE)
}

impl Burst {
    /// Counts a domain that does not exist; returns true if the client has a burst.
    pub(crate) fn count(&mut self, domain: u64, is_generated: bool, now_s: u32) -> bool {
        self.age(now_s);
        let bit = 1 << (domain & 63);
        let word = &mut self.domains[(domain >> 6 & 1) as usize];
        if *word & bit == 0 {
            *word |= bit;
            self.counted += 1;
            self.generated += u16::from(is_generated);
            let is_mostly_generated = self.generated * 2 >= self.counted;
            if self.counted >= MIN_DOMAINS && is_mostly_generated
                || self.counted >= MIN_WORDS && self.is_mostly_missing()
            {
                self.window.mark(now_s);
            }
        }
        self.window.is_marked(now_s)
    }

    /// Counts a domain of the sample that exists: a forwarder has the misspelled names of many people, and
    /// many more names that exist.
    pub(crate) fn count_resolved(&mut self, domain: u64, now_s: u32) {
        self.age(now_s);
        let bit = 1 << (domain >> 7 & 63);
        self.resolved += u16::from(self.resolved_domains & bit == 0);
        self.resolved_domains |= bit;
    }

    fn is_mostly_missing(&self) -> bool {
        u64::from(self.counted) >= RESOLVED_SAMPLE * u64::from(self.resolved)
    }

    fn age(&mut self, now_s: u32) {
        let passed = self.window.advance(now_s);
        if passed > 0 {
            self.domains = [0; 2];
            self.resolved_domains = 0;
            self.counted >>= passed;
            self.generated >>= passed;
            self.resolved >>= passed;
        }
    }
}

impl Entry for Burst {
    fn worth(&self, now_s: u32) -> u32 {
        self.window.worth(self.counted, now_s)
    }
}

/// Returns true if the first label of a registrable domain is no word: it has few vowels, many consonants
/// in a row, or digits among its letters.
pub(crate) fn is_generated(domain: &str) -> bool {
    let label = domain.split('.').next().unwrap_or_default();
    if label.len() < 7 || label.starts_with("xn--") {
        return false;
    }
    let (mut letters, mut vowels, mut row, mut longest, mut changes) = (0, 0, 0, 0, 0);
    let mut last_is_digit = None;
    for octet in label.bytes() {
        let is_digit = octet.is_ascii_digit();
        changes += u32::from(last_is_digit.is_some_and(|last| last != is_digit));
        last_is_digit = Some(is_digit);
        if matches!(octet, b'a' | b'e' | b'i' | b'o' | b'u' | b'y') {
            vowels += 1;
            row = 0;
        } else if octet.is_ascii_lowercase() {
            row += 1;
        } else {
            row = 0;
        }
        letters += u32::from(octet.is_ascii_lowercase());
        longest = longest.max(row);
    }
    vowels * 4 < letters || longest >= 5 || changes >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked_after(domains: impl Iterator<Item = (u64, bool)>, each_s: u32) -> Option<usize> {
        let mut burst = Burst::default();
        domains.enumerate().position(|(number, (domain, is_generated))| {
            let now_s = 10_000 + u32::try_from(number).unwrap_or_default() * each_s;
            burst.count(domain.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9, is_generated, now_s)
        })
    }

    #[test]
    fn many_generated_domains_are_a_burst() {
        assert!(marked_after((0..200).map(|it| (it, true)), 0).is_some_and(|it| it < 60));
        assert_eq!(marked_after((0..49).map(|it| (it, false)), 0), None);
        assert!(marked_after((0..600).map(|it| (it, false)), 0).is_some());
        assert_eq!(marked_after((0..2_000).map(|it| (it % 20, true)), 0), None, "the same ones");
        assert_eq!(marked_after((0..500).map(|it| (it, true)), 4), None, "slowly");
    }

    #[test]
    fn many_missing_domains_among_more_that_exist_are_no_burst() {
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9;
        let mark = |resolved_each: u64| {
            let mut burst = Burst::default();
            (0..300).any(|number| {
                for other in (0..resolved_each).map(|other| spread(10_000 + number * 10 + other)) {
                    if is_sampled(other) {
                        burst.count_resolved(other, 1_000);
                    }
                }
                burst.count(spread(number), false, 1_000)
            })
        };
        assert!(mark(0));
        assert!(!mark(4));
    }

    #[test]
    fn generated_labels_differ_from_words() {
        for domain in ["xjpakmdcfuqe.ru", "qwrtzpsdfg.com", "a3b9x0k2l.net", "kvlrtxhmwq.biz"] {
            assert!(is_generated(domain), "{domain}");
        }
        for domain in [
            "wikipedia.org",
            "example.com",
            "cloudflare.net",
            "microsoft.com",
            "t.co",
            "",
            "xn--bcher-kva.example",
        ] {
            assert!(!is_generated(domain), "{domain}");
        }
    }
}
