//! Files that are wrong, and times that are.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tap53_harness::{account::Ledger, agent, dns, pcap::Pcap};

use super::{FAILED, json_lines, stderr, text};

pub(super) const CLIENT: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000);
pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)), 53);

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// A query, and with `response` what answers it, without answers.
pub(super) fn message(id: u16, response: bool) -> Vec<u8> {
    let mut message = dns::query(id, "www.tap53.test", "A");
    if response {
        message[2] |= 0x80;
    }
    message
}

/// A query without an answer in the file.
pub(super) fn ask(file: &mut Pcap, at: Duration, id: u16) {
    file.udp_at(at, CLIENT, SERVER, &message(id, false));
}

/// A response.
fn answer(file: &mut Pcap, at: Duration, id: u16) {
    file.udp_at(at, SERVER, CLIENT, &message(id, true));
}

/// A query, and its response a millisecond later.
pub(super) fn exchange(file: &mut Pcap, at: Duration, id: u16) {
    ask(file, at, id);
    answer(file, at + Duration::from_millis(1), id);
}

/// A file of exchanges, each with its time in seconds and its identifier.
pub(super) fn exchanges(exchanges: &[(u64, u16)]) -> Pcap {
    let mut file = Pcap::default();
    for (at_s, id) in exchanges {
        exchange(&mut file, Duration::from_secs(*at_s), *id);
    }
    file
}

struct Replayed {
    records: Vec<Value>,
    ledger: Value,
    code: Option<i32>,
    stderr: String,
}

/// Replays to JSON lines.
fn replay(files: &[&Path]) -> Result<Replayed> {
    let directory = tempfile::tempdir()?;
    let ledger = directory.path().join("ledger.json");
    let mut arguments = vec!["replay", "--json", "--ledger", text(&ledger)?];
    for file in files {
        arguments.push(text(file)?);
    }
    let output = agent::run(&arguments)?;
    let ledger: Value = serde_json::from_slice(&fs::read(&ledger)?)?;
    Ledger(&ledger).require_balance()?;
    Ok(Replayed {
        records: json_lines(&output.stdout)?,
        ledger,
        code: output.status.code(),
        stderr: stderr(&output),
    })
}

fn outcomes(replayed: &Replayed) -> Vec<(u64, &str, bool)> {
    let of = |record: &'_ Value| {
        (record["dns_id"].as_u64().unwrap_or(u64::MAX), record["capture_gap"] == true)
    };
    let mut outcomes: Vec<(u64, &str, bool)> = replayed
        .records
        .iter()
        .map(|record| (of(record).0, record["outcome"].as_str().unwrap_or_default(), of(record).1))
        .collect();
    outcomes.sort_unstable();
    outcomes
}

#[test]
fn a_file_that_cannot_be_opened_is_named_before_any_is_replayed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let good = directory.path().join("good.pcap");
    exchanges(&[(0, 1)]).write(&good)?;
    let missing = directory.path().join("missing.pcap");
    for (path, reason) in
        [(missing.as_path(), "No such file or directory"), (directory.path(), "is a directory")]
    {
        let output = agent::run(&["replay", text(&good)?, text(path)?])?;
        assert_eq!(output.status.code(), Some(FAILED), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "a record, although a file is missing");
        for part in [text(path)?, "cannot be opened", reason] {
            assert!(stderr(&output).contains(part), "{part:?} is not in: {}", stderr(&output));
        }
    }
    Ok(())
}

