//! What the records say about those that are missing.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::{
    report::{Cell, Table},
    row::{Fields, Row, Slot, Value},
};

/// Counts of signs of loss.
pub(super) struct Losses {
    capture_gap: Slot,
    parse_status: Slot,
    run: Slot,
    worker: Slot,
    number: Slot,
    gaps: u64,
    unreadable: u64,
    /// By run and worker.
    numbers: HashMap<String, BTreeMap<i64, Numbers>>,
}

/// The record numbers of a worker.
struct Numbers {
    first: i64,
    last: i64,
    count: u64,
}

impl Losses {
    pub(super) fn new(fields: &mut Fields) -> Self {
        Self {
            capture_gap: fields.slot("capture_gap"),
            parse_status: fields.slot("parse_status"),
            run: fields.slot("run_id"),
            worker: fields.slot("worker"),
            number: fields.slot("record_number"),
            gaps: 0,
            unreadable: 0,
            numbers: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, row: &Row<'_, '_>) {
        self.gaps += u64::from(row.get(self.capture_gap) == Value::Boolean(true));
        let status = row.get(self.parse_status).text();
        self.unreadable += u64::from(status.is_some_and(|status| status != "OK"));
        let number = row.get(self.number).number();
        let (Some(run), Some(worker), Some(number)) =
            (row.get(self.run).text(), row.get(self.worker).number(), number)
        else {
            return;
        };
        let workers = self.numbers.entry_ref(run).or_default();
        let first = Numbers { first: number, last: number, count: 0 };
        let numbers = workers.entry(worker).or_insert(first);
        numbers.first = numbers.first.min(number);
        numbers.last = numbers.last.max(number);
        numbers.count += 1;
    }

    /// Returns the numbers that are missing between the first and the last one of each worker. Duplicates
    /// hide as many, and an expression leaves records out.
    fn missing(&self) -> u64 {
        let missing = self.numbers.values().flat_map(BTreeMap::values).map(|numbers| {
            let span = numbers.last.abs_diff(numbers.first).saturating_add(1);
            span.saturating_sub(numbers.count)
        });
        missing.fold(0, u64::saturating_add)
    }

    pub(super) fn table(&self) -> Table {
        let rows = [
            ("records of which a message may have been missed (capture_gap)", self.gaps),
            ("records with a message that is not wholly readable (parse_status)", self.unreadable),
            ("record numbers that are missing or not selected (record_number)", self.missing()),
        ];
        let row =
            |(name, count): (&str, u64)| vec![Cell::Text(name.to_owned()), Cell::Number(count)];
        Table { columns: vec!["sign", "count"], rows: rows.map(row).into() }
    }
}
