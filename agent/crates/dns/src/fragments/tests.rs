use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::build;

fn origin(at_ns: u64) -> Origin {
    build::origin(at_ns, 3, [192, 0, 2, 53], [192, 0, 2, 1])
}

fn part(identification: u32, offset: u32, more: bool, data: &[u8]) -> Part<'_> {
    Part { protocol: 17, identification, offset, more, data }
}

/// The events of fragments, in order.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Datagram(Vec<u8>),
    Loss(FragmentLoss, Option<[u16; 2]>),
}

impl From<FragmentEvent<'_>> for Seen {
    fn from(event: FragmentEvent<'_>) -> Self {
        match event {
            FragmentEvent::Datagram { bytes, .. } => Self::Datagram(bytes.to_vec()),
            FragmentEvent::Loss { reason, ports, .. } => Self::Loss(reason, ports),
        }
    }
}

fn take(fragments: &mut Fragments, origin: &Origin, part: &Part<'_>) -> Vec<Seen> {
    let mut seen = Vec::new();
    fragments.fragment(origin, part, |event| seen.push(event.into()));
    let counts = fragments.counts();
    assert_eq!(counts.accounted(), counts.received, "{counts:?}");
    assert!(counts.steps <= counts.most_steps(Config::default().fragments), "{counts:?}");
    seen
}

#[test]
fn a_datagram_is_whole_with_its_last_missing_fragment() {
    let mut fragments = Config::default().build();
    let datagram: Vec<u8> = (0..40).collect();
    assert_eq!(take(&mut fragments, &origin(1), &part(7, 16, true, &datagram[16..32])), []);
    assert_eq!(take(&mut fragments, &origin(2), &part(7, 32, false, &datagram[32..])), []);
    assert_eq!(take(&mut fragments, &origin(3), &part(7, 32, false, &datagram[32..])), []);
    let whole = take(&mut fragments, &origin(4), &part(7, 0, true, &datagram[..16]));
    assert_eq!(whole, [Seen::Datagram(datagram)]);
    let counts = fragments.counts();
    assert_eq!((counts.joined, counts.duplicates, counts.datagrams), (3, 1, 1));
    assert_eq!((counts.waiting, fragments.memory), (0, 0));
}

fn counted(fragments: &Fragments, reason: FragmentLoss) -> u64 {
    fragments.counts().lost[reason as usize]
}

#[test]
fn an_overlap_refuses_the_datagram_and_its_later_fragments() {
    let mut fragments = Config::default().build();
    assert_eq!(take(&mut fragments, &origin(1), &part(7, 0, true, &[0, 53, 1, 0, 0, 0, 0, 0])), []);
    // One byte differs.
    let refused = take(&mut fragments, &origin(2), &part(7, 0, true, &[0, 53, 1, 1, 0, 0, 0, 0]));
    assert_eq!(refused, [Seen::Loss(FragmentLoss::Overlap, Some([53, 256]))]);
    assert_eq!(take(&mut fragments, &origin(3), &part(7, 8, false, &[1; 8])), []);
    assert_eq!(take(&mut fragments, &origin(4), &part(7, 0, true, &[0; 8])), []);
    assert_eq!(counted(&fragments, FragmentLoss::Overlap), 4);
    assert_eq!((fragments.memory, fragments.counts().datagrams_refused), (0, 1));
    // The identification may be reused after the timeout.
    let later = origin(15_000_000_001);
    assert_eq!(take(&mut fragments, &later, &part(7, 0, true, &[0; 8])), []);
    let whole = take(&mut fragments, &later, &part(7, 8, false, &[1; 8]));
    assert!(matches!(whole[..], [Seen::Datagram(_)]), "{whole:?}");
}

#[test]
fn fragments_that_disagree_on_the_end_refuse_the_datagram() {
    let disagreeing = [
        [part(1, 16, false, &[1; 8]), part(1, 24, false, &[1; 8])],
        [part(2, 16, false, &[1; 8]), part(2, 8, false, &[1; 8])],
        [part(3, 16, false, &[1; 8]), part(3, 24, true, &[1; 8])],
        [part(4, 24, true, &[1; 8]), part(4, 16, false, &[1; 8])],
        [part(5, 16, false, &[1; 8]), part(5, 16, true, &[1; 8])],
        [part(6, 16, true, &[1; 8]), part(6, 16, false, &[1; 8])],
    ];
    for [first, second] in disagreeing {
        let mut fragments = Config::default().build();
        assert_eq!(take(&mut fragments, &origin(1), &first), []);
        let refused = take(&mut fragments, &origin(1), &second);
        assert_eq!(refused, [Seen::Loss(FragmentLoss::Overlap, None)], "{first:?} {second:?}");
    }
}

