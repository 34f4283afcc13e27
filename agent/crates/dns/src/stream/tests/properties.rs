use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::begins::{Verdict, judge},
    *,
};
use tcp_flags::{ACK, FIN, SYN};

/// The messages of one side, and their segments.
#[derive(Clone, Debug)]
struct Speech {
    who: Who,
    messages: Vec<Vec<u8>>,
    stream: Vec<u8>,
    /// Start and length of each segment; together they cover all of the stream, and parts of it
    /// twice.
    segments: Vec<(usize, usize)>,
}

/// Messages of all sizes, including some that are too short.
fn messages(who: Who) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![8 => 24..120_usize, 2 => 120..5_000_usize, 1 => 0..12_usize];
    vec(size, 0..12).prop_map(move |sizes| {
        let of_size = |(size, number): (usize, u16)| {
            let mut message = message(number, who == Server, size);
            message.truncate(size);
            message
        };
        sizes.into_iter().zip(1..).map(of_size).collect()
    })
}

fn speech(who: Who) -> impl Strategy<Value = Speech> {
    let cuts = vec(any::<Index>(), 0..30);
    let again = vec((any::<Index>(), any::<Index>()), 0..8);
    (messages(who), cuts, again).prop_map(move |(messages, cuts, again)| {
        let stream = framed(&messages);
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.extend([0, stream.len()]);
        ends.sort_unstable();
        let mut segments: Vec<_> = ends.windows(2).map(|ends| (ends[0], ends[1])).collect();
        for (from, to) in again {
            let (from, to) = (from.index(stream.len() + 1), to.index(stream.len() + 1));
            segments.push((from.min(to), from.max(to)));
        }
        Speech { who, messages, stream, segments }
    })
}

/// A captured conversation: for each segment its side, its position, and whether it is missing.
#[derive(Clone, Debug)]
struct Conversation {
    speeches: [Speech; 2],
    captured: Vec<(usize, usize, usize)>,
}

fn conversation() -> impl Strategy<Value = Conversation> {
    (speech(Client), speech(Server)).prop_flat_map(|(client, server)| {
        let all = |which: usize, speech: &Speech| -> Vec<_> {
            speech.segments.iter().map(|(from, to)| (which, *from, *to)).collect()
        };
        let captured = [all(0, &client), all(1, &server)].concat();
        let speeches = [client, server];
        Just(captured)
            .prop_shuffle()
            .prop_map(move |captured| Conversation { speeches: speeches.clone(), captured })
    })
}

/// Returns the valid messages.
fn expected(speech: &Speech) -> Vec<Vec<u8>> {
    speech.messages.iter().filter(|message| message.len() >= 12).cloned().collect()
}

fn is_subsequence(part: &[Vec<u8>], whole: &[Vec<u8>]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|message| rest.any(|other| other == message))
}

/// Marks the bytes of a stream that were captured.
struct Came(Vec<bool>);

impl Came {
    fn without_gap(&self) -> usize {
        self.0.iter().position(|came| !came).unwrap_or(self.0.len())
    }
}

/// A segment: side, sequence number, acknowledgement number, flags, payload.
type Sent = (usize, u32, u32, u8, Vec<u8>);

/// Returns a whole connection as it was sent; each side acknowledges the data that has reached it.
fn sent(talk: &Conversation, closing: bool) -> Vec<Sent> {
    let first = |which: usize| ISN[which].wrapping_add(1);
    let mut sent = vec![
        (0, ISN[0], 0, SYN, Vec::new()),
        (1, ISN[1], first(0), SYN | ACK, Vec::new()),
        (0, first(0), first(1), ACK, Vec::new()),
    ];
    let mut ordered = talk.captured.clone();
    ordered.sort_by_key(|(_, from, to)| (*from, *to));
    let mut reached = [0, 0];
    for (which, from, to) in ordered {
        let position =
            |which: usize, at: usize| first(which).wrapping_add(u32::try_from(at).unwrap());
        let payload = talk.speeches[which].stream[from..to].to_vec();
        sent.push((
            which,
            position(which, from),
            position(1 - which, reached[1 - which]),
            ACK,
            payload,
        ));
        reached[which] = reached[which].max(to);
        let heard = position(which, reached[which]);
        sent.push((1 - which, position(1 - which, reached[1 - which]), heard, ACK, Vec::new()));
    }
    if closing {
        let end = |which: usize, fins: u32| {
            let length = u32::try_from(talk.speeches[which].stream.len()).unwrap();
            first(which).wrapping_add(length + fins)
        };
        sent.push((0, end(0, 0), end(1, 0), FIN | ACK, Vec::new()));
        sent.push((1, end(1, 0), end(0, 1), FIN | ACK, Vec::new()));
        sent.push((0, end(0, 1), end(1, 1), ACK, Vec::new()));
    }
    sent
}

