//! Compares the output of `tap53 replay --messages`, message for message, with tshark, an independent
//! dissector, and with dnspython, which parses the bytes that were put into the captures.
//!
//! The captures are generated in each run from a seed that the test prints; `TAP53_SEED` sets another
//! seed, and `TAP53_SEED=random` a new one. `differential/known.rs` lists the accepted differences with
//! their reasons.

#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/known.rs"]
mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use compare::{Reader, differences};
use tap53_harness::{
    account::Ledger,
    agent,
    captures::{Capture, Captures, MadeMessage, read_by_dnspython, read_by_tshark},
    process::run,
};

/// Differences shown of a capture that has more.
const SHOWN: usize = 10;

/// Messages at the least in the captures of a run: there are more than that of each seed.
const MADE_AT_LEAST: usize = 3_500;

/// The default seed: a change must not fail because of another reader's view of new captures. Use a random
/// seed to look for differences.
const SEED: u64 = 53;

fn seed() -> Result<u64> {
    let seed = match env::var("TAP53_SEED").as_deref() {
        Err(_) => SEED,
        Ok("random") => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
        Ok(seed) => seed.parse().context("TAP53_SEED is neither a number nor `random`")?,
    };
    println!("captures of TAP53_SEED={seed}");
    Ok(seed)
}

/// The lines of `tap53 replay --messages`, from an agent whose ledger balances.
fn replay(capture: &Path) -> Result<Vec<Value>> {
    let ledger = capture.with_extension("ledger");
    let mut command = Command::new(agent::binary()?);
    command.args(["replay", "--messages", "--log-level", "error"]);
    command.args(["--tunnels", "vxlan", "--tunnels", "geneve", "--tunnels", "gre", "--ledger"]);
    let lines = run(command.arg(&ledger).arg(capture))?;
    Ledger(&serde_json::from_str(&fs::read_to_string(&ledger)?)?).require_balance()?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Lines by the number of their frame, each frame's in order.
fn by_frame(lines: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut frames: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for line in lines {
        let frame = ["query_frame", "response_frame"].iter().find_map(|name| line[name].as_u64());
        frames.entry(frame.unwrap_or_default()).or_default().push(line);
    }
    frames
}

/// Returns the generated messages as dnspython parses them, merged with the manifest's lines.
fn expected(made: &[MadeMessage]) -> Result<Vec<(&MadeMessage, Value)>> {
    let read = read_by_dnspython(made.iter().map(|message| message.wire.as_slice()))?;
    ensure!(read.len() == made.len(), "dnspython read {} of {} messages", read.len(), made.len());
    Ok(made
        .iter()
        .zip(read)
        .map(|(message, mut read)| {
            read["transport"] = message.line["transport"].clone();
            let is_response = read["response"] == true;
            let (client, server) = if is_response { ("dst", "src") } else { ("src", "dst") };
            for (side, end) in [("client", client), ("server", server)] {
                read[format!("{side}_address")] = message.line[end].clone();
                read[format!("{side}_port")] = message.line[format!("{end}_port")].clone();
            }
            let size = if is_response { "response_size" } else { "query_size" };
            read[size] = message.wire.len().into();
            (message, read)
        })
        .collect())
}

/// Compares one capture; returns how many messages were compared with dnspython and with tshark.
fn compare(capture: &Capture) -> Result<(usize, usize)> {
    let lines = replay(&capture.path)?;
    let ours = by_frame(&lines);
    let expected = expected(&capture.messages)?;
    let (certain, perhaps): (Vec<_>, Vec<_>) =
        expected.iter().partition(|(message, _)| message.certain);
    let mut found = Vec::new();
    let mut compared = 0;

    let mut made: BTreeMap<u64, Vec<&(&MadeMessage, Value)>> = BTreeMap::new();
    for message in certain {
        made.entry(message.0.frame).or_default().push(message);
    }
    for frame in made.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let ours = ours.get(frame).map_or(&[][..], Vec::as_slice);
        let made = made.get(frame).map_or(&[][..], Vec::as_slice);
        if ours.len() < made.len() {
            found.push(format!("frame {frame}: {} of {} messages", ours.len(), made.len()));
        }
        for (ours, (message, theirs)) in ours.iter().zip(made) {
            compared += 1;
            for difference in differences(Reader::Dnspython, &message.name, ours, theirs) {
                found.push(format!("frame {frame}, {}: {difference}", message.name));
            }
        }
        // What else we found must be one that may be found: no bytes are taken for a message that
        // were not sent as one.
        for ours in ours.iter().skip(made.len()) {
            let sent = perhaps.iter().any(|(message, theirs)| {
                differences(Reader::Dnspython, &message.name, ours, theirs).is_empty()
            });
            if !sent {
                found.push(format!("frame {frame}: nobody sent {ours}"));
            }
        }
    }
    let by_tshark =
        if capture.by_tshark { compare_with_tshark(capture, &ours, &mut found)? } else { 0 };
    let name = capture.path.file_name().unwrap_or_default().display();
    let shown = found.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect::<String>();
    ensure!(found.is_empty(), "{name}: {} differences:{shown}", found.len());
    println!("{name}: {compared} messages as dnspython reads them, {by_tshark} as tshark does");
    Ok((compared, by_tshark))
}

