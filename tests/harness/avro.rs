//! A small Avro reader, with which the demo checks the agent's file.
//!
//! The tests read with fastavro. The demo has to do without Python, and without a larger crate,
//! since `cargo xtask` is what a newcomer waits for first; and a reader that is not the crate the
//! agent's encoder is checked against would show a mistake that both share. It follows the schema in
//! the file and knows nothing of the record.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Opens an object container file (Avro 1.12, "Object container files").
const CONTAINER_MAGIC: &[u8] = b"Obj\x01";
const SYNC_SIZE: usize = 16;

/// The records of an object container file without compression.
///
/// # Errors
/// When the file is not whole or not well-formed.
pub fn read_container(file: &[u8]) -> Result<Vec<Value>> {
    let body = file.strip_prefix(CONTAINER_MAGIC).context("not an Avro object container file")?;
    let mut reader = Reader { rest: body };
    let metadata = reader.container_metadata()?;
    let entry = |key: &str| metadata.iter().find(|(k, _)| k == key).map(|(_, value)| *value);
    if let Some(codec) = entry("avro.codec").filter(|codec| *codec != b"null") {
        bail!("codec {} is not read here", String::from_utf8_lossy(codec));
    }
    let schema = entry("avro.schema").context("the file has no schema")?;
    let schema = Schema::new(serde_json::from_slice(schema)?);
    let sync = reader.bytes(SYNC_SIZE)?;

    let mut records = Vec::new();
    while !reader.rest.is_empty() {
        let count = reader.long()?;
        let size = reader.length()?;
        let mut block = Reader { rest: reader.bytes(size)? };
        for _ in 0..count {
            records.push(schema.read(&mut block)?);
        }
        if !block.rest.is_empty() {
            bail!("a block holds more than its records");
        }
        if reader.bytes(SYNC_SIZE)? != sync {
            bail!("a block does not end in the sync marker");
        }
    }
    Ok(records)
}

/// A schema, with its named types at hand.
struct Schema {
    root: Value,
    named: Map<String, Value>,
}

impl Schema {
    fn new(root: Value) -> Self {
        let mut named = Map::new();
        collect_named(&root, "", &mut named);
        Self { root, named }
    }

    fn read(&self, reader: &mut Reader<'_>) -> Result<Value> {
        self.read_type(&self.root, reader)
    }

    fn read_type(&self, schema: &Value, reader: &mut Reader<'_>) -> Result<Value> {
        match schema {
            Value::String(name) => match self.named.get(name) {
                Some(definition) => self.read_type(definition, reader),
                None => reader.primitive(name),
            },
            Value::Array(branches) => {
                let branch = branches.get(reader.length()?).context("no such union branch")?;
                self.read_type(branch, reader)
            }
            Value::Object(definition) => self.read_complex(definition, reader),
            other => bail!("{other} is not a schema"),
        }
    }

    fn read_complex(
        &self,
        definition: &Map<String, Value>,
        reader: &mut Reader<'_>,
    ) -> Result<Value> {
        let part = |key: &str| definition.get(key).with_context(|| format!("schema without {key}"));
        match part("type")?.as_str() {
            Some("record") => {
                let mut record = Map::new();
                for field in part("fields")?.as_array().into_iter().flatten() {
                    let name = field["name"].as_str().context("a field without a name")?;
                    let value = self.read_type(&field["type"], reader);
                    record.insert(name.to_owned(), value.with_context(|| format!("field {name}"))?);
                }
                Ok(Value::Object(record))
            }
            Some("enum") => {
                let symbol = part("symbols")?.get(reader.length()?);
                symbol.cloned().context("no such enum symbol")
            }
            Some("fixed") => {
                let size = part("size")?.as_u64().context("fixed without a size")?;
                Ok(json!(hex(reader.bytes(usize::try_from(size)?)?)))
            }
            Some("array") => {
                let items = part("items")?;
                let mut array = Vec::new();
                while let count @ 1.. = reader.block_count()? {
                    for _ in 0..count {
                        array.push(self.read_type(items, reader)?);
                    }
                }
                Ok(Value::Array(array))
            }
            Some("map") => {
                let values = part("values")?;
                let mut map = Map::new();
                while let count @ 1.. = reader.block_count()? {
                    for _ in 0..count {
                        let key = reader.string()?;
                        map.insert(key, self.read_type(values, reader)?);
                    }
                }
                Ok(Value::Object(map))
            }
            Some(primitive) => reader.primitive(primitive),
            None => self.read_type(part("type")?, reader),
        }
    }
}

