//! The part of a transaction that its record holds.
//!
//! A message of 64 KiB can say the same long name thousands of times by compression (RFC 1035
//! §4.1.4); written out, it is a hundred times as long, and longer than a broker takes. So a record
//! has a limit, `record.max_bytes`, for its Avro datum. What does not fit is left out and counted in
//! the record; the record is always written.
//!
//! - The limit is applied before any encoding: every encoding of a record holds the same entries.
//! - Nearly all records are far below the limit, which a bound computed from a few lengths says.
//!   Only the others are measured.
//! - Either message gets half of the room, and what the other one does not need: a server cannot
//!   push out what its client sent, nor the other way round.
//! - Within a message: the text of an extended error, the name server's identifier, the bytes as
//!   sent, questions, answers or prerequisites and updates, EDNS options. Of each list the first
//!   entries that fit.
//! - An entry counts with its bytes before and after the privacy rules, whichever are more, so that
//!   the work of applying them is bounded by the same limit.

use tap53_dns::Answer;
use tap53_transactions::{pair::Observation, privacy::Policy};

use super::{
    Profile, Record,
    binary::{Binary, Buffer, Written, measured},
    flat::{FlatRecord, line_length},
    value::{Item, Shown, Update},
};

/// The limit of a record's datum, unless the configuration says otherwise: a quarter of what brokers
/// take by default (`message.max.bytes`, 1,048,588), since records share a batch. A message of
/// 64 KiB with 4,000 addresses takes some 180 KB, so that ordinary answers are whole.
pub const DEFAULT_MAX_BYTES: usize = 256 * 1_024;

/// The least limit: all that is always written takes at most some 45 KiB, which is two owners with
/// [`Owner::MAX_BYTES`](super::Owner), and [`FIXED_BYTES`].
pub const LEAST_MAX_BYTES: usize = 64 * 1_024;

/// Bytes of what is always written, beside the owners, at most: names of node and interface (253
/// each), the name asked for and its registrable domain (1,004 characters each, and 35 that a
/// pseudonym adds), addresses, mnemonics and numbers.
const FIXED_BYTES: usize = 8 * 1_024;

/// Bytes of an entry at most, beside its RDATA or data: an owner of 1,004 characters with a
/// pseudonym, type, class, TTL and lengths.
const ENTRY_BYTES: usize = 1_100;

/// By how much the privacy rules lengthen RDATA at most: `0.ip6.int` becomes `h:…(32 digits).ip6.int`.
const RDATA_GROWTH: usize = 5;

/// Lengths of text and bytes: varints of at most three bytes, and the branch of an optional.
const LENGTH_BYTES: usize = 4;

/// Counts before and after the entries of each list, in the flat profile the length of its text and
/// the number of its lines, and counts of what is left out, which the bare record has in one byte
/// each.
const COUNTS_BYTES: usize = 64;

/// The part of a transaction that its record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    pub(super) query: MessagePortion,
    pub(super) response: MessagePortion,
    pub(super) omitted: Omitted,
}

/// The part of a message that a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessagePortion {
    pub(super) error_text: bool,
    pub(super) nsid: bool,
    pub(super) wire: bool,
    /// The first of each list.
    pub(super) questions: usize,
    pub(super) answers: usize,
    pub(super) prerequisites: usize,
    pub(super) updates: usize,
    pub(super) options: usize,
}

/// What a record leaves out of either message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Omitted {
    pub(super) questions: u32,
    /// Of answers, prerequisites and updates.
    pub(super) answers: u32,
    /// Texts of extended errors and name server identifiers included.
    pub(super) options: u32,
    pub(super) wires: u32,
}

impl Portion {
    /// The whole transaction.
    pub const ALL: Self = Self {
        query: MessagePortion::ALL,
        response: MessagePortion::ALL,
        omitted: Omitted { questions: 0, answers: 0, options: 0, wires: 0 },
    };

    /// Nothing but what is always there.
    const BARE: Self =
        Self { query: MessagePortion::NONE, response: MessagePortion::NONE, ..Self::ALL };