#[test]
fn a_file_that_is_wrong_is_named_after_the_ledger_and_the_others_are_replayed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let good = directory.path().join("good.pcap");
    exchanges(&[(1, 2)]).write(&good)?;
    let whole = exchanges(&[(0, 1)]);
    let bad = directory.path().join("bad.pcap");
    let cut = &whole.bytes()[..whole.bytes().len() - 1];
    for (content, reason, records) in [
        (&b""[..], "is empty", 1),
        (b"TIME (UTC)  CLIENT", "is neither pcap nor pcapng: it begins with 54 49 4d 45 (TIME)", 1),
        (Pcap::of_link_type(105).bytes(), "frames of link type 105 (IEEE 802.11)", 1),
        // The whole query of the cut file, and the good file's exchange.
        (cut, "the file ends within a frame, after 59 of 60 bytes", 2),
    ] {
        fs::write(&bad, content)?;
        let replayed = replay(&[&bad, &good])?;
        assert_eq!(replayed.code, Some(FAILED), "{reason}");
        assert_eq!(replayed.records.len(), records, "{reason}");
        let last = replayed.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
        for part in [text(&bad)?, reason] {
            assert!(last.contains(part), "{part:?} is not in {last:?}");
        }
        assert!(replayed.stderr.contains("balanced: yes"), "{}", replayed.stderr);
        assert_eq!(replayed.ledger["interfaces"][1]["ingress"]["captured"], 1);
    }
    Ok(())
}

#[test]
fn frames_of_link_types_that_are_not_read_are_counted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("mixed.pcapng");
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len()).expect("a small block").to_ne_bytes();
        [&kind.to_ne_bytes()[..], &length, body, &length].concat()
    };
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let section = block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    let interface = |link_type| block(1, &words(&[link_type, 0]));
    let frame = block(6, &words(&[0, 0, 0, 4, 4, 0]));
    fs::write(&path, [section, interface(127), frame.clone(), frame].concat())?;
    let replayed = replay(&[&path])?;
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    let hook = &replayed.ledger["interfaces"][0]["ingress"];
    assert_eq!((&hook["seen"], &hook["lost"]["unsupported_link_type"]), (&2.into(), &2.into()));
    let warning = "frames of link type 127 (Radiotap and IEEE 802.11) are not supported";
    assert_eq!(replayed.stderr.matches(warning).count(), 1, "{}", replayed.stderr);
    Ok(())
}

#[test]
fn what_is_open_at_the_end_is_unanswered_with_a_gap_only_if_an_answer_could_yet_have_come()
-> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("open.pcap");
    let mut file = Pcap::default();
    // The timeout is 5 s.
    for (at_s, id) in [(0, 1), (1, 2), (6, 3)] {
        ask(&mut file, Duration::from_secs(at_s), id);
    }
    file.write(&path)?;
    let replayed = replay(&[&path])?;
    let unanswered = "UNANSWERED";
    assert_eq!(
        outcomes(&replayed),
        [(1, unanswered, false), (2, unanswered, false), (3, unanswered, true)]
    );
    Ok(())
}

#[test]
fn files_are_one_capture_and_time_may_go_back_between_them() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [first, second] = ["1.pcap", "2.pcap"].map(|name| directory.path().join(name));
    let seconds = Duration::from_secs;
    // The query in one file, its response in the next.
    let mut file = Pcap::default();
    exchange(&mut file, HOUR, 1);
    ask(&mut file, HOUR + seconds(1), 2);
    file.write(&first)?;
    let mut file = Pcap::default();
    answer(&mut file, HOUR + seconds(2), 2);
    exchange(&mut file, HOUR + seconds(3), 3);
    file.write(&second)?;
    let replayed = replay(&[&first, &second])?;
    assert_eq!(
        outcomes(&replayed),
        [(1, "MATCHED", false), (2, "MATCHED", false), (3, "MATCHED", false)]
    );
    // Each frame number names its file.
    let frames = |record: &Value| {
        ["query_file", "query_frame", "response_file", "response_frame"]
            .map(|field| record[field].to_string().replace('"', ""))
    };
    assert_eq!(frames(&replayed.records[0]), ["1.pcap", "1", "1.pcap", "2"]);
    assert_eq!(frames(&replayed.records[1]), ["1.pcap", "3", "2.pcap", "1"]);
    assert_eq!(frames(&replayed.records[2]), ["2.pcap", "2", "2.pcap", "3"]);
    // An hour earlier: another capture, at whose start the pending query ends.
    let mut earlier = exchanges(&[(0, 4), (60, 5)]);
    ask(&mut earlier, seconds(70), 6);
    earlier.write(&second)?;
    let replayed = replay(&[&first, &second])?;
    assert_eq!(
        outcomes(&replayed),
        [
            (1, "MATCHED", false),
            (2, "UNANSWERED", true),
            (4, "MATCHED", false),
            (5, "MATCHED", false),
            (6, "UNANSWERED", true)
        ]
    );
    Ok(())
}

