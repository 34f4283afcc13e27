//! A stream of numbered transactions: each asks for a name with its number, so that a record tells
//! which one it is of, and what is missing from a topic can be named.

use std::{
    collections::{HashMap, HashSet},
    fs,
    ops::Range,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    agent, fastavro,
    kafka::{Kafka, Message},
};

/// Messages decoded at a time: as JSON they take several times their size.
const AT_A_TIME: usize = 50_000;

const FIELDS: [&str; 5] = ["record_id", "qname", "query_time", "response_time", "latency_ns"];

/// Returns the name in the question of the transaction with this number.
#[must_use]
pub fn name(number: u32) -> String {
    format!("q{number}.tap53.test")
}

/// The number of a record's transaction.
///
/// # Errors
/// When it is of none that has one.
pub fn number(record: &Value) -> Result<u32> {
    let qname = record["qname"].as_str().context("a qname")?;
    let number = qname.strip_prefix('q').and_then(|rest| rest.split('.').next());
    Ok(number.with_context(|| format!("a number in {qname}"))?.parse()?)
}

/// The content of a topic of such a stream, read by kcat and fastavro.
pub struct Consumed {
    /// Number of occurrences of each number.
    pub times: HashMap<u32, u32>,
    /// The fewest bytes that a message's value has.
    pub shortest: usize,
    /// The numbers, in the order of the topic.
    pub numbers: Vec<u32>,
    /// The values of `record_id`.
    pub ids: HashSet<String>,
    /// Times of the records, in the order of the topic.
    pub clocks: Vec<Clocks>,
}

/// Times of a record.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Microseconds since 1970 UTC; `None` where the query was not seen.
    pub query_time_us: Option<i64>,
    /// Microseconds since 1970 UTC; `None` without a response.
    pub response_time_us: Option<i64>,
    /// Between the two.
    pub latency_ns: Option<i64>,
}

impl Consumed {
    /// Reads a topic.
    ///
    /// # Errors
    /// When kcat or fastavro cannot, or a record has no number.
    pub fn read(kafka: &Kafka<'_>, topic: &str) -> Result<Self> {
        Self::of(&kafka.consume(topic)?)
    }

    /// Decodes messages that were read already.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn of(messages: &[Message]) -> Result<Self> {
        let schema = tempfile::NamedTempFile::new()?;
        fs::write(schema.path(), agent::run(&["schema"])?.stdout)?;
        let mut consumed = Self::of_records([])?;
        let sizes = messages.iter().map(|message| message.value.len());
        consumed.shortest = sizes.min().unwrap_or(0);
        for messages in messages.chunks(AT_A_TIME) {
            let values = messages.iter().map(|message| &message.value[..]);
            consumed.add(fastavro::read_fields(schema.path(), &FIELDS, values)?)?;
        }
        Ok(consumed)
    }

    /// Counts records that were decoded already; their sizes are unknown.
    ///
    /// # Errors
    /// When a record has no number.
    pub fn of_records(records: impl IntoIterator<Item = Value>) -> Result<Self> {
        let mut consumed = Self {
            times: HashMap::new(),
            shortest: 0,
            numbers: Vec::new(),
            ids: HashSet::new(),
            clocks: Vec::new(),
        };
        consumed.add(records)?;
        Ok(consumed)
    }

    fn add(&mut self, records: impl IntoIterator<Item = Value>) -> Result<()> {
        for record in records {
            let number = number(&record)?;
            *self.times.entry(number).or_default() += 1;
            self.numbers.push(number);
            self.ids.insert(record["record_id"].to_string());
            self.clocks.push(Clocks {
                query_time_us: record["query_time"].as_i64(),
                response_time_us: record["response_time"].as_i64(),
                latency_ns: record["latency_ns"].as_i64(),
            });
        }
        Ok(())
    }

    /// Those of `numbers` that are missing.
    #[must_use]
    pub fn missing(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
        numbers.into_iter().filter(|number| !self.times.contains_key(number)).collect()
    }

    /// Messages whose number came before.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.numbers.len() - self.times.len()
    }

    /// Fails unless all of `numbers` are there, and nothing else.
    ///
    /// # Errors
    /// If a number is missing, or one was not fed; the message has it.
    pub fn require_exactly(&self, numbers: Range<u32>) -> Result<()> {
        let missing = self.missing(numbers.clone());
        ensure!(missing.is_empty(), "{} are missing, from {} on", missing.len(), missing[0]);
        let foreign = self.times.keys().find(|number| !numbers.contains(number));
        ensure!(foreign.is_none(), "{foreign:?} was never fed");
        Ok(())
    }
}
