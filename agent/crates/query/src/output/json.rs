//! A JSON object for each record, with the names and forms of `tap53 replay --json`.

use super::Column;
use crate::{
    avro::{Cursor, push_display, push_json_bytes, push_json_key, push_json_text, push_json_time},
    row::{Row, Value},
};

pub(super) fn push_row(columns: &[Column], row: &Row<'_, '_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (number, column) in columns.iter().enumerate() {
        push_json_key(out, number == 0, &column.field.name);
        push_value(row.get(column.slot), out);
    }
    out.push(b'}');
}

/// Appends a value as JSON.
pub(super) fn push_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(value) => push_display(out, value),
        Value::Number(value) => push_display(out, value),
        Value::Time(micros) => push_json_time(out, micros),
        Value::Text(text) => push_json_text(out, text),
        Value::Bytes(bytes) => push_json_bytes(out, bytes),
        Value::Nested(shape, bytes) => {
            let start = out.len();
            // The text of a value is read here for the first time, and may not be UTF-8.
            if shape.push_json(&mut Cursor::new(bytes), out).is_err() {
                out.truncate(start);
                out.extend_from_slice(b"null");
            }
        }
    }
}
