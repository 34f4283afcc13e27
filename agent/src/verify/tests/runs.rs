//! Losses, runs that end or overlap, expired records and several sinks.

use super::*;

#[test]
fn records_may_be_missing_up_to_the_losses_of_the_ledger() {
    let mut agent = Agent::start(1, 0);
    agent.record(1_000);
    agent.end_window(SummaryKind::Window, Some(1));
    agent.lost = 10;
    agent.end_window(SummaryKind::Final, Some(2));
    let mut records = agent.values();
    records.drain(300..310);
    let report = verify(with_key(PUBLIC), &agent.summaries, &records);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.records.missing, report.records.lost), (10, 10));
    // One link of 256 records is without proof, and no other.
    assert_eq!((report.records.beside_missing, report.records.proven), (246, 1_744));
    records.remove(1_500);
    let report = verify(with_key(PUBLIC), &agent.summaries, &records);
    assert_eq!(kinds(&report), [Kind::RecordsMissing]);
    assert!(report.findings.iter().all(|of| of.windows == Some([1, 1])), "{report}");
}

#[test]
fn records_in_flight_are_not_missing_yet() {
    let mut agent = Agent::start(1, 0);
    agent.record(30);
    agent.end_window(SummaryKind::Window, Some(0));
    let records = &agent.values()[5..];
    let report = verify(Options::default(), &agent.summaries, records);
    assert_eq!(report.findings, []);
    assert_eq!((report.records.on_their_way, report.records.missing), (5, 0));
    agent.end_window(SummaryKind::Window, Some(1));
    let report = verify(Options::default(), &agent.summaries, records);
    assert_eq!(kinds(&report), [Kind::RecordsMissing]);
}

/// A killed run has no final summary; the next one sends and loses the records that it left in the spool.
#[test]
fn a_killed_run_is_settled_by_the_next_one_of_its_node() {
    let mut killed = Agent::start(1, 0);
    killed.record(300);
    killed.end_window(SummaryKind::Window, Some(0));
    killed.record(2);
    let mut next = Agent::start(2, 1_000);
    next.record(4);
    next.lost = 4;
    next.end_window(SummaryKind::Window, Some(1));
    let summaries = [killed.summaries.clone(), next.summaries.clone()].concat();
    let records = [killed.values()[4..].to_vec(), next.values()].concat();
    let report = verify(with_key(PUBLIC), &summaries, &records);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.records.missing, report.records.after_last_summary), (4, 4));
    let report = verify(with_key(PUBLIC), &summaries, &records[1..]);
    assert_eq!(kinds(&report), [Kind::RecordsMissing]);
    assert!(report.findings[0].what.contains("an agent that was killed"), "{report}");
}

#[test]
fn agents_that_overlap_on_a_node_are_accepted() {
    let (mut old, mut new) = (Agent::start(1, 0), Agent::start(2, 90));
    old.record(300);
    new.record(200);
    old.end_window(SummaryKind::Window, Some(0));
    new.end_window(SummaryKind::Window, Some(1));
    // The records of the old one are on their way still.
    let summaries = [old.summaries.clone(), new.summaries.clone()].concat();
    let report = verify(with_key(PUBLIC), &summaries, &new.values());
    assert_eq!((report.findings.len(), report.records.on_their_way), (0, 600), "{report}");
    old.end_window(SummaryKind::Final, Some(2));
    let summaries = [old.summaries.clone(), new.summaries.clone()].concat();
    let records = [new.values(), old.values()].concat();
    let report = verify(with_key(PUBLIC), &summaries, &records);
    assert_eq!((report.findings.len(), report.records.proven), (0, 1_000), "{report}");
}

#[test]
fn records_before_the_oldest_summary_may_have_expired_with_that_option() {
    let agent = Agent::whole(1, 0, 30);
    let records = &agent.values()[45..];
    let expired = || Options { expired: true, ..with_key(PUBLIC) };
    let report = verify(expired(), &agent.summaries[2..], records);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.records.expected, report.records.proven), (120, 120));
    assert_eq!(report.records.before_first_summary, 15);
    let report = verify(with_key(PUBLIC), &agent.summaries[2..], records);
    assert!(kinds(&report).contains(&Kind::SummariesMissing), "{report}");
}

#[test]
fn one_of_several_sinks_must_be_chosen() {
    let agent = Agent::whole(1, 0, 3);
    let none = Verifier::new(Options::default()).unwrap().begin_records().unwrap_err();
    assert!(matches!(none, Error::NoSummaries), "{none}");
    let other = Options { sink: Some("other".to_owned()), ..Options::default() };
    let mut verifier = Verifier::new(other).unwrap();
    agent.summaries.iter().for_each(|summary| verifier.add_summary_message(summary));
    assert!(verifier.begin_records().is_err());
}
