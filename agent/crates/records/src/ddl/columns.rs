//! Columns, derived from an Avro schema.

use std::collections::HashMap;

use serde_json::Value;

use super::Dialect;

/// Errors of deriving a table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The dialect has no column type for a field.
    #[error(
        "{dialect} has no column for field {field}, which holds {what}: have the agents write the \
         flat profile (record.profile: flat), and use --profile flat here"
    )]
    Nested {
        /// The target system.
        dialect: Dialect,
        /// Name of the field.
        field: String,
        /// The kind of its content.
        what: &'static str,
    },
    /// The schema is not one of this program's, or has an unsupported form.
    #[error("the schema cannot be made a table: {0}")]
    Schema(String),
}

/// A table.
pub(super) struct Table {
    pub(super) doc: String,
    pub(super) columns: Vec<Column>,
}

/// A column, or a field of a structure.
#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// True if every version of the schema has a value for it.
    pub(super) is_required: bool,
    pub(super) doc: String,
}

/// The type of a column.
#[derive(Clone)]
pub(super) enum Kind {
    Boolean,
    Int,
    Long,
    /// Milliseconds since 1970 UTC.
    Millis,
    /// Microseconds since 1970 UTC.
    Micros,
    /// UTF-8 text, with its maximum octets if the schema states them.
    Text(Option<usize>),
    Octets,
    Array(Box<Self>),
    Map(Box<Self>),
    Structure(Vec<Column>),
}

impl Kind {
    /// Describes the type if it is not a single value.
    pub(super) const fn nested(&self) -> Option<&'static str> {
        match self {
            Self::Array(_) => Some("an array"),
            Self::Map(_) => Some("a map"),
            Self::Structure(_) => Some("a record"),
            _ => None,
        }
    }
}

impl Table {
    pub(super) fn of(schema: &str) -> Result<Self, Error> {
        let schema: Value =
            serde_json::from_str(schema).map_err(|error| Error::Schema(error.to_string()))?;
        let mut types = Types::default();
        match types.read(&schema)? {
            Kind::Structure(columns) => Ok(Self { doc: text(&schema, "doc"), columns }),
            _ => Err(Error::Schema("it is no record".to_owned())),
        }
    }
}

fn text(part: &Value, key: &str) -> String {
    part[key].as_str().unwrap_or_default().to_owned()
}

/// Types that the schema has named so far.
#[derive(Default)]
struct Types(HashMap<String, Kind>);

impl Types {
    fn read(&mut self, kind: &Value) -> Result<Kind, Error> {
        match kind {
            Value::String(name) => self.named(name),
            Value::Object(_) => self.complex(kind),
            other => Err(Error::Schema(format!("type {other}"))),
        }
    }

    fn named(&self, name: &str) -> Result<Kind, Error> {
        Ok(match name {
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "string" => Kind::Text(None),
            "bytes" => Kind::Octets,
            _ => {
                let known = self.0.get(name).cloned();
                known.ok_or_else(|| Error::Schema(format!("type {name}")))?
            }
        })
    }

    fn complex(&mut self, kind: &Value) -> Result<Kind, Error> {
        let found = match (text(kind, "type").as_str(), text(kind, "logicalType").as_str()) {
            ("long", "timestamp-millis") => Kind::Millis,
            ("long", "timestamp-micros") => Kind::Micros,
            ("enum", _) => Kind::Text(None),
            ("fixed", _) => Kind::Octets,
            ("array", _) => Kind::Array(Box::new(self.read(&kind["items"])?)),
            ("map", _) => Kind::Map(Box::new(self.read(&kind["values"])?)),
            ("record", _) => {
                let fields = kind["fields"].as_array();
                let fields =
                    fields.ok_or_else(|| Error::Schema("a record without fields".into()))?;
                let columns = fields.iter().map(|field| self.column(field));
                Kind::Structure(columns.collect::<Result<_, _>>()?)
            }
            (other, _) => return Err(Error::Schema(format!("type {other}"))),
        };
        if let Some(name) = kind["name"].as_str() {
            self.0.insert(name.to_owned(), found.clone());
        }
        Ok(found)
    }

    fn column(&mut self, field: &Value) -> Result<Column, Error> {
        let (kind, is_nullable) = match &field["type"] {
            Value::Array(union) => match &union[..] {
                [Value::String(null), kind] if null == "null" => (self.read(kind)?, true),
                _ => return Err(Error::Schema(format!("union {}", field["type"]))),
            },
            kind => (self.read(kind)?, false),
        };
        let kind = match (kind, field["maxOctets"].as_u64()) {
            (Kind::Text(_), Some(octets)) => Kind::Text(usize::try_from(octets).ok()),
            (kind, _) => kind,
        };
        Ok(Column {
            name: text(field, "name"),
            kind,
            // A field with a default is missing in earlier versions.
            is_required: !is_nullable && field.get("default").is_none(),
            doc: text(field, "doc"),
        })
    }
}
