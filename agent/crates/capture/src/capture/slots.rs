//! Counter slots and the counts in them: one slot for each attached interface, reused after it is
//! detached, so that neither maps nor the ledger grow with the interfaces that come and go.
//!
//! The agent never writes to a slot. The counts at its release are subtracted later. If a program
//! counts late, because the kernel could not wait for it, the packet is counted with the next
//! interface instead of being missing.

use std::collections::VecDeque;

use tap53_ebpf::{counter::Counters, settings::UNCONFIGURED_SLOT};

use super::{Attachment, InterfaceCounters};

/// Maximum number of detached interfaces with their own line in the ledger; older ones are summed
/// up. 500 bytes each.
const RETIRED_LINES: usize = 64;

/// Counters of ingress and egress.
pub(super) type Both = [Counters; 2];

/// The slots, as many as interfaces are allowed.
pub(super) struct Slots {
    limit: u32,
    /// Counts of each slot at its release, from the slot after [`UNCONFIGURED_SLOT`] on.
    bases: Vec<Both>,
    /// Released slots, the one that was released first at the front.
    free: VecDeque<u32>,
}

impl Slots {
    pub(super) const fn new(limit: u32) -> Self {
        Self { limit, bases: Vec::new(), free: VecDeque::new() }
    }

    /// Returns a free slot, if there is one.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop_front() {
            return Some(slot);
        }
        let used = u32::try_from(self.bases.len()).unwrap_or(u32::MAX);
        if used >= self.limit {
            return None;
        }
        self.bases.push(Both::default());
        Some(UNCONFIGURED_SLOT + 1 + used)
    }

    /// Releases a slot whose counts are `held` now.
    pub(super) fn release(&mut self, slot: u32, held: Both) {
        if let Some(base) = self.bases.get_mut(position(slot)) {
            *base = held;
            self.free.push_back(slot);
        }
    }

    /// Returns the counts of a slot since it was taken, given its current counts `held`.
    pub(super) fn counted(&self, slot: u32, held: &Both) -> Both {
        let base = self.bases.get(position(slot)).copied().unwrap_or_default();
        let mut counted = *held;
        for (counted, base) in counted.iter_mut().zip(&base) {
            for (count, base) in counted.counts.iter_mut().zip(base.counts) {
                *count = count.wrapping_sub(base);
            }
        }
        counted
    }
}

const fn position(slot: u32) -> usize {
    (slot - UNCONFIGURED_SLOT - 1) as usize
}

/// Counts of interfaces that are no longer attached.
#[derive(Default)]
pub(super) struct Retired {
    /// The latest ones, oldest first; after `trim`, at most [`RETIRED_LINES`].
    lines: VecDeque<InterfaceCounters>,
    /// The number of earlier ones, and the sum of their counts: of ends of pairs last, of others first.
    earlier: Earlier,
}

/// Numbers of interfaces, and the sums of their counts: ends of pairs, of which there is one for each
/// pod, are the second one.
pub(super) type Earlier = [(u64, Both); 2];

impl Retired {
    /// Adds the counts of a detached interface.
    pub(super) fn add(&mut self, attachment: Attachment, by_direction: Both) {
        self.lines.push_back(InterfaceCounters { attachment, by_direction, is_attached: false });
    }

    /// Sums up the oldest lines beyond [`RETIRED_LINES`].
    pub(super) fn trim(&mut self) {
        while self.lines.len() > RETIRED_LINES
            && let Some(oldest) = self.lines.pop_front()
        {
            let is_pair = oldest.attachment.interface.kind.is_pair();
            let (count, sum) = &mut self.earlier[usize::from(is_pair)];
            *count += 1;
            add(sum, &oldest.by_direction);
        }
    }

    /// Removes and returns the earlier counts of the same interface, which continues them.
    pub(super) fn resume(&mut self, name: &str, ifindex: u32) -> Both {
        let is_same = |line: &InterfaceCounters| {
            line.attachment.interface.ifindex == ifindex && line.attachment.interface.name == name
        };
        let position = self.lines.iter().position(is_same);
        let line = position.and_then(|position| self.lines.remove(position));
        line.map(|line| line.by_direction).unwrap_or_default()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &InterfaceCounters> {
        self.lines.iter()
    }

    /// Returns the numbers of interfaces without a line, and their sums.
    pub(super) const fn earlier(&self) -> Earlier {
        self.earlier
    }
}

pub(super) fn add(sum: &mut Both, other: &Both) {
    for (sum, other) in sum.iter_mut().zip(other) {
        sum.add(other);
    }
}

#[cfg(test)]
mod tests {
    use tap53_ebpf::counter::Counter;

    use super::*;
    use crate::interfaces::{Interface, Kind};

    fn seen(ingress: u64, egress: u64) -> Both {
        let mut both = Both::default();
        both[0].counts[Counter::Seen as usize] = ingress;
        both[1].counts[Counter::Seen as usize] = egress;
        both
    }

    fn attachment(name: &str, ifindex: u32) -> Attachment {
        let interface = Interface {
            name: name.to_owned(),
            ifindex,
            mtu: 1_500,
            up: true,
            kind: Kind::Veth,
            ethernet: true,
            peer: None,
        };
        Attachment { interface, ingress: None, egress: None, why: String::new() }
    }

    #[test]
    fn slots_are_used_again_and_count_from_where_they_were_left() {
        let mut slots = Slots::new(2);
        let (first, second) = (slots.take().unwrap(), slots.take().unwrap());
        assert_eq!((first, second), (1, 2), "slot 0 is for interfaces without settings");
        assert_eq!(slots.take(), None);
        assert_eq!(slots.counted(first, &seen(5, 1)), seen(5, 1));
        slots.release(first, seen(5, 1));
        slots.release(second, seen(0, 0));
        assert_eq!(slots.take(), Some(first), "the longest free");
        assert_eq!(slots.counted(first, &seen(7, 1)), seen(2, 0));
    }

    #[test]
    fn nothing_that_was_counted_is_lost_however_many_interfaces_retire() {
        let mut retired = Retired::default();
        for ifindex in 1..=1_000 {
            retired.add(attachment("veth", ifindex), seen(1, 2));
            retired.trim();
        }
        assert_eq!(retired.lines().count(), RETIRED_LINES);
        let [others, (interfaces, mut sum)] = retired.earlier();
        assert_eq!(others.0, 0, "all are veth devices");
        assert_eq!(interfaces, 1_000 - RETIRED_LINES as u64);
        retired.lines().for_each(|line| add(&mut sum, &line.by_direction));
        assert_eq!(sum, seen(1_000, 2_000));
    }

    #[test]
    fn an_interface_that_is_attached_again_has_one_line() {
        let mut retired = Retired::default();
        retired.add(attachment("eth0", 3), seen(4, 4));
        assert_eq!(retired.resume("eth0", 4), Both::default(), "another number");
        assert_eq!(retired.resume("wan0", 3), Both::default(), "another name");
        assert_eq!(retired.resume("eth0", 3), seen(4, 4));
        assert_eq!(retired.lines().count(), 0);
    }
}
