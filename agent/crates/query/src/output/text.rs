//! Columns for people. Their widths are fixed, since a result is written while it is read.

use tap53_base::visible::visible;

use super::{Column, csv, is_number};
use crate::{
    catalogue::Kind,
    format::humane_duration,
    row::{Row, Value},
};

pub(super) fn push_heading(columns: &[Column], out: &mut Vec<u8>) {
    for (number, column) in columns.iter().enumerate() {
        let name = column.field.name.to_ascii_uppercase();
        let name = name.strip_suffix("_NS").or(name.strip_suffix("_ADDRESS")).unwrap_or(&name);
        push_cell(name, column, number + 1 == columns.len(), out);
    }
}

pub(super) fn push_row(columns: &[Column], row: &Row<'_, '_>, out: &mut Vec<u8>) {
    for (number, column) in columns.iter().enumerate() {
        let is_last = number + 1 == columns.len();
        push_cell(&shown(row.get(column.slot), &column.field.kind), column, is_last, out);
    }
}

fn shown(value: Value<'_>, kind: &Kind) -> String {
    match (value, kind) {
        (Value::Number(nanoseconds), Kind::Duration) => humane_duration(nanoseconds),
        (value, _) => {
            let mut text = Vec::new();
            csv::push_plain(value, &mut text);
            let text = String::from_utf8_lossy(&text);
            if text.is_empty() { "-".to_owned() } else { visible(&text).into_owned() }
        }
    }
}

fn push_cell(text: &str, column: &Column, is_last: bool, out: &mut Vec<u8>) {
    let missing = width(column).saturating_sub(text.chars().count());
    let padding = |out: &mut Vec<u8>| out.resize(out.len() + missing, b' ');
    if is_number(&column.field.kind) {
        padding(out);
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
        if !is_last {
            padding(out);
        }
    }
    if !is_last {
        out.extend_from_slice(b"  ");
    }
}

/// Returns the width of a column: that of usual values.
fn width(column: &Column) -> usize {
    let usual = match (&column.field.kind, column.field.name.as_str()) {
        (Kind::Time, _) => 27,
        (Kind::Address, _) => 15,
        (_, "outcome") => 18,
        (_, "rcode") => 8,
        (_, "qtype") => 5,
        (_, "qname") => 32,
        (Kind::Duration, _) => 8,
        (Kind::Bytes, _) => 32,
        _ => 0,
    };
    usual.max(column.field.name.len().min(12))
}