    /// The part of a transaction whose datum has at most `max_bytes`.
    #[cold]
    fn within(record: &Record<'_>, max_bytes: usize, profile: Profile) -> Self {
        let bare = Record { portion: &Self::BARE, ..*record };
        let bare = match profile {
            Profile::Full => measured(&bare),
            Profile::Flat => measured(&FlatRecord(&bare)),
        };
        let room = max_bytes.saturating_sub(bare + COUNTS_BYTES);
        let (query, response) = (record.transaction.query(), record.transaction.response());
        let policy = record.policy;
        let none = Selection::new(usize::MAX, profile);
        let of_query = |room| {
            let selection = Selection::new(room, profile);
            query.map_or(none, |seen| selection.of_query(seen, policy))
        };
        let of_response = |room| {
            // The question of a response stands in for that of a query that was not seen.
            let asks = query.is_none();
            let selection = Selection::new(room, profile);
            response.map_or(none, |seen| selection.of_response(seen, policy, asks))
        };
        let (mut of_both, half) = ([of_query(room), of_response(room)], room / 2);
        let needs = of_both.map(|selection| selection.needs(room));
        if needs[0] + needs[1] > room {
            let share =
                if needs[0] <= half { needs[0] } else { half.max(room - needs[1].min(room)) };
            of_both = [of_query(share), of_response(room - share)];
        }
        let [query, response] = of_both;
        Self {
            query: query.portion,
            response: response.portion,
            omitted: query.omitted + response.omitted,
        }
    }
}

impl MessagePortion {
    const ALL: Self = Self {
        error_text: true,
        nsid: true,
        wire: true,
        questions: usize::MAX,
        answers: usize::MAX,
        prerequisites: usize::MAX,
        updates: usize::MAX,
        options: usize::MAX,
    };

    const NONE: Self = Self {
        error_text: false,
        nsid: false,
        wire: false,
        questions: 0,
        answers: 0,
        prerequisites: 0,
        updates: 0,
        options: 0,
    };
}

impl std::ops::Add for Omitted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            questions: self.questions + other.questions,
            answers: self.answers + other.answers,
            options: self.options + other.options,
            wires: self.wires + other.wires,
        }
    }
}

impl<'a> Record<'a> {
    /// The record with as much of its transaction as `max_bytes` of datum hold in the full profile;
    /// `portion` is where that is written down, where it is not all.
    #[inline]
    #[must_use]
    pub fn within(self, max_bytes: usize, portion: &'a mut Portion) -> Self {
        self.within_as(Profile::Full, max_bytes, portion)
    }

    /// As [`Self::within`], in the profile that it is written in.
    #[inline]
    #[must_use]
    pub fn within_as(self, profile: Profile, max_bytes: usize, portion: &'a mut Portion) -> Self {
        if self.most_bytes(profile) <= max_bytes {
            return self;
        }
        *portion = Portion::within(&self, max_bytes, profile);
        Self { portion, ..self }
    }

    /// A bound of the datum's size, from a few lengths.
    #[inline]
    pub(super) fn most_bytes(&self, profile: Profile) -> usize {
        let of_message = |seen: &Observation| {
            seen.message.entries() * ENTRY_BYTES
                + seen.message.content_bytes() * RDATA_GROWTH
                + as_written(seen.wire.len(), profile)
        };
        FIXED_BYTES
            + self.client.encoded(profile).len()
            + self.server.encoded(profile).len()
            + self.transaction.query().map_or(0, of_message)
            + self.transaction.response().map_or(0, of_message)
    }
}

/// Bytes that so many octets take: two digits each in the flat profile.
const fn as_written(octets: usize, profile: Profile) -> usize {
    match profile {
        Profile::Full => octets,
        Profile::Flat => 2 * octets,
    }
}

/// What is taken of a message, and what that leaves of the room.
#[derive(Clone, Copy)]
struct Selection {
    profile: Profile,
    portion: MessagePortion,
    omitted: Omitted,
    left: usize,
}

impl Selection {
    const fn new(room: usize, profile: Profile) -> Self {
        let omitted = Portion::ALL.omitted;
        Self { profile, portion: MessagePortion::NONE, omitted, left: room }
    }

    /// Bytes of `room` that the message needs: all of it where something does not fit.
    fn needs(&self, room: usize) -> usize {
        if self.omitted == Omitted::default() { room.saturating_sub(self.left) } else { room }
    }

