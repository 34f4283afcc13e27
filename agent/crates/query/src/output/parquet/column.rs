//! The values of a column until its row group is written.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::writer::SerializedRowGroupWriter,
    schema::types::Type,
};

use crate::{
    avro::{Cursor, Damaged, Scale, Shape, chosen, each_item, symbol},
    row::Value,
};

/// A value that does not fit its column.
const MISFIT: Damaged =
    Damaged("it has another form than in the other files; write files of each profile separately");

/// A column, or several for a nested field.
pub(super) enum Node {
    Leaf(Leaf),
    /// Items, each of which repeats at `repetition`.
    List {
        item: Box<Node>,
        repetition: i16,
    },
    /// Keys and values.
    Map {
        key: Leaf,
        value: Box<Node>,
        repetition: i16,
    },
    /// Optional fields.
    Record(Vec<(String, Node)>),
}

/// A column.
#[derive(Default)]
pub(super) struct Leaf {
    values: Values,
    definitions: Vec<i16>,
    /// Empty if the column does not repeat.
    repetitions: Vec<i16>,
    repeats: bool,
}

enum Values {
    Booleans(Vec<bool>),
    Longs(Vec<i64>),
    /// All bytes, and the end of each value.
    Bytes(Vec<u8>, Vec<usize>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Bytes(Vec::new(), Vec::new())
    }
}

impl Node {
    /// Creates a column for an optional field of a shape, with its type. `definition` and `repetition` are
    /// the levels of what contains it.
    pub(super) fn new(
        name: &str,
        shape: &Shape,
        definition: i16,
        repetition: i16,
    ) -> Result<(Type, Self), ParquetError> {
        Self::with_presence(name, shape, Repetition::OPTIONAL, definition + 1, repetition)
    }

    fn with_presence(
        name: &str,
        shape: &Shape,
        presence: Repetition,
        definition: i16,
        repetition: i16,
    ) -> Result<(Type, Self), ParquetError> {
        let group = |fields: Vec<Type>, logical| {
            Type::group_type_builder(name)
                .with_repetition(presence)
                .with_logical_type(logical)
                .with_fields(fields.into_iter().map(Arc::new).collect())
                .build()
        };
        let repeated = |name: &str, fields: Vec<Type>| {
            Type::group_type_builder(name)
                .with_repetition(Repetition::REPEATED)
                .with_fields(fields.into_iter().map(Arc::new).collect())
                .build()
        };
        let (inner, again) = (definition + 1, repetition + 1);
        Ok(match shape {
            Shape::List(item) => {
                let required = Repetition::REQUIRED;
                let (kind, item) = Self::with_presence("element", item, required, inner, again)?;
                let list = repeated("list", vec![kind])?;
                let item = Box::new(item);
                (
                    group(vec![list], Some(LogicalType::List))?,
                    Self::List { item, repetition: again },
                )
            }
            Shape::Map(value) => {
                let required = Repetition::REQUIRED;
                let (key_type, key) = Leaf::new("key", &Shape::Text, required, again)?;
                let (kind, value) = Self::with_presence("value", value, required, inner, again)?;
                let entries = repeated("key_value", vec![key_type, kind])?;
                let value = Box::new(value);
                let node = Self::Map { key, value, repetition: again };
                (group(vec![entries], Some(LogicalType::Map))?, node)
            }
            Shape::Record(fields) => {
                let (mut types, mut nodes) = (Vec::new(), Vec::new());
                for (name, shape) in fields {
                    let (kind, node) = Self::new(name, shape, definition, repetition)?;
                    types.push(kind);
                    nodes.push((name.clone(), node));
                }
                (group(types, None)?, Self::Record(nodes))
            }
            shape => {
                let (kind, leaf) = Leaf::new(name, shape, presence, repetition)?;
                (kind, Self::Leaf(leaf))
            }
        })
    }

