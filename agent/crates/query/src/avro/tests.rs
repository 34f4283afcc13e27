use std::sync::LazyLock;

use apache_avro::{Codec, DeflateSettings, Reader, Schema, Writer, types::Value};
use proptest::prelude::*;
use tap53_records::encode::{Batch, Profile, samples};

use super::*;

/// The samples of a profile, one after the other.
fn batch(profile: Profile) -> Batch {
    let (mut batch, mut encoder) = (Batch::default(), profile.datum().build().unwrap());
    for name in samples::NAMES {
        samples::with_record(name, |record| batch.push(&mut *encoder, record).unwrap());
    }
    batch
}

/// A container by apache-avro, of the values that it reads from the samples.
fn container(profile: Profile, codec: Codec) -> (Vec<u8>, Vec<Value>) {
    let schema: &Schema = profile.schema().unwrap();
    let batch = batch(profile);
    let mut data = batch.bytes();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(schema).build().unwrap();
    let values: Vec<Value> =
        (0..batch.records()).map(|_| reader.read_value(&mut data).unwrap()).collect();
    let mut writer = Writer::with_codec(schema, Vec::new(), codec).unwrap();
    for value in &values {
        writer.append_value(value.clone()).unwrap();
        writer.flush().unwrap();
    }
    (writer.into_inner().unwrap(), values)
}

/// A number of records, and their data.
type Block = (u64, Vec<u8>);

fn blocks(file: &[u8]) -> (Container<&[u8]>, Vec<Block>) {
    let mut container = Container::open(file).unwrap();
    let (mut blocks, mut block) = (Vec::new(), Vec::new());
    while let Some(records) = container.next_block(&mut block).unwrap() {
        blocks.push((records, block.clone()));
    }
    (container, blocks)
}

/// The JSON of a value as this crate writes it.
fn json(value: Value) -> serde_json::Value {
    use serde_json::Value as Json;
    let hexadecimal = |bytes: &[u8]| Json::from(data_encoding::HEXLOWER.encode(bytes));
    let time = |micros| format!("{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap()).into();
    match value {
        Value::Null => Json::Null,
        Value::Union(_, value) => json(*value),
        Value::Boolean(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::Long(value) => value.into(),
        Value::TimestampMillis(millis) => time(millis * 1_000),
        Value::TimestampMicros(micros) => time(micros),
        Value::String(text) | Value::Enum(_, text) => text.into(),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => hexadecimal(&bytes),
        Value::Array(values) => values.into_iter().map(json).collect::<Vec<_>>().into(),
        Value::Map(values) => Json::Object(values.into_iter().map(|(k, v)| (k, json(v))).collect()),
        Value::Record(values) => {
            Json::Object(values.into_iter().map(|(k, v)| (k, json(v))).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_are_read_as_apache_avro_reads_them_with_every_codec() {
    let codecs = [Codec::Null, Codec::Deflate(DeflateSettings::default())];
    for (profile, codec) in Profile::ALL.into_iter().flat_map(|it| codecs.map(|codec| (it, codec)))
    {
        let (file, values) = container(profile, codec);
        let (container, blocks) = blocks(&file);
        assert_eq!(container.name(), profile.record_name());
        assert_eq!(blocks.len(), values.len());
        for ((records, block), value) in blocks.iter().zip(values) {
            assert_eq!(*records, 1);
            let (mut cursor, mut text) = (Cursor::new(block), Vec::new());
            container.shape().push_json(&mut cursor, &mut text).unwrap();
            assert!(cursor.rest().is_empty());
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(read, json(value));
            let mut cursor = Cursor::new(block);
            container.shape().skip(&mut cursor).unwrap();
            assert!(cursor.rest().is_empty());
        }
    }
}

/// A container of one block, written byte by byte.
fn by_hand(codec: &str, records: u64, block: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let long = |file: &mut Vec<u8>, number: usize| {
        tap53_records::encode::push_long(file, i64::try_from(number).unwrap());
    };
    long(&mut file, 2);
    for text in ["avro.schema", Profile::Full.schema_text(), "avro.codec", codec] {
        long(&mut file, text.len());
        file.extend_from_slice(text.as_bytes());
    }
    file.push(0);
    file.extend_from_slice(&[7; 16]);
    long(&mut file, usize::try_from(records).unwrap());
    long(&mut file, block.len());
    file.extend_from_slice(block);
    file.extend_from_slice(&[7; 16]);
    file
}

#[test]
fn zstandard_is_read_and_other_codecs_are_refused_by_their_name() {
    let batch = batch(Profile::Full);
    let compressed = zstd::encode_all(batch.bytes(), 0).unwrap();
    let (_, blocks) = blocks(&by_hand("zstandard", batch.records(), &compressed));
    assert_eq!(blocks, [(batch.records(), batch.bytes().to_vec())]);
    let error = Container::open(&by_hand("snappy", 1, b"")[..]).unwrap_err().to_string();
    assert!(error.contains("compressed with snappy, which is not supported"), "{error}");
}

#[test]
fn apache_avro_reads_no_more_than_this() {
    let (file, values) = container(Profile::Full, Codec::Null);
    assert_eq!(Reader::new(&file[..]).unwrap().count(), values.len());
    assert_eq!(values.len(), samples::NAMES.len());
}

#[test]
fn every_published_version_has_a_shape() {
    for profile in Profile::ALL {
        for version in profile.versions() {
            let (name, shape) = Shape::parse(version.text).unwrap();
            assert_eq!(name, profile.record_name());
            assert!(matches!(shape, Shape::Record(fields) if fields.len() >= 70));
        }
    }
}

#[test]
fn schemas_whose_items_cost_no_bytes_are_refused() {
    for items in ["\"null\"", r#"{"type":"record","name":"E","fields":[]}"#] {
        let schema = format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{{"type":"array","items":{items}}}}}]}}"#
        );
        let error = Shape::parse(&schema).unwrap_err().to_string();
        assert!(error.contains("items without content"), "{error}");
    }
}

