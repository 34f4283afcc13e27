//! Selects the part of a transaction that its record contains.
//!
//! A message of 64 KiB can repeat a long name thousands of times by compression (RFC 1035 §4.1.4);
//! written out, it is a hundred times as long, and exceeds the limit of brokers. So
//! `record.max_bytes` limits the Avro datum of a record. Entries that do not fit are left out and
//! counted in the record; the record itself is always written.
//!
//! - The limit is applied before encoding: every encoding of a record contains the same entries.
//! - Nearly all records are far below the limit, which an upper bound from a few lengths shows.
//!   Only the others are measured.
//! - Each message gets half of the space, and the part that the other one does not need: a server
//!   cannot displace the content of its client's query, nor the other way round.
//! - The order within a message: the text of an extended error, the name server's identifier, the
//!   original bytes, questions, answers or prerequisites and updates, EDNS options, authority and
//!   additional records. Of each list the first entries that fit are written.
//! - An entry counts with its size before or after the privacy rules, whichever is larger, so that
//!   the same limit bounds the work of applying them.

use tap53_dns::Answer;
use tap53_transactions::{pair::Observation, privacy::Policy};

use super::{
    Profile, Record,
    binary::{Binary, Buffer, Encodable, encoded_size},
    flat::{FlatRecord, line_length},
    item::{Item, Shown, Update},
    record::resolves,
};

/// Default limit of a record's datum in bytes: a quarter of the brokers' default
/// (`message.max.bytes`, 1,048,588), since records share a batch. A message of 64 KiB with 4,000
/// addresses takes some 180 KB, so that ordinary responses are complete.
pub const DEFAULT_MAX_BYTES: usize = 256 * 1_024;

/// Minimum of the limit in bytes: the mandatory fields take at most some 45 KiB, which are two
/// owners with [`Owner::MAX_BYTES`](super::Owner), and [`FIXED_BYTES`].
pub const LEAST_MAX_BYTES: usize = 64 * 1_024;

/// Maximum size of the mandatory fields besides the owners, in bytes: names of node and interface
/// (253 each), the queried name and its registrable domain (1,004 characters each, and 35 that a
/// pseudonym adds), addresses, mnemonics and numbers.
const FIXED_BYTES: usize = 8 * 1_024;

/// Maximum size of an entry besides its RDATA or data, in bytes: an owner of 1,004 characters with
/// a pseudonym, type, class, TTL and lengths.
const ENTRY_BYTES: usize = 1_100;

/// Maximum factor by which the privacy rules lengthen RDATA: `0.ip6.int` becomes `h:…(32
/// digits).ip6.int`.
const RDATA_GROWTH: usize = 5;

/// Size of a length of text and bytes: a varint of at most three bytes, and the branch of an
/// optional.
const LENGTH_BYTES: usize = 4;

/// Size of the counts before and after the entries of each list, in the flat profile of its text's
/// length and its number of lines, and of the counts of omitted entries, which take one byte each
/// in the bare record.
const COUNTS_BYTES: usize = 80;

/// The part of a transaction that its record contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    pub(super) query: MessagePortion,
    pub(super) response: MessagePortion,
    pub(super) omitted: Omitted,
}

/// The part of a message that a record contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessagePortion {
    pub(super) error_text: bool,
    pub(super) nsid: bool,
    pub(super) wire: bool,
    /// The number of leading entries of each list.
    pub(super) questions: usize,
    pub(super) answers: usize,
    pub(super) authorities: usize,
    pub(super) additionals: usize,
    pub(super) prerequisites: usize,
    pub(super) updates: usize,
    pub(super) options: usize,
}