    /// Appends the value of a record; returns the bytes of memory that it takes.
    pub(super) fn push(&mut self, value: Value<'_>) -> Result<usize, Damaged> {
        match (self, value) {
            (node, Value::Null) => Ok(node.push_null(0, 0)),
            (Self::Leaf(leaf), value) => leaf.push(value, 1, 0),
            // Words in the flat profile.
            (Self::List { item, repetition }, value @ Value::Text(_)) => {
                let Self::Leaf(leaf) = &mut **item else { return Err(MISFIT) };
                let (mut bytes, mut level) = (Ok(0), 0);
                value.each(|word| {
                    let pushed = leaf.push(word, 2, std::mem::replace(&mut level, *repetition));
                    bytes = bytes.and_then(|bytes| Ok(bytes + pushed?));
                });
                bytes
            }
            (node, Value::Nested(shape, bytes)) => {
                node.push_data(shape, &mut Cursor::new(bytes), 1, 0)
            }
            _ => Err(MISFIT),
        }
    }

    fn push_null(&mut self, definition: i16, repetition: i16) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.push_level(definition, repetition),
            Self::List { item, .. } => item.push_null(definition, repetition),
            Self::Map { key, value, .. } => {
                key.push_level(definition, repetition) + value.push_null(definition, repetition)
            }
            Self::Record(fields) => {
                fields.iter_mut().map(|(_, node)| node.push_null(definition, repetition)).sum()
            }
        }
    }

    /// Appends a datum that is present at level `definition`.
    fn push_data<'a>(
        &mut self,
        shape: &'a Shape,
        cursor: &mut Cursor<'a>,
        definition: i16,
        mut level: i16,
    ) -> Result<usize, Damaged> {
        let mut bytes = 0;
        match (self, shape) {
            (node, Shape::Union(variants)) => match chosen(variants, cursor)? {
                Shape::Null => bytes = node.push_null(definition - 1, level),
                shape => bytes = node.push_data(shape, cursor, definition, level)?,
            },
            (Self::List { item, repetition }, Shape::List(item_shape)) => {
                let mut is_empty = true;
                each_item(cursor, |cursor| {
                    is_empty = false;
                    bytes += item.push_data(item_shape, cursor, definition + 1, level)?;
                    level = *repetition;
                    Ok(())
                })?;
                if is_empty {
                    bytes += item.push_null(definition, level);
                }
            }
            (Self::Map { key, value, repetition }, Shape::Map(value_shape)) => {
                let mut is_empty = true;
                each_item(cursor, |cursor| {
                    is_empty = false;
                    bytes += key.push(Value::Text(cursor.text()?), definition + 1, level)?;
                    bytes += value.push_data(value_shape, cursor, definition + 1, level)?;
                    level = *repetition;
                    Ok(())
                })?;
                if is_empty {
                    bytes += key.push_level(definition, level);
                    bytes += value.push_null(definition, level);
                }
            }
            (Self::Record(nodes), Shape::Record(shapes)) => {
                for (name, shape) in shapes {
                    match nodes.iter_mut().find(|(known, _)| known == name) {
                        Some((_, node)) => {
                            bytes += node.push_data(shape, cursor, definition + 1, level)?;
                        }
                        None => shape.skip(cursor)?,
                    }
                }
                for (name, node) in nodes {
                    if !shapes.iter().any(|(known, _)| known == name) {
                        bytes += node.push_null(definition, level);
                    }
                }
            }
            (Self::Leaf(leaf), shape) => {
                bytes = leaf.push(scalar(shape, cursor)?, definition, level)?;
            }
            _ => return Err(MISFIT),
        }
        Ok(bytes)
    }

    /// Writes the values of the row group, and begins the next one.
    pub(super) fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        match self {
            Self::Leaf(leaf) => leaf.write(group),
            Self::List { item, .. } => item.write(group),
            Self::Map { key, value, .. } => {
                key.write(group)?;
                value.write(group)
            }
            Self::Record(fields) => fields.iter_mut().try_for_each(|(_, node)| node.write(group)),
        }
    }
}

