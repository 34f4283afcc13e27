//! A record as a row of the fields that a question needs, which borrow from the block of data.

use tap53_records::encode::Profile;

use crate::avro::{Cursor, Damaged, Scale, Shape, chosen, each_item, symbol};

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// No value: null, or a field that the schema of the file does not have.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A number, or nanoseconds.
    Number(i64),
    /// Microseconds since 1970 UTC.
    Time(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// An array, map or record: its shape and its data.
    Nested(&'a Shape, &'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads a datum.
    #[inline]
    fn read(shape: &'a Shape, cursor: &mut Cursor<'a>) -> Result<Self, Damaged> {
        Ok(match shape {
            Shape::Null => Self::Null,
            Shape::Boolean => Self::Boolean(cursor.boolean()?),
            Shape::Long(Scale::None) => Self::Number(cursor.long()?),
            Shape::Long(scale) => Self::Time(scale.to_micros(cursor.long()?)),
            Shape::Bytes => Self::Bytes(cursor.bytes()?),
            Shape::Fixed(length) => Self::Bytes(cursor.take(*length)?),
            Shape::Text => Self::Text(cursor.text()?),
            Shape::Symbol(symbols) => Self::Text(symbol(symbols, cursor)?),
            Shape::Union(variants) => Self::read(chosen(variants, cursor)?, cursor)?,
            Shape::List(_) | Shape::Map(_) | Shape::Record(_) => {
                let start = cursor.rest();
                shape.skip(cursor)?;
                Self::Nested(shape, &start[..start.len() - cursor.rest().len()])
            }
        })
    }

    /// Returns the text, if it is one.
    #[must_use]
    pub const fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number, or the time in microseconds.
    #[must_use]
    pub const fn number(self) -> Option<i64> {
        match self {
            Self::Number(number) | Self::Time(number) => Some(number),
            _ => None,
        }
    }

    /// Calls `take` with each element of an array, and the words of a text in the flat profile.
    pub fn each(self, mut take: impl FnMut(Value<'a>)) {
        match self {
            Self::Nested(Shape::List(item), bytes) => {
                let mut cursor = Cursor::new(bytes);
                // The data were skipped by the same shape before.
                let _ = each_item(&mut cursor, |cursor| {
                    take(Value::read(item, cursor)?);
                    Ok(())
                });
            }
            Self::Text(text) => text.split_ascii_whitespace().map(Value::Text).for_each(take),
            _ => {}
        }
    }

    /// Calls `take` with the value of `key` in a map, or of a field of a record.
    pub fn get(self, key: &str, mut take: impl FnMut(Value<'_>)) {
        match self {
            Self::Nested(Shape::Map(value), bytes) => {
                let mut cursor = Cursor::new(bytes);
                let _ = each_item(&mut cursor, |cursor| {
                    let is_wanted = cursor.text()? == key;
                    let value = Value::read(value, cursor)?;
                    if is_wanted {
                        take(value);
                    }
                    Ok(())
                });
            }
            Self::Nested(Shape::Record(fields), bytes) => {
                let mut cursor = Cursor::new(bytes);
                for (name, shape) in fields {
                    let Ok(value) = Value::read(shape, &mut cursor) else { return };
                    if name == key {
                        return take(value);
                    }
                }
            }
            // Labels in the flat profile.
            Self::Text(json) => {
                let labels: Option<serde_json::Map<String, serde_json::Value>> =
                    serde_json::from_str(json).ok();
                if let Some(text) = labels.as_ref().and_then(|labels| labels.get(key)?.as_str()) {
                    take(Value::Text(text));
                }
            }
            _ => {}
        }
    }
}

/// A record: the values of the fields that a question needs.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r, 'a> {
    values: &'r [Value<'a>],
}

impl<'a> Row<'_, 'a> {
    /// Returns the value in a slot.
    #[inline]
    #[must_use]
    pub fn get(&self, slot: Slot) -> Value<'a> {
        self.values.get(slot.0).copied().unwrap_or(Value::Null)
    }
}

