use tap53_records::encode::{Datum, Record, SingleObject, fingerprint, samples};

use super::*;

const RUN: &str = "abababababababab";

/// Batches with these numbers of records, which are numbered from 1 on.
fn batches(sizes: &[u64]) -> Vec<Batch> {
    let (mut encoder, mut number) = (SingleObject::new().unwrap(), 0);
    let batch = |size: &u64| {
        let mut batch = Batch::default();
        samples::with_record("matched", |record| {
            for _ in 0..*size {
                number += 1;
                batch.push(&mut encoder, &Record { number, ..*record }).unwrap();
            }
        });
        batch
    };
    sizes.iter().map(batch).collect()
}

fn add_all(chain: &Chain, batches: &[Batch]) {
    let mut next = 1;
    for batch in batches {
        chain.add(next, batch);
        next += batch.records();
    }
}

/// The links that a reader computes, of records in one piece, for links up to these numbers.
fn expected(bytes: &[Vec<u8>], lasts: &[usize]) -> Vec<Link> {
    let (mut before, mut first, mut links) = (beginning(RUN, "kafka", 3), 0, Vec::new());
    for &last in lasts {
        let mut content = ContentHasher::default();
        bytes[first..last].iter().for_each(|record| content.update(record));
        let records = last - first;
        before = content.link(before, last as u64, records as u64);
        let [last_record_number, records] = [last, records].map(|n| i64::try_from(n).unwrap());
        links.push(Link { last_record_number, records, digest: before });
        first = last;
    }
    links
}

fn records(batches: &[Batch]) -> Vec<Vec<u8>> {
    batches.iter().flat_map(|batch| batch.iter().map(|(bytes, _)| bytes.to_vec())).collect()
}

#[test]
fn links_are_the_same_however_records_come_in_batches() {
    let lasts = [256, 512, 700];
    let wanted = expected(&records(&batches(&[700])), &lasts);
    for sizes in [&[700][..], &[1; 700], &[255, 1, 1, 255, 188], &[300, 300, 100], &[7; 100]] {
        let chain = Chain::new(RUN, "kafka", 3);
        add_all(&chain, &batches(sizes));
        let (of_worker, found) = chain.cut();
        assert_eq!(of_worker.before, beginning(RUN, "kafka", 3));
        assert_eq!(of_worker.links, wanted, "{sizes:?}");
        assert_eq!(found, Some(fingerprint().unwrap()));
    }
}

#[test]
fn a_cut_seals_what_there_is_and_the_next_one_goes_on_from_it() {
    let batches = batches(&[10, 5, 4]);
    let chain = Chain::new(RUN, "kafka", 3);
    chain.add(1, &batches[0]);
    let first = chain.cut().0;
    assert_eq!(chain.cut().0.links, [], "nothing came in between");
    chain.add(11, &batches[1]);
    chain.add(16, &batches[2]);
    let second = chain.cut().0;
    let wanted = expected(&records(&batches), &[10, 19]);
    assert_eq!(first.links, wanted[..1]);
    assert_eq!((second.before, &second.links[..]), (wanted[0].digest, &wanted[1..]));
}

#[test]
fn a_number_that_is_left_out_ends_a_link() {
    let batches = batches(&[10, 5, 4]);
    let chain = Chain::new(RUN, "kafka", 3);
    chain.add(1, &batches[0]);
    // 11 to 15 could not be encoded.
    chain.add(16, &batches[2]);
    let links = chain.cut().0.links;
    let covered: Vec<_> =
        links.iter().map(|link| (link.last_record_number, link.records)).collect();
    assert_eq!(covered, [(10, 10), (19, 4)]);
}

#[test]
fn links_of_one_window_grow_and_begin_small_in_the_next() {
    let chain = Chain::new(RUN, "kafka", 3);
    chain.links_before_doubling.store(2, Ordering::Relaxed);
    let batches = batches(&[2_000, 300]);
    chain.add(1, &batches[0]);
    let sizes = |links: Vec<Link>| links.iter().map(|link| link.records).collect::<Vec<_>>();
    assert_eq!(sizes(chain.cut().0.links), [256, 256, 512, 512, 464]);
    chain.add(2_001, &batches[1]);
    assert_eq!(sizes(chain.cut().0.links), [256, 44]);
}

/// An hour at a million records a second.
#[test]
fn links_of_a_long_window_are_few() {
    let mut open = Chain::new(RUN, "kafka", 3).open.into_inner().unwrap();
    let mut records = 0;
    while records < 3_600_000_000 {
        let room = open.room(MOST_BEFORE_DOUBLING);
        records += room;
        let digest = Digest([0; 32]);
        open.links.push(Link { last_record_number: 0, records: 0, digest });
    }
    assert!(open.links.len() < 16 * MOST_BEFORE_DOUBLING, "{}", open.links.len());
}

#[test]
fn a_chain_is_bound_to_run_sink_and_worker() {
    let all = [
        beginning(RUN, "kafka", 3),
        beginning(RUN, "kafka", 4),
        beginning("abababababababac", "kafka", 3),
        beginning(RUN, "kafk", 3),
        beginning(&RUN[..15], "bkafka", 3),
    ];
    let distinct: std::collections::HashSet<_> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn chains_of_many_workers_double_sooner() {
    let chains = Chains::of("kafka");
    let first = chains.begin(RUN, 0);
    assert_eq!(first.links_before_doubling.load(Ordering::Relaxed), MOST_BEFORE_DOUBLING);
    let last = (1..64).map(|worker| chains.begin(RUN, worker)).last().unwrap();
    for chain in [first, last] {
        assert_eq!(chain.links_before_doubling.load(Ordering::Relaxed), LEAST_BEFORE_DOUBLING);
    }
    let cut = chains.cut();
    let workers: Vec<_> = cut.chains.iter().map(|chain| chain.worker).collect();
    assert_eq!(workers, (0..64).collect::<Vec<_>>());
    assert_eq!(cut.fingerprint, None, "nothing was recorded");
}

/// A datum without a header names no schema; nothing here panics on one.
#[test]
fn a_batch_without_single_objects_has_no_fingerprint() {
    let mut batch = Batch::default();
    samples::with_record("matched", |record| batch.push(&mut Datum::default(), record).unwrap());
    let chain = Chain::new(RUN, "kafka", 0);
    chain.add(1, &batch);
    assert_eq!(chain.cut().1, None);
}