/// The number of entries that a record leaves out of either message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Omitted {
    pub(super) questions: u32,
    /// Answers, authority and additional records, prerequisites and updates.
    pub(super) answers: u32,
    /// EDNS options, texts of extended errors and name server identifiers.
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

    /// Only the mandatory fields.
    const BARE: Self =
        Self { query: MessagePortion::NONE, response: MessagePortion::NONE, ..Self::ALL };

    /// Returns the part of the transaction whose datum takes at most `max_bytes`.
    #[cold]
    fn within(record: &Record<'_>, max_bytes: usize, profile: Profile) -> Self {
        let bare = Record { portion: &Self::BARE, ..*record };
        let bare = match profile {
            Profile::Full => encoded_size(&bare),
            Profile::Flat => encoded_size(&FlatRecord(&bare)),
        };
        let space = max_bytes.saturating_sub(bare + COUNTS_BYTES);
        let (query, response) = (record.transaction.query(), record.transaction.response());
        let policy = record.policy;
        let none = Selection::new(usize::MAX, profile);
        let of_query = |space| {
            let selection = Selection::new(space, profile);
            query.map_or(none, |seen| selection.of_query(seen, policy))
        };
        let of_response = |space| {
            // The question of a response replaces that of a query that was not captured.
            let with_question = query.is_none();
            let selection = Selection::new(space, profile);
            response.map_or(none, |seen| selection.of_response(seen, policy, with_question))
        };
        let (mut both, half) = ([of_query(space), of_response(space)], space / 2);
        let needs = both.map(|selection| selection.needs(space));
        if needs[0] + needs[1] > space {
            let share =
                if needs[0] <= half { needs[0] } else { half.max(space - needs[1].min(space)) };
            both = [of_query(share), of_response(space - share)];
        }
        let [query, response] = both;
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
        authorities: usize::MAX,
        additionals: usize::MAX,
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
        authorities: 0,
        additionals: 0,
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
    /// Limits the record to `max_bytes` of datum in the full profile. If it does not fit, `portion`
    /// stores the part that does.
    #[must_use]
    pub fn within(self, max_bytes: usize, portion: &'a mut Option<Portion>) -> Self {
        self.within_as(Profile::Full, max_bytes, portion)
    }

    /// Limits the record like [`Self::within`], in the given profile.
    #[must_use]
    pub fn within_as(
        mut self,
        profile: Profile,
        max_bytes: usize,
        portion: &'a mut Option<Portion>,
    ) -> Self {
        self.limit(profile, max_bytes, portion);
        self
    }

    /// Limits the record like [`Self::within`], in the given profile and without a copy of it.
    #[inline]
    pub fn limit(&mut self, profile: Profile, max_bytes: usize, portion: &'a mut Option<Portion>) {
        if self.most_bytes(profile) > max_bytes {
            self.portion = portion.insert(Portion::within(self, max_bytes, profile));
        }
    }

    /// Returns an upper bound of the datum's size, from a few lengths.
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

/// Returns the written size of octets: two digits each in the flat profile.
const fn as_written(octets: usize, profile: Profile) -> usize {
    match profile {
        Profile::Full => octets,
        Profile::Flat => 2 * octets,
    }
}

/// The selected part of a message, and the space that is left.
#[derive(Clone, Copy)]
struct Selection {
    profile: Profile,
    portion: MessagePortion,
    omitted: Omitted,
    left: usize,
}

impl Selection {
    const fn new(space: usize, profile: Profile) -> Self {
        let omitted = Portion::ALL.omitted;
        Self { profile, portion: MessagePortion::NONE, omitted, left: space }
    }

    /// Returns how much of `space` the message needs, in bytes: all of it if something does not fit.
    fn needs(&self, space: usize) -> usize {
        if self.omitted == Omitted::default() { space.saturating_sub(self.left) } else { space }
    }

    fn of_query(self, seen: &Observation, policy: &Policy) -> Self {
        let mut selection = self;
        selection.single_values(seen, policy);
        selection.questions(seen, policy);
        let message = &seen.message;
        let shown = |it| Shown(policy, Update(it));
        selection.portion.prerequisites = selection.first_records(message.prerequisites(), shown);
        selection.portion.updates = selection.first_records(message.updates(), shown);
        selection.options(seen, policy);
        // The record does not contain them, but the output of single messages does: known answers
        // (RFC 6762 §7.1).
        selection.portion.answers = selection.first_answers(seen, policy);
        selection
    }

    fn of_response(self, seen: &Observation, policy: &Policy, with_question: bool) -> Self {
        let mut selection = self;
        selection.single_values(seen, policy);
        if with_question {
            selection.questions(seen, policy);
        }
        let total = seen.message.answers().len();
        selection.portion.answers = selection.first_answers(seen, policy);
        selection.omitted.answers += omitted(total, selection.portion.answers);
        selection.options(seen, policy);
        let shown = |it| Shown(policy, it);
        selection.portion.authorities = selection.first_records(seen.message.authorities(), shown);
        selection.portion.additionals = selection.first_records(seen.message.additionals(), shown);
        selection
    }

    /// Selects the text of an extended error, the name server's identifier, and the original bytes.
    fn single_values(&mut self, seen: &Observation, policy: &Policy) {
        let edns = seen.message.edns();
        let error = edns.and_then(|edns| edns.extended_error);
        let text = error.and_then(|error| policy.error_text(error.text));
        self.portion.error_text = text.is_none_or(|text| self.reserve(LENGTH_BYTES + text.len()));
        let nsid = edns.and_then(|edns| edns.nsid).filter(|nsid| policy.shows_nsid(nsid));
        self.portion.nsid = nsid.is_none_or(|nsid| self.reserve_octets(nsid.len()));
        self.portion.wire = seen.wire.is_empty() || self.reserve_octets(seen.wire.len());
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

    /// Selects the first records of a section, as they are `shown`.
    fn first_records<'a, I: Item>(
        &mut self,
        records: impl ExactSizeIterator<Item = Answer<'a>>,
        shown: impl Fn(Answer<'a>) -> I,
    ) -> usize {
        let total = records.len();
        let count = self.first_of(records.map(|it| (it.name.len() + it.rdata.len(), shown(it))));
        self.omitted.answers += omitted(total, count);
        count
    }

    fn first_answers(&mut self, seen: &Observation, policy: &Policy) -> usize {
        let answers = seen.message.answers();
        let items = answers.map(|it| (it.name.len() + it.rdata.len(), it));
        items
            .take_while(|(raw, answer)| {
                // An address is written once more, in `resolved_addresses`.
                let again = if resolves(answer) { LENGTH_BYTES + answer.rdata.len() } else { 0 };
                let measured = self.encoded_size(&Shown(policy, *answer)).max(*raw);
                *raw <= self.left && self.reserve(measured + again)
            })
            .count()
    }

    fn options(&mut self, seen: &Observation, policy: &Policy) {
        let Some(edns) = seen.message.edns() else { return };
        let shown = || edns.options().filter(|(code, _)| policy.shows_option(*code));
        self.portion.options = self.first_of(shown().map(|it| (it.1.len(), it)));
        self.omitted.options += omitted(shown().count(), self.portion.options);
    }

    /// Selects the first `items` that fit, each given with its size before the privacy rules;
    /// returns their number.
    fn first_of<I: Item>(&mut self, items: impl Iterator<Item = (usize, I)>) -> usize {
        items
            .take_while(|(raw, item)| {
                // An item that is too long before the rules need not be measured.
                *raw <= self.left && self.reserve(self.encoded_size(item).max(*raw))
            })
            .count()
    }

    /// Returns the size of a list's entry in bytes.
    fn encoded_size(&self, item: &impl Item) -> usize {
        match self.profile {
            Profile::Full => encoded_size(&SingleItem(item)),
            // It is followed by a line feed.
            Profile::Flat => line_length(item) + 1,
        }
    }

    /// Reserves space for octets in a field of their own.
    const fn reserve_octets(&mut self, octets: usize) -> bool {
        self.reserve(LENGTH_BYTES + as_written(octets, self.profile))
    }

    /// Reserves space of `bytes`; returns false, and reserves none, if there is less.
    const fn reserve(&mut self, bytes: usize) -> bool {
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

/// A single item of a list.
struct SingleItem<'a, I>(&'a I);

impl<I: Item> Encodable for SingleItem<'_, I> {
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.0.fields(out);
    }
}
