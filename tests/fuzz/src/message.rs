//! Target `message`.

use std::cell::RefCell;

use tap53_dns::{Kept, Message, ParseStatus};

use super::record::require_bounded;

/// Bytes of text that a message keeps at most, and what reading it may take beyond: the last entry
/// is given up once it is over the limit.
const TEXT_LIMIT: usize = 64 << 10;

/// Work that the entry which reaches the limit may add to it, octets of text.
const LAST_ENTRY_WORK: usize = 6 << 10;

/// Memory that reading a message of 64 KiB may take, bytes: text, octets, and an entry for each
/// record, of which 65,535 bytes hold less than 6,000 (11 bytes each).
const BUFFER_LIMIT: usize = 4 << 20;

/// Reads `wire` as a DNS message.
///
/// # Panics
/// When the decoded message contradicts itself or the bytes.
pub fn message(wire: &[u8]) {
    thread_local! {
        static REUSED: RefCell<Message> = RefCell::default();
    }
    for kept in [Kept::All, Kept::Answers] {
        let Some(fresh) = Message::parse_keeping(wire, kept) else {
            assert!(wire.len() < Message::HEADER_SIZE, "a header is enough to make a message");
            return;
        };
        // Nothing of an earlier message in the buffers is visible.
        REUSED.with_borrow_mut(|reused| {
            assert!(reused.read(wire, kept));
            assert!(*reused == fresh, "read into used buffers: {reused:?}, new: {fresh:?}");
        });
        require_sense(&fresh, wire, kept);
    }
}

fn require_sense(fresh: &Message, wire: &[u8], kept: Kept) {
    assert_eq!(fresh.size as usize, wire.len());
    assert_eq!(fresh.id.to_be_bytes(), wire[..2]);
    require_counts(fresh, kept);
    require_text(fresh);
    require_bounded(fresh, wire);
    require_bounded_work(fresh);
    assert!(fresh.buffer_bytes() <= BUFFER_LIMIT, "{} bytes of buffers", fresh.buffer_bytes());
    require_that_a_byte_less_is_noticed(fresh, wire, kept);
}

/// No more entries than the header announces, and all of them where nothing is wrong.
fn require_counts(message: &Message, kept: Kept) {
    let questions = message.more_questions().len()
        + usize::from(message.question().is_some())
        + message.questions_omitted as usize;
    let answers = message.answers().len() + message.answers_omitted as usize;
    let [announced_questions, announced_answers, announced_authorities, announced_additionals] =
        message.counts.map(usize::from);
    assert!(questions <= announced_questions);
    assert!(message.answers().len() <= announced_answers);
    assert!(message.updates().len() + message.authorities().len() <= announced_authorities);
    assert!(message.additionals().len() <= announced_additionals);
    let after_questions = announced_answers + announced_authorities + announced_additionals;
    assert!(answers <= after_questions, "{answers} answers");
    let is_whole = matches!(message.parse_status, ParseStatus::Ok | ParseStatus::TrailingBytes);
    if is_whole && message.answers_omitted == 0 {
        assert_eq!(questions, announced_questions);
        assert_eq!(answers, announced_answers);
        if kept == Kept::All {
            let authorities = message.updates().len() + message.authorities().len();
            assert_eq!(authorities, announced_authorities);
        }
    }
}

/// Names are in lower case and printable, whatever their octets; the text is bounded.
fn require_text(message: &Message) {
    let mut length = 0;
    let require_name = |name: &str| {
        assert!(!name.is_empty(), "the root has a name");
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
        assert!(name == "." || !name.starts_with('.'), "{name:?}");
        // 255 octets, each an escape of four characters (RFC 1035 §2.3.4).
        assert!(name.len() <= 4 * 255, "{} characters", name.len());
    };
    message.question().iter().chain(&message.more_questions().collect::<Vec<_>>()).for_each(
        |question| {
            require_name(question.name);
        },
    );
    for record in message
        .answers()
        .chain(message.updates())
        .chain(message.authorities())
        .chain(message.additionals())
    {
        require_name(record.name);
        assert!(!record.rdata.chars().any(char::is_control), "{:?}", record.rdata);
        // Names that are equal share their text, so that only the longest counts for sure.
        length = length.max(record.rdata.len());
    }
    assert!(length <= TEXT_LIMIT, "{length} characters");
}

/// Checks that no message costs more than its length allows, whatever its content.
fn require_bounded_work(message: &Message) {
    let (work, length) = (message.work() as usize, message.size as usize);
    let limit = Message::work_limit(length) + LAST_ENTRY_WORK;
    assert!(work <= limit, "{work} octets of text for a message of {length}");
}

/// A message that is whole is not whole without its last byte.
fn require_that_a_byte_less_is_noticed(message: &Message, wire: &[u8], kept: Kept) {
    if message.parse_status != ParseStatus::Ok || wire.len() == Message::HEADER_SIZE {
        return;
    }
    let shorter = Message::parse_keeping(&wire[..wire.len() - 1], kept);
    let status = shorter.map(|message| message.parse_status);
    assert_ne!(status, Some(ParseStatus::Ok), "a byte less makes no difference");
}
