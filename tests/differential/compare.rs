//! One message as we read it, and as another reader does.

use std::fmt;

use serde_json::Value;

use super::known;

/// The other reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Reads the bytes that were put into the capture.
    Dnspython,
    /// Reads the capture; shows null where what it shows is ambiguous.
    Tshark,
}

/// A field that differs.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Path of the field, such as `answers/0/rdata`.
    pub(crate) field: String,
    /// Our value.
    pub(crate) ours: Value,
    /// The other reader's value.
    pub(crate) theirs: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.field, self.ours, self.theirs)
    }
}

/// All differences in the message called `name` but the known ones. Every field of the other
/// reader's line is compared.
pub(crate) fn differences(
    reader: Reader,
    name: &str,
    ours: &Value,
    theirs: &Value,
) -> Vec<Difference> {
    let mut found = Vec::new();
    for (field, theirs) in theirs.as_object().into_iter().flatten() {
        match field.as_str() {
            "malformed" => {
                if *theirs == true && ours["parse_status"] == "OK" {
                    push(&mut found, "parse_status", &ours["parse_status"], &"malformed".into());
                }
            }
            "answers" => compare_answers(reader, ours, theirs, &mut found),
            _ if is_after_a_flaw(reader, field, ours) => {}
            _ => compare_values(reader, field, &ours[field], theirs, &mut found),
        }
    }
    found.retain(|difference| known::reason(reader, name, ours, theirs, difference).is_none());
    found
}

/// tshark shows the fields of an entry that is broken as far as they go; we keep whole entries.
fn is_after_a_flaw(reader: Reader, field: &str, ours: &Value) -> bool {
    reader == Reader::Tshark
        && (ours["parse_status"] == "MALFORMED_QUESTION" || ours["parse_status"] == "NOT_DNS")
        && matches!(field, "qname" | "qtype" | "qclass" | "more_questions")
}

fn compare_answers(reader: Reader, ours: &Value, theirs: &Value, found: &mut Vec<Difference>) {
    let (mine, other) = (answers_of(ours), list(theirs));
    let status = &ours["parse_status"];
    let broken = *status == "MALFORMED_ANSWER" || *status == "MALFORMED_QUESTION";
    let as_many = mine.len() == other.len()
        // The broken entry itself, and tshark's view of the bytes after it.
        || reader == Reader::Tshark && broken;
    if !as_many {
        push(found, "number of answers", &mine.len().into(), &other.len().into());
    }
    for (position, (mine, other)) in mine.iter().zip(other).enumerate() {
        for (field, theirs) in other.as_object().into_iter().flatten() {
            if field != "refused" && !(reader == Reader::Tshark && broken && field == "rdata") {
                let name = format!("answers/{position}/{field}");
                compare_values(reader, &name, &mine[field], theirs, found);
            }
        }
    }
}

fn compare_values(
    reader: Reader,
    field: &str,
    ours: &Value,
    theirs: &Value,
    found: &mut Vec<Difference>,
) {
    match (ours, theirs) {
        (_, Value::Null) if reader == Reader::Tshark => {}
        (Value::Array(mine), Value::Array(other)) if mine.len() == other.len() => {
            for (position, (mine, other)) in mine.iter().zip(other).enumerate() {
                compare_values(reader, &format!("{field}/{position}"), mine, other, found);
            }
        }
        (Value::Object(mine), Value::Object(other)) if mine.len() == other.len() => {
            for (name, theirs) in other {
                let ours = mine.get(name).unwrap_or(&Value::Null);
                compare_values(reader, &format!("{field}/{name}"), ours, theirs, found);
            }
        }
        _ if ours != theirs => push(found, field, ours, theirs),
        _ => {}
    }
}

fn push(found: &mut Vec<Difference>, field: &str, ours: &Value, theirs: &Value) {
    found.push(Difference { field: field.to_owned(), ours: ours.clone(), theirs: theirs.clone() });
}

/// Our answers; other readers have the prerequisites of an UPDATE there, as they are in the message.
pub(super) fn answers_of(ours: &Value) -> &[Value] {
    match list(&ours["prerequisites"]) {
        [] => list(&ours["answers"]),
        prerequisites => prerequisites,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