#[test]
fn frames_whose_times_are_not_in_order_are_paired_and_tell_no_latency_that_nobody_knows()
-> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("order.pcap");
    let at = |seconds: u64, us: u64| Duration::from_secs(seconds) + Duration::from_micros(us);
    let mut file = Pcap::default();
    // The clock is behind for the response, by little and by an hour.
    ask(&mut file, at(20, 10), 1);
    answer(&mut file, at(20, 0), 1);
    // The response is before its query in the file, and later by its time, or in one tick.
    answer(&mut file, at(40, 100), 2);
    ask(&mut file, at(40, 0), 2);
    answer(&mut file, at(60, 0), 3);
    ask(&mut file, at(60, 0), 3);
    ask(&mut file, HOUR, 4);
    answer(&mut file, at(80, 0), 4);
    exchange(&mut file, at(100, 0), 5);
    // Within what two CPUs may differ by.
    ask(&mut file, at(120, 4), 6);
    answer(&mut file, at(120, 0), 6);
    file.write(&path)?;
    let replayed = replay(&[&path])?;
    let all: Vec<_> = (1..=6).map(|id| (id, "MATCHED", false)).collect();
    assert_eq!(outcomes(&replayed), all);
    let mut latencies: Vec<_> = replayed
        .records
        .iter()
        .map(|record| (record["dns_id"].as_u64(), record["latency_ns"].as_i64()))
        .collect();
    latencies.sort_unstable();
    let expected = [None, Some(100_000), Some(0), None, Some(1_000_000), Some(0)];
    let expected: Vec<_> = (1..).map(Some).zip(expected).collect();
    assert_eq!(latencies, expected);
    Ok(())
}

#[test]
fn other_ports_are_dns_where_they_are_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("mdns.pcap");
    let mut file = Pcap::default();
    file.udp(CLIENT, SocketAddr::new(SERVER.ip(), 5_353), &message(1, false));
    file.write(&path)?;
    for (arguments, records) in [(&[][..], 0), (&["--port", "5353"], 1), (&["-p53", "-p5353"], 1)] {
        let arguments = [&["replay", "--json"], arguments, &[text(&path)?]].concat();
        let output = agent::run(&arguments)?;
        ensure!(output.status.success(), "{}", stderr(&output));
        assert_eq!(json_lines(&output.stdout)?.len(), records, "{arguments:?}");
    }
    Ok(())
}

