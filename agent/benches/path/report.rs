//! The table of one run.

use tap53_records::encode::{Format, Record};

use crate::stage::{Name, Stage};

/// Each figure beside its target, where it has one.
pub(crate) fn print_table(stages: &[Stage<'_>], [avro, flat, json]: [Sizes; 3]) {
    let ns = |name| stages.iter().find(|stage| stage.name == name).map_or(f64::NAN, Stage::median);
    for stage in stages {
        let target = match stage.name {
            Name::PathToAvro => "   target: at most 450",
            _ => "",
        };
        println!("  {:<42} {:>8.0}{target}", stage.name.text(), stage.median());
    }
    let faster = |text: &str, target: &str, ratio: f64| {
        println!("  {text:<42} {ratio:>8.1}{target}");
    };
    let [read, replaced] = [Name::ReadAndPair, Name::PathReplaced].map(ns);
    faster("read: times faster than hickory-proto", "", ns(Name::ReadByHickory) / ns(Name::Read));
    let encode = ns(Name::EncodeJson) / ns(Name::EncodeAvro);
    faster("encode: times faster than serde_json", "   target: at least 8", encode);
    let whole = replaced / ns(Name::PathToAvro);
    faster("whole path: times faster than the replaced", "   target: at least 9", whole);
    let timed = ns(Name::PathTimed) / ns(Name::PathToAvro);
    println!("  {:<42} {timed:>8.3}", "timed, as a part of untimed");
    let [counted, named] =
        [Name::PathCounted, Name::PathCountedWithNames].map(|name| ns(name) / ns(Name::PathToAvro));
    let text = "with metrics of the DNS, as a part of without";
    println!("  {text:<42} {counted:>8.3}   target: at most 1.05");
    println!("  {:<42} {named:>8.3}", "with top names and clients too");
    let signals = ns(Name::PathWithSignals) - ns(Name::PathToAvro);
    println!("  {:<42} {signals:>8.0}   target: at most 50", "ns that signals add");
    let chained = ns(Name::PathChained) / ns(Name::PathToAvro);
    println!("  {:<42} {chained:>8.3}", "with tamper evidence, as a part of without");
    for (name, text) in [
        (Name::PathWithChains, "with chains, of no resolver, as a part of without"),
        (Name::PathOfResolver, "with chains, of a resolver, as a part of without"),
    ] {
        println!("  {text:<50} {:>8.3}", ns(name) / ns(Name::PathToAvro));
    }
    let rest = ns(Name::PathToAvro) - read - ns(Name::EncodeAvro);
    faster("whole path less read, pair and encode, ns", "", rest);
    let flat_costs = ns(Name::EncodeFlat) / ns(Name::EncodeAvro);
    faster("flat profile: times the cost of encoding", "", flat_costs);
    let sizes = |text: &str, avro: f64, json: f64, target: &str| {
        println!("  {:<42} {avro:>8.0}", format!("bytes per record{text}, Avro"));
        println!("  {:<42} {json:>8.0}", format!("bytes per record{text}, JSON"));
        println!("  {:<42} {:>8.2}{target}", "  Avro as a part of JSON", avro / json);
    };
    sizes("", avro.raw, json.raw, "   target: at most 0.43");
    println!("  {:<42} {:>8.0}", "bytes per record, flat profile", flat.raw);
    println!("  {:<42} {:>8.0}", "bytes per record after zstd, flat profile", flat.compressed);
    sizes(" after zstd", avro.compressed, json.compressed, "   target: at most 0.71");
}

/// Bytes per record, as they are and as zstd leaves them of all together, at its usual level.
pub(crate) struct Sizes {
    raw: f64,
    compressed: f64,
}

pub(crate) fn sizes(records: &[Record<'_>], format: Format) -> Sizes {
    let mut encoder = format.build().expect("the embedded schema parses");
    let mut out = Vec::new();
    for record in records {
        encoder.encode(record, &mut out).expect("a record of the schema");
    }
    let compressed = zstd::bulk::compress(&out, zstd::DEFAULT_COMPRESSION_LEVEL);
    let compressed = compressed.expect("memory is there").len();
    let [raw, compressed] = [out.len(), compressed].map(|size| size as f64 / records.len() as f64);
    Sizes { raw, compressed }
}
