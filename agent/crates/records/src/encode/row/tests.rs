use super::*;
use crate::encode::{Encode, JsonLine, samples};

#[test]
fn a_row_equals_the_one_that_is_read_back_from_the_record_in_json() {
    for name in samples::NAMES {
        samples::with_record(name, |record| {
            let row = Row::of(record);
            let mut json = Vec::new();
            JsonLine.encode(record, &mut json).unwrap();
            assert_eq!(Row::from_json(&json).unwrap(), row, "{name}");
            let own = serde_json::to_vec(&row).unwrap();
            assert_eq!(Row::from_json(&own).unwrap(), row, "{name}");
            // A queue has room for some thousands.
            assert!(own.len() < 420, "{} bytes", own.len());
        });
    }
}

#[test]
fn anything_else_is_refused() {
    assert!(Row::from_json(b"{\"query_time\":\"yesterday\"}").is_err());
    assert!(Row::from_json(b"[").is_err());
}
