//! Nanoseconds per transaction, from ring record to encoded bytes, stage by stage, beside what
//! tap53 replaces: hickory-proto and serde_json. `cargo xtask bench` runs it.
//!
//! Every figure is the median of rounds in which all stages take turns, so that a machine whose
//! speed drifts slows them alike, and is CPU time of the thread, so that others on the machine do
//! not add what they take to the longer stages. Compare figures of one run only. A transaction is a query of
//! about 60 bytes and a response with three answers; nothing is configured to be hidden or left
//! out.
//!
//! With arguments, only stages run whose name contains one of them: for a profiler. `worst` is one of
//! the names.

#![allow(missing_docs, reason = "a program")]

mod hickory;
#[path = "../../crates/dns/src/message/hostile.rs"]
mod hostile;
mod parts;
mod paths;
mod report;
mod sample;
mod stage;
mod worst;

use std::{cell::RefCell, env::args, time::Duration};

use nix::time::{ClockId, clock_gettime};
use tap53_records::encode::{Format, NodeRole, Observer, Owner, Portion, Provenance, Record};
use tap53_transactions::{
    pair::{Anomalies, Exchange, Observation, RecordId, RecordIds, Sightings, Transaction},
    privacy::Policy,
};

use parts::{
    by_apache_avro, datagram, encoder, observe, read, read_and_pair, read_by_hickory, replaced,
};
use paths::{
    CLOCK, path, path_chained, path_counted, path_timed, path_with_chains, path_with_signals,
};
use report::{print_table, sizes};
use sample::{Kind, Sample};
use stage::{Name, Stage};

/// Transactions in a round.
const TRANSACTIONS: usize = 2_048;
/// Rounds, the first of which only warms up.
const ROUNDS: usize = 41;

/// They advance in time from round to round.
type Samples = RefCell<Vec<Sample>>;

/// The samples after each stage, so that each stage can be measured separately.
struct Prepared {
    samples: Samples,
    observed: Vec<[Observation; 2]>,
}

impl Prepared {
    fn new(kind: Kind) -> Self {
        let samples: Vec<Sample> =
            (0..TRANSACTIONS).map(|number| Sample::new(number, kind)).collect();
        let observed = samples
            .iter()
            .map(|sample| {
                let mut seen = [Observation::default(), Observation::default()];
                observe(&sample.query, &mut seen[0]);
                observe(&sample.response, &mut seen[1]);
                seen
            })
            .collect();
        Self { samples: RefCell::new(samples), observed }
    }

    fn transactions(&self) -> Vec<Transaction<'_>> {
        (0u64..)
            .zip(self.samples.borrow().iter().zip(&self.observed))
            .map(|(number, (sample, [query, response]))| {
                let (origin, datagram) = datagram(&sample.query);
                (number, origin.flow(&datagram), query, response)
            })
            .map(|(number, flow, query, response)| Transaction {
                id: RecordId::new([7; 8], 0, number),
                flow,
                exchange: Exchange::Matched(query, response),
                query_count: 1,
                latest_query_ns: query.at_ns,
                copy_count: 0,
                capture_gap: false,
                related: None,
                anomalies: Anomalies::NONE,
                sightings: Sightings::single(&flow),
                chain: None,
            })
            .collect()
    }
}

fn main() {
    if chosen().iter().any(|name| name == "worst") {
        return worst::measure();
    }
    println!("userspace, ns per transaction (median of {} rounds)", ROUNDS - 1);
    measure("EDNS without options", Kind::Plain);
    measure("EDNS with DO, client subnet, cookies and padding", Kind::Options);
    if chosen().is_empty() {
        worst::measure();
    }
}

/// Returns the measurements that the arguments select.
fn chosen() -> Vec<String> {
    args().skip(1).filter(|arg| !arg.starts_with('-')).collect()
}

fn measure(title: &str, kind: Kind) {
    let prepared = Prepared::new(kind);
    let samples = &prepared.samples;
    let transactions = prepared.transactions();
    let (nobody, policy) = (Owner::default(), Policy::default());
    let observer = Observer::new("node-1", "eth0", RecordIds::new([7; 8], 0));
    let records: Vec<Record<'_>> = transactions
        .iter()
        .map(|transaction| Record {
            observer: &observer,
            response_observer: &observer,
            number: 1_000,
            files: &[],
            policy: &policy,
            clock: CLOCK,
            transaction,
            client: &nobody,
            server: &nobody,
            client_provenance: Provenance::default(),
            server_provenance: Provenance::default(),
            node_role: NodeRole::Unknown,
            signals: None,
            kept_per_million: None,
            portion: &Portion::ALL,
        })
        .collect();
    let sizes = [Format::AvroDatum, Format::FlatAvroDatum, Format::Json]
        .map(|format| sizes(&records, format));
    let mut stages = vec![
        read(samples),
        read_by_hickory(samples),
        read_and_pair(samples),
        encoder(Name::EncodeAvro, &records, Format::AvroDatum),
        encoder(Name::EncodeFlat, &records, Format::FlatAvroDatum),
        encoder(Name::EncodeJson, &records, Format::Json),
        by_apache_avro(Name::EncodeBySerde, &records),
        by_apache_avro(Name::EncodeByValue, &records),
        path(Name::PathToAvro, samples, Format::AvroSingleObject),
        path(Name::PathToFlat, samples, Format::FlatAvroSingleObject),
        path_timed(samples),
        path_counted(Name::PathCounted, samples),
        path_counted(Name::PathCountedWithNames, samples),
        path_with_signals(samples),
        path_chained(Name::PathChained, samples, TRANSACTIONS),
        path_chained(Name::PathChainedInSmallBatches, samples, 16),
        path_with_chains(Name::PathWithChains, samples, kind),
        path_with_chains(Name::PathOfResolver, samples, kind),
        path(Name::PathToJson, samples, Format::Json),
        replaced(samples, &records),
    ];
    let chosen = chosen();
    let is_chosen = |stage: &Stage<'_>| {
        chosen.is_empty() || chosen.iter().any(|part| stage.name.text().contains(part.as_str()))
    };
    stages.retain(is_chosen);
    for round in 0..ROUNDS {
        samples.borrow_mut().iter_mut().for_each(Sample::advance);
        for stage in &mut stages {
            let started = cpu_time();
            (stage.run)();
            let ns = (cpu_time() - started).as_nanos() as f64 / TRANSACTIONS as f64;
            if round > 0 {
                stage.rounds.push(ns);
            }
        }
    }
    println!("\n{title}");
    print_table(&stages, sizes);
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}
