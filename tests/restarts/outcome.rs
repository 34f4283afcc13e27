//! The part of the stream that is in the topic.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{agent, fastavro, kafka::Kafka};

use super::stage::{TOPIC, number};

/// Two agents capture one transaction within a few microseconds of each other; nobody asks the same
/// with the same identifier from the same port again so soon.
const SAME_US: i64 = 10_000;

/// Records of the topic, by the number of their exchange.
pub(super) struct Outcome {
    records: BTreeMap<u32, Vec<Value>>,
    /// Messages that came twice: the same record again.
    pub(super) repeated: usize,
}

impl Outcome {
    /// Reads the topic, and drops what came twice by `record_id`, as every consumer must.
    pub(super) fn read(kafka: &Kafka<'_>) -> Result<Self> {
        let messages = kafka.consume(TOPIC)?;
        let schema = tempfile::NamedTempFile::new()?;
        std::fs::write(schema.path(), agent::run(&["schema"])?.stdout)?;
        let values = messages.iter().map(|message| &message.value[..]);
        let mut seen = HashSet::new();
        let (mut records, mut repeated) = (BTreeMap::<u32, Vec<Value>>::new(), 0);
        for record in fastavro::read_single_objects(schema.path(), values)? {
            let id = record["record_id"].as_str().context("a record_id")?;
            if seen.insert(id.to_owned()) {
                records.entry(number(&record)?).or_default().push(record);
            } else {
                repeated += 1;
            }
        }
        Ok(Self { records, repeated })
    }

    /// Returns the exchanges of `sent` whose query was not recorded, and those whose response was not.
    pub(super) fn unseen(&self, sent: u32) -> [Vec<u32>; 2] {
        let without = |outcomes: [&str; 2]| {
            let is_without = |number: &u32| {
                let records = self.records.get(number).map_or(&[][..], Vec::as_slice);
                !records.iter().any(|record| outcomes.iter().any(|of| record["outcome"] == *of))
            };
            (0..sent).filter(is_without).collect()
        };
        [without(["MATCHED", "UNANSWERED"]), without(["MATCHED", "UNMATCHED_RESPONSE"])]
    }

    /// Drops what two agents that captured together recorded twice, by the rule of
    /// `docs/upgrades.md`: the same transaction at nearly the same time under record ids of two
    /// runs. What is whole stays.
    pub(super) fn drop_overlapped(&mut self) -> usize {
        let mut dropped = 0;
        for records in self.records.values_mut() {
            records.sort_by_key(|record| record["outcome"] != "MATCHED");
            let mut kept: Vec<Value> = Vec::new();
            for record in records.drain(..) {
                if kept.iter().any(|of| is_overlapped(of, &record)) {
                    dropped += 1;
                } else {
                    kept.push(record);
                }
            }
            *records = kept;
        }
        dropped
    }

    /// Fails unless each of `sent` exchanges has one record, and that a whole one.
    pub(super) fn require_each_once(&self, sent: u32) -> Result<()> {
        for number in 0..sent {
            let records = self.records.get(&number).map_or(&[][..], Vec::as_slice);
            ensure!(records.len() == 1, "exchange {number} has {} records", records.len());
            ensure!(records[0]["outcome"] == "MATCHED", "exchange {number}: {}", records[0]);
        }
        ensure!(self.records.len() == sent as usize, "records of what was never sent");
        Ok(())
    }

    /// Fails unless every record of half an exchange has a capture gap.
    pub(super) fn require_gaps_reported(&self) -> Result<()> {
        for record in self.records.values().flatten() {
            let is_whole = record["outcome"] == "MATCHED";
            ensure!(is_whole || record["capture_gap"] == true, "half, and not said: {record}");
        }
        Ok(())
    }

    /// Records of runs, by the part of their id that a run draws.
    pub(super) fn by_run(&self) -> BTreeMap<String, usize> {
        let mut runs = BTreeMap::new();
        for record in self.records.values().flatten() {
            *runs.entry(run(record).to_owned()).or_default() += 1;
        }
        runs
    }
}

fn run(record: &Value) -> &str {
    record["record_id"].as_str().and_then(|id| id.get(..16)).unwrap_or_default()
}

fn is_overlapped(one: &Value, other: &Value) -> bool {
    const IDENTITY: [&str; 8] = [
        "node",
        "transport",
        "client_address",
        "client_port",
        "server_address",
        "server_port",
        "dns_id",
        "qname",
    ];
    // A half has one of the two times.
    let is_near = |time: &str| match (one[time].as_i64(), other[time].as_i64()) {
        (Some(one), Some(other)) => (one - other).abs() <= SAME_US,
        _ => false,
    };
    run(one) != run(other)
        && IDENTITY.iter().all(|field| one[field] == other[field])
        && (is_near("query_time") || is_near("response_time"))
}