#[test]
fn a_fragment_with_no_others_is_whole() {
    let mut fragments = Config::default().build();
    assert_eq!(take(&mut fragments, &origin(1), &part(7, 8, true, &[1; 8])), []);
    let atomic = take(&mut fragments, &origin(1), &part(7, 0, false, &[2; 3]));
    assert_eq!(atomic, [Seen::Datagram(vec![2; 3])]);
    assert_eq!(fragments.counts().waiting, 1);
}

#[test]
fn impossible_fragments_are_refused_alone() {
    let mut fragments = Config::default().build();
    for (impossible, reason) in [
        (part(7, 8, true, &[1; 9]), FragmentLoss::Malformed),
        (part(7, 8, true, &[]), FragmentLoss::Malformed),
        (part(7, 65_528, false, &[1; 8]), FragmentLoss::TooLong),
        (part(7, u32::MAX - 7, false, &[1; 8]), FragmentLoss::TooLong),
    ] {
        let refused = take(&mut fragments, &origin(1), &impossible);
        assert_eq!(refused, [Seen::Loss(reason, None)], "{impossible:?}");
    }
    assert_eq!(fragments.counts().waiting, 0);
    assert_eq!(take(&mut fragments, &origin(1), &part(7, 65_528, false, &[1; 7])), []);
}

#[test]
fn incomplete_datagrams_are_lost_after_the_timeout_with_their_flow() {
    let mut fragments = Config::default().build();
    take(&mut fragments, &origin(1), &part(7, 0, true, &[0, 53, 1, 0, 0, 0, 0, 0]));
    take(&mut fragments, &origin(9), &part(7, 16, false, &[0; 8]));
    let mut seen = Vec::new();
    fragments.expire(15_000_000_000, |event| seen.push(Seen::from(event)));
    assert_eq!(seen, []);
    fragments.expire(15_000_000_001, |event| seen.push(Seen::from(event)));
    assert_eq!(seen, [Seen::Loss(FragmentLoss::TimedOut, Some([53, 256]))]);
    let counts = fragments.counts();
    assert_eq!((counts.accounted(), counts.waiting), (2, 0));
}

