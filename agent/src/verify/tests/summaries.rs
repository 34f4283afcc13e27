//! Summaries that are altered, removed or exchanged, and their signatures.

use super::*;

/// Every bit of what a signature covers, and of the signature.
#[test]
fn every_flipped_bit_of_a_signed_summary_is_found() {
    let agent = Agent::whole(1, 0, 1);
    let records = agent.values();
    let mut summaries = agent.summaries.clone();
    // Also the last one, which no other follows.
    for position in [1, 3] {
        for bit in bits(80, 8 * summaries[position].len(), 23) {
            summaries[position][bit / 8] ^= 1 << (bit % 8);
            let report = verify(of_sink(with_key(PUBLIC)), &summaries, &records);
            assert!(!report.findings.is_empty(), "bit {bit} of summary {position}");
            summaries[position][bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Without a signature, the chain to the next summary and the records protect a summary.
#[test]
fn every_flipped_bit_of_an_unsigned_summary_that_another_follows_is_found() {
    let agent = Agent::whole(1, 0, 1);
    let records = agent.values();
    let mut summaries = agent.summaries.clone();
    let length = summaries[1].len();
    // Not the signature itself: branch, length and 64 bytes, which nothing but a key checks.
    for bit in bits(80, 8 * (length - 67), 23) {
        summaries[1][bit / 8] ^= 1 << (bit % 8);
        let report = verify(of_sink(Options::default()), &summaries, &records);
        assert!(!report.findings.is_empty(), "bit {bit}");
        summaries[1][bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn removed_and_exchanged_summaries_are_found() {
    let agent = Agent::whole(1, 0, 30);
    let records = agent.values();
    for removed in 0..3 {
        let mut summaries = agent.summaries.clone();
        summaries.remove(removed);
        let report = verify(with_key(PUBLIC), &summaries, &records);
        assert!(kinds(&report).contains(&Kind::SummariesMissing), "{report}");
        let window = i64::try_from(removed).unwrap();
        assert!(report.findings.iter().any(|of| of.windows == Some([window; 2])), "{report}");
    }
    // Without the last one the run looks as if it went on, and its last records are not proven.
    let report = verify(with_key(PUBLIC), &agent.summaries[..3], &records);
    assert_eq!((report.findings.len(), report.runs_without_end), (0, 1));
    assert_eq!((report.records.proven, report.records.after_last_summary), (120, 60));
    // One of another run of the same length under this one's name.
    let mut exchanged = agent.summaries.clone();
    exchanged[2] = Agent::whole(1, 0, 31).summaries[2].clone();
    let report = verify(with_key(PUBLIC), &exchanged, &records);
    assert!(kinds(&report).contains(&Kind::SummaryAltered), "{report}");
    // Two different ones of one window.
    let both = [agent.summaries.clone(), vec![exchanged[2].clone()]].concat();
    let report = verify(with_key(PUBLIC), &both, &records);
    assert_eq!(kinds(&report), [Kind::SummaryAltered], "{report}");
    assert!(names(&report, 2));
}

#[test]
fn a_summary_is_signed_by_a_key_that_was_given() {
    let agent = Agent::whole(1, 0, 3);
    let records = agent.values();
    let report = verify(with_key(OTHER_PUBLIC), &agent.summaries, &records);
    assert_eq!(kinds(&report), [Kind::SignatureInvalid]);
    assert_eq!(report.findings.len(), 4);
    assert!(report.findings[0].what.contains("another key"), "{report}");
    let mut both = with_key(OTHER_PUBLIC);
    both.keys.extend(with_key(PUBLIC).keys);
    assert_eq!(verify(both, &agent.summaries, &records).signatures_valid, 4);
    let unchecked = verify(Options::default(), &agent.summaries, &records);
    assert_eq!((unchecked.findings.len(), unchecked.signatures_unchecked), (0, 4));
    let mut unsigned = Agent::start(1, 0);
    unsigned.evidence.key = None;
    unsigned.end_window(SummaryKind::Final, Some(1));
    let report = verify(with_key(PUBLIC), &unsigned.summaries, &[]);
    assert_eq!(kinds(&report), [Kind::SignatureInvalid]);
    assert!(report.findings[0].what.contains("not signed"), "{report}");
}

#[test]
fn summaries_that_an_agent_lost_are_accepted_and_their_records_not_proven() {
    let mut agent = Agent::start(1, 0);
    agent.record(30);
    agent.end_window(SummaryKind::Window, Some(1));
    agent.record(20);
    agent.summaries_lost = 1;
    agent.end_window(SummaryKind::Final, Some(2));
    agent.summaries.remove(1);
    let report = verify(with_key(PUBLIC), &agent.summaries, &agent.values());
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.summaries_lost, report.records.without_link), (1, 60));
    assert_eq!(report.records.proven, 40);
}

/// A summary of thousands of links has the signed digest in every encoder.
#[test]
fn long_summaries_are_encoded_in_one_way() {
    let mut agent = Agent::start(1, 0);
    for _ in 0..2_500 {
        // Each gap in the numbers ends a link.
        agent.numbers.iter_mut().for_each(|number| *number += 1);
        agent.record(1);
    }
    agent.end_window(SummaryKind::Final, Some(1));
    let length = agent.summaries[1].len();
    assert!(length > 150_000, "{length}");
    let report = verify(with_key(PUBLIC), &agent.summaries, &[]);
    assert_eq!((report.summaries, report.signatures_valid), (2, 2));
}