    fn of_query(self, seen: &Observation, policy: &Policy) -> Self {
        let mut selection = self;
        selection.single_values(seen, policy);
        selection.questions(seen, policy);
        let message = &seen.message;
        let prerequisites = message.prerequisites();
        selection.portion.prerequisites = selection.first_updates(prerequisites, policy);
        selection.portion.updates = selection.first_updates(message.updates(), policy);
        selection.options(seen, policy);
        // Not in the record, but where each message is shown by itself: known answers (RFC 6762 §7.1).
        selection.portion.answers = selection.first_answers(seen, policy);
        selection
    }

    fn of_response(self, seen: &Observation, policy: &Policy, asks: bool) -> Self {
        let mut selection = self;
        selection.single_values(seen, policy);
        if asks {
            selection.questions(seen, policy);
        }
        let total = seen.message.answers().len();
        selection.portion.answers = selection.first_answers(seen, policy);
        selection.omitted.answers += omitted(total, selection.portion.answers);
        selection.options(seen, policy);
        selection
    }

    /// The text of an extended error, the name server's identifier, and the bytes as sent.
    fn single_values(&mut self, seen: &Observation, policy: &Policy) {
        let edns = seen.message.edns();
        let error = edns.and_then(|edns| edns.extended_error);
        let text = error.and_then(|error| policy.error_text(error.text));
        self.portion.error_text = text.is_none_or(|text| self.has_room(LENGTH_BYTES + text.len()));
        let nsid = edns.and_then(|edns| edns.nsid).filter(|nsid| policy.shows_nsid(nsid));
        self.portion.nsid = nsid.is_none_or(|nsid| self.has_room_for(nsid.len()));
        self.portion.wire = seen.wire.is_empty() || self.has_room_for(seen.wire.len());
        self.omitted.options += u32::from(!self.portion.error_text) + u32::from(!self.portion.nsid);
        self.omitted.wires += u32::from(!self.portion.wire);
    }

    fn questions(&mut self, seen: &Observation, policy: &Policy) {
        let questions = seen.message.more_questions();
        let total = questions.len();
        let questions = questions.map(|it| (it.name.len(), Shown(policy, it)));
        self.portion.questions = self.first_of(questions);
        self.omitted.questions += omitted(total, self.portion.questions);
    }

    /// Of a list of an UPDATE request.
    fn first_updates<'a>(
        &mut self,
        records: impl ExactSizeIterator<Item = Answer<'a>>,
        policy: &Policy,
    ) -> usize {
        let total = records.len();
        let records = records.map(|it| (it.name.len() + it.rdata.len(), Shown(policy, Update(it))));
        let taken = self.first_of(records);
        self.omitted.answers += omitted(total, taken);
        taken
    }

    fn first_answers(&mut self, seen: &Observation, policy: &Policy) -> usize {
        let answers = seen.message.answers();
        self.first_of(answers.map(|it| (it.name.len() + it.rdata.len(), Shown(policy, it))))
    }

    fn options(&mut self, seen: &Observation, policy: &Policy) {
        let Some(edns) = seen.message.edns() else { return };
        let shown = || edns.options().filter(|(code, _)| policy.shows_option(*code));
        self.portion.options = self.first_of(shown().map(|it| (it.1.len(), it)));
        self.omitted.options += omitted(shown().count(), self.portion.options);
    }

    /// Takes the first of `items`, each with its bytes before the privacy rules, as long as there is
    /// room; how many these are.
    fn first_of<I: Item>(&mut self, items: impl Iterator<Item = (usize, I)>) -> usize {
        items
            .take_while(|(raw, item)| {
                // What is too long as it is need not be looked at.
                *raw <= self.left && self.has_room(self.measured(item).max(*raw))
            })
            .count()
    }

    /// Bytes that an entry of a list takes.
    fn measured(&self, item: &impl Item) -> usize {
        match self.profile {
            Profile::Full => measured(&Alone(item)),
            // And a line feed.
            Profile::Flat => line_length(item) + 1,
        }
    }

    /// Takes the room of octets that have a field of their own.
    const fn has_room_for(&mut self, octets: usize) -> bool {
        self.has_room(LENGTH_BYTES + as_written(octets, self.profile))
    }

    /// Takes so many bytes of the room; false if there are not as many, and none is taken.
    const fn has_room(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

fn omitted(total: usize, shown: usize) -> u32 {
    u32::try_from(total.saturating_sub(shown)).unwrap_or(u32::MAX)
}

/// An item of a list by itself.
struct Alone<'a, I>(&'a I);

impl<I: Item> Written for Alone<'_, I> {
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.0.fields(out);
    }
}
