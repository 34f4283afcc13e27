//! Comma-separated values (RFC 4180), with line feeds as on this system.

use super::{Column, json};
use crate::{
    avro::Shape,
    format::push_csv_text,
    row::{Row, Value},
};

pub(super) fn push_heading(columns: &[Column], out: &mut Vec<u8>) {
    for (number, column) in columns.iter().enumerate() {
        separate(number, out);
        out.extend_from_slice(column.field.name.as_bytes());
    }
}

pub(super) fn push_row(columns: &[Column], row: &Row<'_, '_>, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    for (number, column) in columns.iter().enumerate() {
        separate(number, out);
        value.clear();
        push_plain(row.get(column.slot), &mut value);
        push_csv_text(&value, out);
    }
}

fn separate(number: usize, out: &mut Vec<u8>) {
    if number > 0 {
        out.push(b',');
    }
}

/// Appends a value as it is without quotes. Several texts are separated by spaces; other arrays are JSON.
pub(super) fn push_plain(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => {}
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Nested(Shape::List(item), _) if **item == Shape::Text => {
            let mut first = true;
            value.each(|item| {
                if !std::mem::take(&mut first) {
                    out.push(b' ');
                }
                push_plain(item, out);
            });
        }
        Value::Time(_) | Value::Bytes(_) => {
            // Without the quotes of JSON.
            let start = out.len();
            json::push_value(value, out);
            if out.get(start) == Some(&b'"') {
                out.remove(start);
                out.pop();
            }
        }
        value => json::push_value(value, out),
    }
}