/// The place of a field in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The fields that a question needs, each in its slot.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    names: Vec<String>,
}

impl Fields {
    /// Returns the slot of a field, which is added if it is new.
    pub fn slot(&mut self, name: &str) -> Slot {
        let known = self.names.iter().position(|known| known == name);
        Slot(known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        }))
    }

    /// Returns true if a field has a slot.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// A field that a file has in another form.
#[derive(Debug, thiserror::Error)]
#[error(
    "its records are in the flat profile, where `{field}` is text: query it without the files in the full profile, by `{field} ~ \"*…*\"`"
)]
pub struct FlatField {
    /// Name of the field.
    pub field: String,
}

/// Maps the fields of a schema to slots of a row.
#[derive(Clone, Debug)]
pub struct Projection {
    slots: usize,
    steps: Vec<(Shape, Option<usize>)>,
}

impl Projection {
    /// Prepares to read records of a shape. Fields that the shape does not have are null.
    ///
    /// # Errors
    /// When `paths` has a field whose records are text in this schema.
    pub fn new(shape: &Shape, fields: &Fields, paths: &[String]) -> Result<Self, FlatField> {
        let columns = match shape {
            Shape::Record(columns) => &columns[..],
            _ => &[],
        };
        if let Some(field) = paths.iter().find(|path| is_text(columns, path)) {
            return Err(FlatField { field: field.clone() });
        }
        let steps = columns.iter().map(|(column, shape)| step(columns, fields, column, shape));
        Ok(Self { slots: fields.names.len(), steps: steps.collect() })
    }

    /// Calls `take` with a row for each of the `count` records in `block`; stops when it returns an error.
    ///
    /// # Errors
    /// The error of `take`, or that the data do not fit the shape.
    pub fn rows<'a, E: From<Damaged>>(
        &'a self,
        block: &'a [u8],
        count: u64,
        mut take: impl FnMut(Row<'_, 'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = Cursor::new(block);
        let mut values = vec![Value::Null; self.slots];
        for _ in 0..count {
            for (shape, slot) in &self.steps {
                match slot {
                    None => shape.skip(&mut cursor)?,
                    Some(slot) => values[*slot] = Value::read(shape, &mut cursor)?,
                }
            }
            take(Row { values: &values })?;
        }
        match cursor.rest() {
            [] => Ok(()),
            _ => Err(Damaged("bytes are left after the last record of a block").into()),
        }
    }
}

/// Returns how to read a column. The flat profile has times in milliseconds, and beside each the same in
/// microseconds, which are read in its place.
fn step(
    columns: &[(String, Shape)],
    fields: &Fields,
    column: &str,
    shape: &Shape,
) -> (Shape, Option<usize>) {
    let wanted = |name: &str| fields.names.iter().position(|wanted| wanted == name);
    let has = |name: &str| columns.iter().any(|(column, _)| column == name);
    let exact = format!("{column}_us");
    if has(&exact) && wanted(&exact).is_none() {
        return (shape.clone(), None);
    }
    match column.strip_suffix("_us").filter(|time| has(time)) {
        Some(time) if wanted(column).is_none() => (in_micros(shape), wanted(time)),
        _ => (shape.clone(), wanted(column)),
    }
}

fn is_text(columns: &[(String, Shape)], name: &str) -> bool {
    let text = |shape: &Shape| match shape {
        Shape::Union(variants) => variants.contains(&Shape::Text),
        shape => *shape == Shape::Text,
    };
    columns.iter().any(|(column, shape)| column == name && text(shape))
}

/// Returns the shape of a number as that of a time in microseconds.
fn in_micros(shape: &Shape) -> Shape {
    match shape {
        Shape::Long(Scale::None) => Shape::Long(Scale::Micros),
        Shape::Union(variants) => Shape::Union(variants.iter().map(in_micros).collect()),
        shape => shape.clone(),
    }
}

/// Returns the profile of records with this full name; `None` if they are no transactions.
#[must_use]
pub fn profile_of(name: &str) -> Option<Profile> {
    Profile::ALL.into_iter().find(|profile| profile.record_name() == name)
}