#[test]
fn a_clock_that_is_set_back_leaves_a_datagram_its_time() {
    let mut fragments = Config::default().build();
    let hour_ns = 3_600_000_000_000;
    fragments.expire(hour_ns, |_| {});
    take(&mut fragments, &origin(1), &part(7, 0, true, &[0; 8]));
    let mut seen = Vec::new();
    fragments.expire(hour_ns, |event| seen.push(Seen::from(event)));
    assert_eq!(seen, []);
    fragments.expire(hour_ns + 15_000_000_000, |event| seen.push(Seen::from(event)));
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_datagram_has_the_origin_of_its_first_fragment_and_the_time_of_the_completing_one() {
    let mut fragments = Config::default().build();
    let first = Origin { vlan_id: Some(7), frame: 20, ..origin(20) };
    let last = Origin { vlan_id: Some(8), frame: 30, ..origin(30) };
    take(&mut fragments, &origin(10), &part(7, 16, false, &[0; 8]));
    take(&mut fragments, &first, &part(7, 0, true, &[0; 8]));
    let mut found = None;
    fragments.fragment(&last, &part(7, 8, true, &[0; 8]), |event| {
        if let FragmentEvent::Datagram { origin, protocol, bytes } = event {
            found = Some((origin, protocol, bytes.len()));
        }
    });
    assert_eq!(found, Some((Origin { captured_at_ns: 30, frame: 30, ..first }, 17, 24)));
}

#[test]
fn copies_at_other_hooks_are_no_overlaps() {
    let mut fragments = Config::default().build();
    let here = origin(1);
    let there = Origin { ifindex: 4, ..here };
    let leaving = Origin { direction: Direction::Egress, ..here };
    for origin in [&here, &there, &leaving] {
        assert_eq!(take(&mut fragments, origin, &part(7, 0, true, &[0; 8])), []);
    }
    for origin in [&here, &there, &leaving] {
        let whole = take(&mut fragments, origin, &part(7, 8, false, &[0; 8]));
        assert_eq!(whole, [Seen::Datagram(vec![0; 16])]);
    }
    assert_eq!(fragments.counts().duplicates, 0);
}

#[test]
fn in_ipv6_the_first_fragment_names_the_next_header() {
    let mut fragments = Config::default().build();
    let ipv6 = |at_ns| Origin {
        source: "2001:db8::53".parse().unwrap(),
        destination: "2001:db8::1".parse().unwrap(),
        ..origin(at_ns)
    };
    let other = Part { protocol: 99, ..part(7, 8, false, &[0; 8]) };
    take(&mut fragments, &ipv6(1), &other);
    let mut protocols = Vec::new();
    fragments.fragment(&ipv6(2), &part(7, 0, true, &[0; 8]), |event| {
        if let FragmentEvent::Datagram { protocol, .. } = event {
            protocols.push(protocol);
        }
    });
    assert_eq!(protocols, [17]);
}

#[test]
fn claimed_offsets_take_no_memory() {
    let mut fragments = Config::default().build();
    for identification in 0..1_000 {
        take(&mut fragments, &origin(1), &part(identification, 65_520, true, &[1; 8]));
    }
    assert_eq!(fragments.memory, 1_000 * 72);
}

#[test]
fn a_flood_of_fragments_leaves_memory_flat() {
    let config = Config { datagrams: 100, bytes: 20_000, ..Config::default() };
    let mut fragments = config.build();
    for identification in 0..20_000 {
        // First the number of datagrams is the limit, then their bytes.
        let size = if identification < 10_000 { 8 } else { 1_000 };
        take(&mut fragments, &origin(1), &part(identification, 0, true, &vec![1; size]));
        assert!(fragments.memory <= 20_000 && fragments.datagrams.slots() <= 100);
    }
    let counts = fragments.counts();
    assert_eq!(counts.datagrams_evicted + counts.waiting, 20_000);
    assert_eq!(counts.waiting, 20_000 / 1_064);
    fragments.finish(|_| {});
    assert_eq!((fragments.memory, fragments.counts().waiting), (0, 0));
}

#[test]
fn more_fragments_than_are_kept_refuse_the_datagram() {
    let mut fragments = Config { fragments: 4, ..Config::default() }.build();
    for place in 0..4 {
        assert_eq!(take(&mut fragments, &origin(1), &part(7, place * 16, true, &[1; 8])), []);
    }
    let refused = take(&mut fragments, &origin(1), &part(7, 64, true, &[1; 8]));
    assert!(matches!(refused[..], [Seen::Loss(FragmentLoss::TooMany, Some(_))]), "{refused:?}");
    assert_eq!(counted(&fragments, FragmentLoss::TooMany), 5);
}

/// A datagram, its cuts (in units of 8 bytes), and the order in which its fragments arrive.
fn split() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
    (vec(any::<u8>(), 17..3_000), vec(any::<Index>(), 1..20)).prop_flat_map(|(datagram, cuts)| {
        let units = (datagram.len() - 1) / 8;
        let mut ends: Vec<_> = cuts.iter().map(|cut| (1 + cut.index(units)) * 8).collect();
        ends.extend([0, datagram.len()]);
        ends.sort_unstable();
        ends.dedup();
        let parts: Vec<_> = ends.windows(2).map(|ends| (ends[0], ends[1])).collect();
        (Just(datagram), Just(parts).prop_shuffle())
    })
}

fn cut_out(datagram: &[u8], (from, to): (usize, usize)) -> Part<'_> {
    let offset = u32::try_from(from).unwrap();
    part(7, offset, to < datagram.len(), &datagram[from..to])
}

