//! Records that are altered, removed, exchanged or inserted.

use super::*;

#[test]
fn records_are_proven_in_any_order_framing_and_number_of_copies() {
    let agent = Agent::whole(1, 0, 300);
    let genuine = |report: &Report| {
        assert_eq!(report.findings, [], "{report}");
        assert_eq!((report.records.expected, report.records.proven), (1_800, 1_800));
        assert_eq!((report.summaries, report.signatures_valid), (4, 4));
        assert!(report.to_string().ends_with("no tampering found\n"), "{report}");
    };
    let mut records = agent.values();
    genuine(&verify(with_key(PUBLIC), &agent.summaries, &records));
    records.reverse();
    records.extend(agent.values().into_iter().take(100));
    let summaries: Vec<_> = agent.summaries.iter().chain(&agent.summaries).cloned().collect();
    let report = verify(with_key(PUBLIC), &summaries, &records);
    genuine(&report);
    assert_eq!(report.records.duplicates, 100);
    let framed = |message: &Vec<u8>| {
        let mut framed = Vec::new();
        frame(7, &message[10..], &mut framed);
        framed
    };
    let records: Vec<_> = records.iter().map(framed).collect();
    let summaries: Vec<_> = summaries.iter().map(framed).collect();
    genuine(&verify(with_key(PUBLIC), &summaries, &records));
}

/// (Files have values, not the bytes that were written.)
#[test]
fn containers_and_lines_of_json_prove_the_same() {
    let agent = Agent::whole(1, 0, 300);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut file =
        AvroFile::begin(fs::File::create(at("records.avro")).unwrap(), Profile::Full).unwrap();
    agent.records.iter().for_each(|record| file.push(&record.bytes[10..]).unwrap());
    file.finish().unwrap();
    let mut writer = apache_avro::Writer::new(summary_schema().unwrap(), Vec::new()).unwrap();
    let mut lines = String::new();
    for summary in &agent.summaries {
        let reader =
            apache_avro::reader::datum::GenericDatumReader::builder(summary_schema().unwrap());
        let value = reader.build().unwrap().read_value(&mut &summary[10..]).unwrap();
        lines.push_str(&(files_json(value.clone()) + "\n"));
        writer.append_value(value).unwrap();
    }
    fs::write(at("summaries.avro"), writer.into_inner().unwrap()).unwrap();
    fs::write(at("summaries.json"), &lines).unwrap();
    let mut lines = Vec::new();
    for record in agent.records.iter().rev() {
        push_json_line(Profile::Full, &record.bytes[10..], &mut lines).unwrap();
    }
    fs::write(at("records.json"), &lines).unwrap();
    for names in [
        ["records.avro", "summaries.avro"],
        ["summaries.json", "records.json"],
        ["records.json", "summaries.avro"],
    ] {
        let mut verifier = Verifier::new(with_key(PUBLIC)).unwrap();
        read_files(&mut verifier, &names.map(at)).unwrap();
        let report = verifier.finish();
        assert_eq!(report.findings, [], "{names:?}: {report}");
        assert_eq!((report.records.proven, report.signatures_valid), (1_800, 4));
    }
    // A value that is changed in the text.
    let text = String::from_utf8(lines).unwrap().replacen("\"qtype\":\"A\"", "\"qtype\":\"NS\"", 1);
    fs::write(at("records.json"), text).unwrap();
    let mut verifier = Verifier::new(with_key(PUBLIC)).unwrap();
    read_files(&mut verifier, &["summaries.json", "records.json"].map(at)).unwrap();
    let report = verifier.finish();
    assert_eq!(kinds(&report), [Kind::RecordsAltered]);
    assert!(names(&report, 3), "{report}");
}

fn files_json(value: apache_avro::types::Value) -> String {
    files::to_json(value).unwrap().to_string()
}