proptest! {
    #[test]
    fn any_order_and_overlap_gives_the_messages_of_each_side(talk in conversation()) {
        let mut tap = Tap::connected(Config { stream_bytes: 1 << 20, ..Config::default() });
        let mut came = talk.speeches.clone().map(|speech| Came(vec![false; speech.stream.len()]));
        for (which, from, to) in talk.captured {
            let speech = &talk.speeches[which];
            came[which].0[from..to].fill(true);
            // No receiver acknowledges more than has arrived.
            let others = u32::try_from(came[1 - which].without_gap()).unwrap();
            let sequence = ISN[which].wrapping_add(1 + u32::try_from(from).unwrap());
            let acknowledgement = ISN[1 - which].wrapping_add(1 + others);
            tap.send(speech.who, sequence, acknowledgement, ACK, &speech.stream[from..to]);
        }
        for speech in &talk.speeches {
            prop_assert_eq!(tap.messages(speech.who), expected(speech));
        }
        prop_assert_eq!(tap.losses(), []);
        prop_assert_eq!(tap.streams.memory, 0);
        let counts = tap.counts();
        prop_assert_eq!((counts.gaps, counts.bytes_waiting), (0, 0));
        tap.finish();
    }

    #[test]
    fn messages_in_spite_of_losses_were_sent(
        talk in conversation(),
        missing in vec(any::<bool>(), 0..80),
        acknowledging in vec(any::<bool>(), 0..80),
        stream_bytes in 0..20_000_usize,
        pauses in vec(0..2_000_u64, 0..80),
        closing in any::<bool>(),
    ) {
        let mut tap = Tap::connected(Config { stream_bytes, ..Config::default() });
        for (place, (which, from, to)) in talk.captured.iter().copied().enumerate() {
            let speech = &talk.speeches[which];
            tap.at_ns += pauses.get(place).map_or(0, |pause| pause * MS);
            if !missing.get(place).unwrap_or(&false) {
                tap.data(speech.who, from, &speech.stream[from..to]);
            }
            if *acknowledging.get(place).unwrap_or(&false) {
                // The receiver has it, whether it was captured or not.
                tap.acknowledge(talk.speeches[1 - which].who, to);
            }
            tap.expire();
            prop_assert!(tap.streams.memory <= 2 * (stream_bytes + 65_537));
        }
        if closing {
            for (which, speech) in talk.speeches.iter().enumerate() {
                let end = u32::try_from(speech.stream.len()).unwrap();
                tap.send(speech.who, ISN[which].wrapping_add(1 + end), 0, FIN, &[]);
            }
        }
        tap.finish();
        for speech in &talk.speeches {
            let found = tap.messages(speech.who);
            prop_assert!(is_subsequence(&found, &expected(speech)), "{:?}", tap.seen);
        }
        let lost: u64 = tap.counts().bytes_lost.iter().sum();
        let short = tap.lost(StreamLoss::ShorterThanHeader);
        // Losses are reported, except for a single gap's.
        prop_assert!(lost == short || !tap.losses().is_empty());
    }

    #[test]
    fn directions_with_different_delays_yield_the_messages_of_each_side(
        talk in conversation(),
        behind in vec(any::<bool>(), 0..300),
        pauses in vec(0..2_000_u64, 0..80),
        closing in any::<bool>(),
    ) {
        let sent = sent(&talk, closing);
        // Each side is in order, and one of them is delayed as far as possible.
        let mut queues = [0, 1].map(|which| {
            sent.iter().filter(|segment| segment.0 == which).collect::<VecDeque<_>>()
        });
        let mut tap = Tap::new(Config::default());
        let mut turns = behind.into_iter().map(usize::from);
        let mut pauses = pauses.into_iter();
        while let Some(turn) = turns.next().or_else(|| queues.iter().position(|queue| !queue.is_empty())) {
            if let Some((which, sequence, acknowledgement, flags, payload)) = queues[turn].pop_front() {
                let who = talk.speeches[*which].who;
                tap.at_ns += pauses.next().map_or(0, |pause| pause * MS / 1_000);
                tap.send(who, *sequence, *acknowledgement, *flags, payload);
            }
        }
        for speech in &talk.speeches {
            prop_assert_eq!(tap.messages(speech.who), expected(speech));
        }
        tap.finish();
        let counts = tap.counts();
        prop_assert_eq!((counts.gaps, counts.bytes_missing, counts.synchronisations), (0, 0, 0));
        let lost: u64 = counts.bytes_lost.iter().sum();
        prop_assert_eq!(lost, tap.lost(StreamLoss::ShorterThanHeader));
    }

    #[test]
    fn a_stream_from_before_the_capture_yields_the_sent_messages(talk in conversation(), first in 0..30_usize) {
        let mut tap = Tap::new(Config::default());
        let mut captured = talk.captured;
        captured.sort_by_key(|(_, _, to)| *to);
        for (which, from, to) in captured.into_iter().skip(first) {
            let speech = &talk.speeches[which];
            tap.data(speech.who, from, &speech.stream[from..to]);
        }
        tap.finish();
        for speech in &talk.speeches {
            prop_assert!(is_subsequence(&tap.messages(speech.who), &expected(speech)));
        }
    }

    #[test]
    fn a_message_is_recognised_wherever_it_is_cut(
        size in 24..400_usize,
        cut in any::<Index>(),
        response in any::<bool>(),
    ) {
        let stream = framed(&[message(7, response, size)]);
        let cut = cut.index(stream.len() + 1);
        prop_assert_ne!(judge(&stream[..cut], &mut 0), Verdict::Refused);
    }

    #[test]
    fn random_bytes_are_no_message(bytes in vec(any::<u8>(), 300..400)) {
        prop_assert_eq!(judge(&bytes, &mut 0), Verdict::Refused);
    }
}