fn scalar<'a>(shape: &'a Shape, cursor: &mut Cursor<'a>) -> Result<Value<'a>, Damaged> {
    Ok(match shape {
        Shape::Boolean => Value::Boolean(cursor.boolean()?),
        Shape::Long(scale) => Value::Number(scale.to_micros(cursor.long()?)),
        Shape::Bytes => Value::Bytes(cursor.bytes()?),
        Shape::Fixed(length) => Value::Bytes(cursor.take(*length)?),
        Shape::Text => Value::Text(cursor.text()?),
        Shape::Symbol(symbols) => Value::Text(symbol(symbols, cursor)?),
        _ => return Err(MISFIT),
    })
}

impl Leaf {
    fn new(
        name: &str,
        shape: &Shape,
        presence: Repetition,
        repetition: i16,
    ) -> Result<(Type, Self), ParquetError> {
        let (physical, logical, values) = match shape {
            Shape::Boolean => (Physical::BOOLEAN, None, Values::Booleans(Vec::new())),
            Shape::Long(Scale::None) => (Physical::INT64, None, Values::Longs(Vec::new())),
            Shape::Long(_) => {
                let time = LogicalType::timestamp(true, TimeUnit::MICROS);
                (Physical::INT64, Some(time), Values::Longs(Vec::new()))
            }
            Shape::Bytes | Shape::Fixed(_) => (Physical::BYTE_ARRAY, None, Values::default()),
            _ => (Physical::BYTE_ARRAY, Some(LogicalType::String), Values::default()),
        };
        let kind = Type::primitive_type_builder(name, physical)
            .with_repetition(presence)
            .with_logical_type(logical)
            .build()?;
        Ok((kind, Self { values, repeats: repetition > 0, ..Self::default() }))
    }

    fn push_level(&mut self, definition: i16, repetition: i16) -> usize {
        self.definitions.push(definition);
        if self.repeats {
            self.repetitions.push(repetition);
        }
        size_of::<[i16; 2]>()
    }

    fn push(
        &mut self,
        value: Value<'_>,
        definition: i16,
        repetition: i16,
    ) -> Result<usize, Damaged> {
        let push_bytes = |values: &mut Values, bytes: &[u8]| match values {
            Values::Bytes(all, ends) => {
                all.extend_from_slice(bytes);
                ends.push(all.len());
                Ok(bytes.len())
            }
            _ => Err(MISFIT),
        };
        let bytes = match (&mut self.values, value) {
            (Values::Booleans(values), Value::Boolean(value)) => {
                values.push(value);
                1
            }
            (Values::Longs(values), Value::Number(value) | Value::Time(value)) => {
                values.push(value);
                size_of::<i64>()
            }
            (values, Value::Text(text)) => push_bytes(values, text.as_bytes())?,
            (values, Value::Bytes(bytes)) => push_bytes(values, bytes)?,
            _ => return Err(MISFIT),
        };
        Ok(bytes + self.push_level(definition, repetition))
    }

    fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let definitions = std::mem::take(&mut self.definitions);
        let repetitions = std::mem::take(&mut self.repetitions);
        let levels = (Some(&definitions[..]), self.repeats.then_some(&repetitions[..]));
        let column = group.next_column()?;
        let mut column =
            column.ok_or_else(|| ParquetError::General("a column is missing".to_owned()))?;
        match &mut self.values {
            Values::Booleans(values) => {
                column.typed::<BoolType>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::Longs(values) => {
                column.typed::<Int64Type>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::Bytes(all, ends) => {
                let all = Bytes::from(std::mem::take(all));
                let mut start = 0;
                let values = ends.drain(..).map(|end| {
                    let value = all.slice(std::mem::replace(&mut start, end)..end);
                    ByteArray::from(value)
                });
                let values: Vec<ByteArray> = values.collect();
                column.typed::<ByteArrayType>().write_batch(&values, levels.0, levels.1)?;
            }
        }
        column.close()
    }
}