#[test]
fn a_cut_or_damaged_file_is_an_error_with_its_place_after_the_blocks_before() {
    let (file, _) = container(Profile::Full, Codec::Null);
    let mut cut = Container::open(&file[..file.len() - 20]).unwrap();
    let mut block = Vec::new();
    let mut whole = 0;
    let error = loop {
        match cut.next_block(&mut block) {
            Ok(Some(_)) => whole += 1,
            Ok(None) => panic!("the cut is not seen"),
            Err(error) => break error,
        }
    };
    assert_eq!(whole, samples::NAMES.len() - 1);
    assert!(matches!(error, Error::Cut(_)), "{error}");
    let mut marked = file.clone();
    let last = marked.len() - 1;
    marked[last] ^= 1;
    let mut damaged = Container::open(&marked[..]).unwrap();
    let error = std::iter::repeat_with(|| damaged.next_block(&mut block)).find_map(Result::err);
    assert!(error.unwrap().to_string().contains("marker"));
    assert!(Container::open(&b"Obj\x01"[..]).is_err());
    assert!(Container::open(&b"PK"[..]).is_err());
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let (file, _) = container(Profile::Full, Codec::Null);
    let header = Container::open(&file[..]).unwrap();
    let header = file.len() - header_rest(header);
    // One record of 200 MiB, of which nothing is there.
    let mut claimed = file[..header].to_vec();
    tap53_records::encode::push_long(&mut claimed, 1);
    tap53_records::encode::push_long(&mut claimed, 200 << 20);
    let mut container = Container::open(&claimed[..]).unwrap();
    let mut block = Vec::new();
    assert!(matches!(container.next_block(&mut block), Err(Error::Cut(_))));
    assert!(block.capacity() < 1 << 20);
}

fn header_rest(mut container: Container<&[u8]>) -> usize {
    let mut rest = 0;
    let mut block = Vec::new();
    while let Some(records) = container.next_block(&mut block).unwrap() {
        // The count in one byte, the length in two at most, and the marker.
        assert_eq!(records, 1);
        let mut length = Vec::new();
        tap53_records::encode::push_long(&mut length, i64::try_from(block.len()).unwrap());
        rest += 1 + length.len() + block.len() + 16;
    }
    rest
}

proptest! {
    #[test]
    fn damaged_data_are_an_error_and_no_panic(
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        static SHAPE: LazyLock<Shape> =
            LazyLock::new(|| Shape::parse(Profile::Full.schema_text()).unwrap().1);
        let mut data = batch(Profile::Full).bytes().to_vec();
        let at = at.index(data.len());
        let end = (at + bytes.len()).min(data.len());
        data[at..end].copy_from_slice(&bytes[..end - at]);
        let (mut cursor, mut out) = (Cursor::new(&data), Vec::new());
        while !cursor.rest().is_empty() && SHAPE.push_json(&mut cursor, &mut out).is_ok() {}
    }

    #[test]
    fn damaged_files_are_an_error_and_no_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            container(Profile::Flat, Codec::Deflate(DeflateSettings::default())).0
        });
        let mut file = FILE.clone();
        let at = at.index(file.len());
        file[at] = byte;
        let mut block = Vec::new();
        if let Ok(mut container) = Container::open(&file[..]) {
            while let Ok(Some(_)) = container.next_block(&mut block) {}
        }
    }
}