#[test]
fn ports_have_the_names_that_the_configuration_has() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("mdns.pcap");
    let mut file = Pcap::default();
    let ends = [CLIENT, SERVER].map(|end| SocketAddr::new(end.ip(), 5353));
    file.udp_at(HOUR, ends[0], ends[1], &message(0, false));
    file.write(&path)?;
    let records = |port: &str| -> Result<usize> {
        let output = agent::run(&["replay", "--json", "--port", port, text(&path)?])?;
        Ok(json_lines(&output.stdout)?.len())
    };
    assert_eq!((records("mdns")?, records("llmnr")?, records("5353")?), (1, 0, 1));
    let output = agent::run(&["replay", "--port", "dns", text(&path)?])?;
    assert!(stderr(&output).contains("or one of mdns, llmnr"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn multicast_queries_are_paired_with_the_hosts_that_answer() -> Result<()> {
    const MDNS: u16 = 5_353;
    const LLMNR: u16 = 5_355;
    let end = |host: u8, port: u16| SocketAddr::from(([192, 0, 2, host], port));
    let group = |host: u8, port: u16| SocketAddr::from(([224, 0, 0, host], port));
    // The question's class asks for a unicast response, the answer's says that caches be flushed.
    let asked = |id: u16, name: &str, class: u16| {
        let mut query = dns::query(id, name, "A");
        query[2] = 0;
        let end = query.len() - 2;
        query[end..].copy_from_slice(&class.to_be_bytes());
        query
    };
    let told = |name: &str| {
        let mut told = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        dns::push_name(&mut told, name);
        told.extend([0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 192, 0, 2, 9]);
        told
    };
    let answered = |id: u16, name: &str| {
        let mut response = asked(id, name, 1);
        response[2] = 0x80;
        response
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("multicast.pcap");
    let mut file = Pcap::default();
    file.udp(end(1, 40_000), group(252, LLMNR), &asked(7, "wpad", 1));
    file.udp(end(66, LLMNR), end(1, 40_000), &answered(7, "wpad"));
    file.udp(end(9, LLMNR), end(1, 40_000), &answered(7, "wpad"));
    file.udp(end(1, MDNS), group(251, MDNS), &asked(0, "printer.local", 0x8001));
    file.udp(end(9, MDNS), group(251, MDNS), &told("printer.local"));
    file.udp(end(9, MDNS), group(251, MDNS), &told("scanner.local"));
    file.write(&path)?;
    let path = text(&path)?;
    let output = agent::run(&["replay", "--json", "-p", "5353", "-p", "5355", path])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let records = json_lines(&output.stdout)?;
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            ["outcome", "client_address", "server_address", "relation", "qclass"]
                .map(|field| record[field].as_str().unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ["MATCHED", "192.0.2.1", "192.0.2.66", "-", "IN"],
            ["UNMATCHED_RESPONSE", "192.0.2.1", "192.0.2.9", "REPEATED_RESPONSE", "IN"],
            ["MATCHED", "192.0.2.1", "192.0.2.9", "-", "IN"],
            ["UNMATCHED_RESPONSE", "224.0.0.251", "192.0.2.9", "-", "-"],
        ]
    );
    for record in &records[2..] {
        assert_eq!(record["answers"][0]["class"], "IN");
        assert_eq!(record["answers"][0]["rdata"], "192.0.2.9");
    }
    Ok(())
}

#[test]
fn arguments_that_make_no_sense_are_refused() -> Result<()> {
    for (arguments, part) in [
        (&["replay"][..], "<FILE>"),
        (&["replay", "--json", "--messages", "x"], "cannot be used with"),
        (&["replay", "--speed", "0", "x"], "a factor above 0"),
        (&["replay", "--port", "0", "x"], "--port"),
        (&["replay", "--tunnels", "pppoe", "x"], "vxlan, geneve, gre"),
        (&["replay", "--config", "/nonexistent.yaml", "x"], "/nonexistent.yaml"),
    ] {
        let output = agent::run(arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{part:?} is not in: {}", stderr(&output));
    }
    Ok(())
}

/// With name compression, 60 KB repeat a name of 1,004 characters 3,600 times: 4 MB uncompressed.
#[test]
fn a_response_that_repeats_a_long_name_is_recorded_within_the_limit() -> Result<()> {
    const ANSWERS: u16 = 3_600;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("long.pcap");
    let mut question = Vec::new();
    for length in [63, 63, 63, 61] {
        question.push(length);
        question.extend(vec![7; length.into()]);
    }
    question.extend(b"\0\0\x01\0\x01");
    let query = [b"\0\x09\x01\0\0\x01\0\0\0\0\0\0", &question[..]].concat();
    let mut response = [b"\0\x09\x81\x80\0\x01\0\0\0\0\0\0", &question[..]].concat();
    response[6..8].copy_from_slice(&ANSWERS.to_be_bytes());
    response.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01".repeat(ANSWERS.into()));
    let mut file = Pcap::default();
    file.udp_at(HOUR, CLIENT, SERVER, &query);
    file.udp_at(HOUR + Duration::from_millis(1), SERVER, CLIENT, &response);
    file.write(&path)?;
    let configuration = directory.path().join("tap53.yaml");
    for (record, max_bytes) in [("{}", 262_144), ("{max_bytes: 65536}", 65_536)] {
        fs::write(
            &configuration,
            format!(
                "interfaces: {{include: [lo]}}\nrecord: {record}\nsinks: [{{type: stdout, format: json}}]\n"
            ),
        )?;
        let output = agent::run(&["replay", "-c", text(&configuration)?, text(&path)?])?;
        ensure!(output.status.success(), "{}", stderr(&output));
        let lines = json_lines(&output.stdout)?;
        assert_eq!((lines.len(), &lines[0]["outcome"]), (1, &"MATCHED".into()));
        let shown = lines[0]["answers"].as_array().map_or(0, Vec::len);
        let omitted = lines[0]["answers_omitted"].as_u64().unwrap_or_default();
        assert_eq!(shown as u64 + omitted, u64::from(ANSWERS));
        assert_eq!(lines[0]["answer_count"], ANSWERS);
        // An answer takes 1,027 bytes in Avro.
        assert!((max_bytes / 1_100..=max_bytes / 1_020).contains(&shown), "{shown}");
        let messages = query.len() + response.len();
        assert!(output.stdout.len() <= 2 * max_bytes + 8 * messages + (16 << 10));
    }
    Ok(())
}

/// Replays with `options`; returns standard output and standard error.
fn replay_text(file: &Pcap, options: &[&str]) -> Result<(String, String, Option<i32>)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("file.pcap");
    file.write(&path)?;
    let output = agent::run(&[&["replay"], options, &[text(&path)?]].concat())?;
    let stdout = String::from_utf8(output.stdout.clone())?;
    Ok((stdout, stderr(&output), output.status.code()))
}

#[test]
fn a_replay_selects_and_accounts_for_the_others() -> Result<()> {
    let mut file = exchanges(&[(1, 1), (2, 2)]);
    ask(&mut file, Duration::from_secs(3), 3);
    let fields = ["--fields", "time,client,result"];
    let (shown, ledger, code) = replay_text(&file, &[&["--unanswered"], &fields[..]].concat())?;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[2..], ["192.0.2.1", "UNANSWERED"]);
    assert_eq!(lines[0].find("CLIENT"), lines[1].find("192"), "{shown}");
    assert!(ledger.contains("not_selected") && ledger.contains("balanced: yes"), "{ledger}");
    assert_eq!(code, Some(0));
    let (slow, ..) = replay_text(&file, &["--slower", "1ms", "-o", "csv"])?;
    assert_eq!(slow.lines().count(), 3, "{slow}");
    let (slower, ..) = replay_text(&file, &["--slower", "2ms", "-o", "csv"])?;
    assert_eq!(slower, "");
    Ok(())
}

#[test]
fn a_replay_refuses_what_files_do_not_have() -> Result<()> {
    let file = exchanges(&[(1, 1)]);
    for (options, part, expected) in [
        (&["--interface", "eth9"][..], "no interface matches \"eth9\": there are", FAILED),
        (&["-n", "shop"], "records name pods only if", 2),
        (&["-o", "jsonl", "--fields", "time"], "--fields is for text, wide and csv", 2),
        (&["--fields", "when"], "\"when\" is not a column; there are time,", 2),
        (&["-o", "jsonl", "--text"], "cannot be used with", 2),
    ] {
        let (shown, error, code) = replay_text(&file, options)?;
        assert_eq!((shown.as_str(), code), ("", Some(expected)), "{options:?}: {error}");
        assert!(error.contains(part), "{options:?}: {error}");
    }
    Ok(())
}