fn compare_with_tshark(
    capture: &Capture,
    ours: &BTreeMap<u64, Vec<&Value>>,
    found: &mut Vec<String>,
) -> Result<usize> {
    let lines = read_by_tshark(&capture.path)?;
    let mut names: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for message in &capture.messages {
        names.entry(message.frame).or_default().push(&message.name);
    }
    let mut compared = 0;
    for (frame, theirs) in by_frame(&lines) {
        let names = names.get(&frame).map_or(&[][..], Vec::as_slice);
        let ours = ours.get(&frame).map_or(&[][..], Vec::as_slice);
        if ours.len() != theirs.len() {
            found.push(format!(
                "frame {frame}, {names:?}: {} messages, {} to tshark",
                ours.len(),
                theirs.len()
            ));
        }
        for ((ours, theirs), name) in ours.iter().zip(theirs).zip(names) {
            compared += 1;
            for difference in differences(Reader::Tshark, name, ours, theirs) {
                found.push(format!("frame {frame}, {name}: {difference}"));
            }
        }
    }
    Ok(compared)
}

/// Compares the captures that `chosen` names, each as a whole.
fn compare_all(chosen: impl Fn(&str) -> bool, made_at_least: usize) -> Result<()> {
    let captures = Captures::make(seed()?)?;
    let (mut failed, mut total) = (Vec::new(), 0);
    for capture in &captures.files {
        let name = capture.path.file_name().and_then(|name| name.to_str()).context("a name")?;
        if !chosen(name) {
            continue;
        }
        let certain = capture.messages.iter().filter(|message| message.certain).count();
        match compare(capture) {
            // An empty comparison proves nothing.
            Ok((dnspython, tshark)) => {
                assert_eq!(dnspython, certain, "{name}: compared with dnspython");
                let by_tshark = if capture.by_tshark { certain } else { 0 };
                assert_eq!(tshark, by_tshark, "{name}: compared with tshark");
                total += certain;
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(total >= made_at_least, "only {total} messages were made");
    Ok(())
}

fn is_joined(name: &str) -> bool {
    name.starts_with("tcp_") || name.contains("fragments")
}

#[test]
fn messages_in_datagrams_are_read_as_tshark_and_dnspython_read_them() -> Result<()> {
    compare_all(|name| !is_joined(name), MADE_AT_LEAST * 2 / 3)
}

#[test]
fn messages_in_streams_and_fragments_are_joined_as_tshark_joins_them() -> Result<()> {
    compare_all(is_joined, MADE_AT_LEAST / 3)
}

#[test]
fn a_compressed_capture_gives_the_records_of_the_plain_one() -> Result<()> {
    let captures = Captures::make(seed()?)?;
    for name in ["udp_v6.pcapng", "tcp_pipelined.pcap"] {
        let plain = captures.directory().join(name);
        let packed = captures.directory().join(format!("{name}.gz"));
        let mut lines = [replay(&plain)?, replay(&packed)?];
        for line in lines.iter_mut().flatten() {
            // The file's own name.
            for field in ["query_file", "response_file", "interface"] {
                line[field] = Value::Null;
            }
        }
        let [plain, packed] = lines;
        assert_eq!(plain, packed, "{name}");
    }
    Ok(())
}