/// Notes enums and fixeds by their name, with and without their namespace, which is that of the type
/// around them unless they say otherwise. (A record is never named twice in a tree of values.)
fn collect_named(schema: &Value, namespace: &str, named: &mut Map<String, Value>) {
    match schema {
        Value::Array(parts) => {
            parts.iter().for_each(|part| collect_named(part, namespace, named));
        }
        Value::Object(definition) => {
            let text = |key: &str| definition.get(key).and_then(Value::as_str);
            let namespace = text("namespace").unwrap_or(namespace);
            if let (Some(name), Some("enum" | "fixed")) = (text("name"), text("type")) {
                named.insert(format!("{namespace}.{name}"), schema.clone());
                named.insert(name.to_owned(), schema.clone());
            }
            for key in ["type", "items", "values", "fields"] {
                if let Some(part) = definition.get(key) {
                    collect_named(part, namespace, named);
                }
            }
        }
        _ => {}
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .with_context(|| format!("ends where {count} bytes should be"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Variable-length zig-zag, as Avro writes int and long.
    fn long(&mut self) -> Result<i64> {
        let mut raw = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        bail!("a number longer than ten bytes")
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.long()?).context("a negative length")
    }

    /// Items in the next block of an array or a map; a negative count is followed by a size.
    fn block_count(&mut self) -> Result<u64> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }

    fn string(&mut self) -> Result<String> {
        let size = self.length()?;
        Ok(String::from_utf8(self.bytes(size)?.to_vec())?)
    }

    fn primitive(&mut self, name: &str) -> Result<Value> {
        Ok(match name {
            "null" => Value::Null,
            "boolean" => json!(self.bytes(1)?[0] != 0),
            "int" | "long" => json!(self.long()?),
            "string" => json!(self.string()?),
            "bytes" => {
                let size = self.length()?;
                json!(hex(self.bytes(size)?))
            }
            "float" => json!(f32::from_le_bytes(self.bytes(4)?.try_into()?)),
            "double" => json!(f64::from_le_bytes(self.bytes(8)?.try_into()?)),
            other => bail!("type {other} is not defined"),
        })
    }

    fn container_metadata(&mut self) -> Result<Vec<(String, &'a [u8])>> {
        let mut metadata = Vec::new();
        while let count @ 1.. = self.block_count()? {
            for _ in 0..count {
                let key = self.string()?;
                let size = self.length()?;
                metadata.push((key, self.bytes(size)?));
            }
        }
        Ok(metadata)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_zig_zag() {
        for (bytes, value) in [(&[0x00][..], 0), (&[0x01], -1), (&[0x7f], -64), (&[0x80, 0x01], 64)]
        {
            assert_eq!(Reader { rest: bytes }.long().expect("whole"), value);
        }
    }

    #[test]
    fn a_container_is_read_by_its_own_schema() {
        let schema = br#"{"type":"record","name":"R","namespace":"n","fields":[
            {"name":"kind","type":{"type":"enum","name":"K","symbols":["X","Y"]}},
            {"name":"again","type":"n.K"},
            {"name":"note","type":["null","string"]},
            {"name":"list","type":{"type":"array","items":"int"}}]}"#;
        let mut file = CONTAINER_MAGIC.to_vec();
        file.push(2);
        file.push(22);
        file.extend(b"avro.schema");
        let size = u16::try_from(schema.len() * 2).expect("short");
        let [high, low] = (size << 1).to_be_bytes();
        file.extend([low >> 1 | 0x80, high]);
        file.extend(schema);
        file.push(0);
        file.extend([7; SYNC_SIZE]);
        // One record of 10 bytes: Y, X, "hi", [1, 2] in one block.
        let record = [2, 0, 2, 4, b'h', b'i', 4, 2, 4, 0];
        file.push(2);
        file.push(20);
        file.extend(record);
        file.extend([7; SYNC_SIZE]);
        let expected = json!({ "kind": "Y", "again": "X", "note": "hi", "list": [1, 2] });
        assert_eq!(read_container(&file).expect("well-formed"), [expected]);
        file.pop();
        assert!(read_container(&file).is_err());
    }
}