proptest! {
    #[test]
    fn any_split_and_order_gives_the_datagram_back(
        (datagram, parts) in split(),
        again in vec((any::<Index>(), any::<Index>()), 0..6),
    ) {
        let mut fragments = Config::default().build();
        let mut order = parts.clone();
        // Duplicates, before the datagram is complete.
        for (which, place) in again {
            order.insert(place.index(order.len()), parts[which.index(parts.len() - 1)]);
        }
        let mut seen = Vec::new();
        for cut in &order {
            seen.extend(take(&mut fragments, &origin(1), &cut_out(&datagram, *cut)));
        }
        prop_assert_eq!(seen, [Seen::Datagram(datagram)]);
        let counts = fragments.counts();
        prop_assert_eq!(counts.joined, parts.len() as u64);
        prop_assert_eq!(counts.duplicates, (order.len() - parts.len()) as u64);
        prop_assert_eq!(fragments.memory, 0);
    }

    #[test]
    fn any_overlap_refuses_the_datagram(
        (datagram, parts) in split(),
        which in any::<Index>(),
        start in any::<Index>(),
        length in 1..200_usize,
        place in any::<Index>(),
    ) {
        // The overlap begins inside a fragment, so that no other set of fragments is complete.
        let long: Vec<_> = parts.iter().filter(|(from, to)| to - from > 8).collect();
        prop_assume!(!long.is_empty());
        let (from, to) = *long[which.index(long.len())];
        let from = from + 8 * (1 + start.index((to - from - 1) / 8));
        let to = (from + 8 * length).min(datagram.len());
        let mut order = parts.clone();
        order.insert(place.index(order.len()), (from, to));
        let mut fragments = Config::default().build();
        let mut seen = Vec::new();
        for cut in &order {
            seen.extend(take(&mut fragments, &origin(1), &cut_out(&datagram, *cut)));
        }
        prop_assert!(matches!(seen[..], [Seen::Loss(FragmentLoss::Overlap, _)]), "{:?}", seen);
        prop_assert_eq!(counted(&fragments, FragmentLoss::Overlap), order.len() as u64);
    }

    #[test]
    fn any_fragments_are_accounted_for(
        parts in vec((0..4_u32, 0..20_u32, any::<bool>(), 0..40_usize, 0..9_000_000_000_u64), 0..200),
    ) {
        let config = Config { datagrams: 3, bytes: 600, fragments: 5, ..Config::default() };
        let mut fragments = config.build();
        let mut at_ns = 0;
        for (identification, unit, more, length, pause) in parts {
            at_ns += pause;
            let data = vec![0; length];
            take(&mut fragments, &origin(at_ns), &part(identification, unit * 8, more, &data));
            fragments.expire(at_ns, |_| {});
            let counts = fragments.counts();
            prop_assert_eq!(counts.accounted(), counts.received);
            prop_assert!(fragments.memory <= 600);
        }
        fragments.finish(|_| {});
        prop_assert_eq!((fragments.counts().waiting, fragments.memory), (0, 0));
    }
}

#[test]
fn many_fragments_in_the_worst_order_stay_within_the_stated_cost() {
    let mut fragments = Config::default().build();
    let count = u32::try_from(Config::default().fragments).unwrap();
    // Fragments of 8 bytes, the last first, of all datagrams at once: each moves all entries before
    // it.
    for offset in (0..count).rev() {
        for datagram in 0..200 {
            take(
                &mut fragments,
                &origin(1),
                &part(datagram, offset * 8, offset + 1 < count, &[7; 8]),
            );
        }
    }
    assert_eq!(fragments.counts().datagrams, 200);
    let steps = fragments.counts().steps;
    assert!(steps > u64::from(count) * 200 * 50, "this is no worst case: {steps}");
    // Exceed the maximum number of datagrams; then all of them time out at once.
    for datagram in 0..10_000 {
        take(&mut fragments, &origin(2), &part(datagram, 8, true, &[7; 8]));
        fragments.expire(2, |_| panic!("nothing is due"));
    }
    fragments.expire(100_000_000_000, |_| {});
    let counts = fragments.counts();
    assert_eq!(counts.waiting, 0);
    assert!(counts.steps - steps <= 10_000 * 4, "{counts:?}");
}

#[test]
fn datagrams_that_differ_in_rare_fields_do_not_share_a_bucket() {
    use crate::{Tunnel, TunnelKind};

    let mut fragments = Config::default().build();
    for number in 0..4_000 {
        let tunnel = Tunnel { kind: TunnelKind::Vxlan, id: Some(number >> 4) };
        let origin = Origin { tunnel: Some(tunnel), ..origin(1) };
        let protocol = u8::try_from(number & 15).unwrap();
        let part = Part { protocol, ..part(7, 8, true, &[7; 8]) };
        take(&mut fragments, &origin, &part);
    }
    let counts = fragments.counts();
    assert_eq!(counts.waiting, 4_000);
    assert!(counts.steps < 2 * 4_000, "{counts:?}");
}