#[test]
fn every_flipped_bit_of_a_record_is_found_and_its_window_named() {
    let agent = Agent::whole(1, 0, 2);
    for window in 1..=3 {
        let position = agent.position(u16::from(window == 2), window);
        let mut records = agent.values();
        let end = 8 * records[position].len();
        assert!(end > 2_000);
        for bit in bits(0, end, if window == 2 { 1 } else { 29 }) {
            records[position][bit / 8] ^= 1 << (bit % 8);
            let report = verify(Options::default(), &agent.summaries, &records);
            assert!(mentions(&report, window), "bit {bit} in window {window}: {report}");
            records[position][bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_removed_record_is_found_if_none_is_counted_as_lost() {
    let agent = Agent::whole(1, 0, 300);
    for window in 1..=3 {
        let mut records = agent.values();
        records.remove(agent.position(1, window) + 7);
        let report = verify(Options::default(), &agent.summaries, &records);
        assert_eq!(kinds(&report), [Kind::RecordsMissing], "{report}");
        assert!(names(&report, window), "{report}");
        assert_eq!(report.findings[0].worker, Some(1));
        assert_eq!((report.records.missing, report.records.lost), (1, 0));
    }
}

#[test]
fn exchanged_records_are_found() {
    let agent = Agent::whole(1, 0, 300);
    let [first, second] = [agent.position(0, 1) + 3, agent.position(0, 2) + 5];
    // All that a record has is bound to its number: another number in it is another record.
    let with_number_of = |from: usize, number: usize| {
        let shape = Shape::parse(tap53_records::encode::SCHEMA_TEXT).unwrap();
        let decode = |at: usize| shape.decode(&mut &agent.records[at].bytes[10..]).unwrap();
        let mut value = decode(from);
        value["record_number"] = decode(number)["record_number"].clone();
        let mut bytes = agent.records[from].bytes[..10].to_vec();
        shape.encode(&value, &mut bytes).unwrap();
        bytes
    };
    let mut records = agent.values();
    records[first] = with_number_of(second, first);
    records[second] = with_number_of(first, second);
    let report = verify(Options::default(), &agent.summaries, &records);
    assert_eq!(kinds(&report), [Kind::RecordsAltered], "{report}");
    let windows: Vec<_> = report.findings.iter().map(|finding| finding.windows).collect();
    assert_eq!(windows, [Some([1, 1]), Some([2, 2])], "{report}");
    // The order in which they come does not matter.
    let mut records = agent.values();
    records.swap(first, second);
    assert_eq!(verify(Options::default(), &agent.summaries, &records).findings, []);
}

#[test]
fn an_inserted_record_is_found() {
    let agent = Agent::whole(1, 0, 30);
    let other = Agent::whole(2, 0, 30);
    let inserted = |record: Vec<u8>| {
        let records = [agent.values(), vec![record]].concat();
        verify(Options::default(), &agent.summaries, &records)
    };
    // A record of an unknown run.
    let report = inserted(other.records[0].bytes.clone());
    assert_eq!(kinds(&report), [Kind::RecordsUnknown], "{report}");
    // Another one with a number that is taken.
    let mut forged = agent.records[4].bytes.clone();
    *forged.last_mut().unwrap() = 2;
    let report = inserted(forged);
    assert_eq!(kinds(&report), [Kind::RecordsConflict], "{report}");
    assert!(names(&report, 1));
    // With a number beyond the last one of a run that has ended.
    let more = Agent::whole(1, 0, 31);
    let report = inserted(more.records.last().unwrap().bytes.clone());
    assert_eq!(kinds(&report), [Kind::RecordsUnknown], "{report}");
    // Something else.
    for message in [&b""[..], b"\0\0\0\0\x07", b"{}"] {
        assert_eq!(kinds(&inserted(message.to_vec())), [Kind::RecordsUnreadable]);
    }
}

/// Changes one of many records (`TAP53_VERIFY_RECORDS`) in each way, at several positions, and finds the
/// change.
#[test]
fn one_change_among_many_records_is_found() {
    let each = many().unwrap_or(6_000) / 6;
    let agent = Agent::whole(1, 0, each);
    let mut records = agent.values();
    let report = verify(with_key(PUBLIC), &agent.summaries, &records);
    assert_eq!((report.findings.len(), report.records.proven), (0, 6 * each), "{report}");
    let mut seed = 53_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let changes = if many().is_some() { 4 } else { 24 };
    for change in 0..changes {
        let (position, length) = (random(records.len()), records.len());
        let window = agent.records[position].window;
        let original = records[position].clone();
        match change % 4 {
            0 => records[position][10 + change] ^= 1 << random(8),
            1 => records[position] = records[(position + 1) % length].clone(),
            2 => drop(records.remove(position)),
            _ => {
                // The record's last byte is a count that is zero.
                let mut other = original.clone();
                *other.last_mut().unwrap() = 4;
                records.push(other);
            }
        }
        let report = verify(with_key(PUBLIC), &agent.summaries, &records);
        assert!(names(&report, window), "change {change} of record {position}: {report}");
        records = agent.values();
    }
}
