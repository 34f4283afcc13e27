//! Packets and messages that no well-behaved peer sends. The agent stays up, accounts for each one,
//! and what it made of it is in the file.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tap53_harness::{
    account::Ledger,
    agent::{Agent, Ended},
    client::Transport,
    dns,
    frames::{FrameSocket, ethernet, udp_to_port_53},
    lab::{ANSWERED, Lab},
};

const DEADLINE: Duration = Duration::from_secs(30);

const CONFIGURATION: &str = "
interfaces:
  include: [s0]
capture:
  hook: HOOK
  ring_bytes: 8388608
pair:
  timeout_ms: 300
sinks:
  - {type: stdout, format: json}
  - type: file
    directory: $OUT
";

/// Runs the agent on the server's interface while `send` puts frames on the wire from the client's.
fn capture(hook: &str, send: impl FnOnce(&FrameSocket) -> Result<()>) -> Result<Ended> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, &CONFIGURATION.replace("HOOK", hook), &[])?;
    let before = lab.server.packets("s0")?;
    let socket = FrameSocket::open(&lab.client, "c0")?;
    send(&socket)?;
    // A well-formed query behind them, on the same wire: when its record is there, the agent has
    // lived through what came before.
    let last = lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    agent.wait_for_record(last.client, DEADLINE)?;
    let after = lab.server.packets("s0")?;
    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    let seen = |direction: &str| ledger.number(&format!("/interfaces/0/{direction}/seen"));
    assert_eq!(seen("ingress")?, after.received - before.received);
    assert_eq!(seen("egress")?, after.sent - before.sent);
    assert_eq!(ledger.number("/agent/sinks/1/records/delivered")?, ended.records.len() as u64);
    Ok(ended)
}

fn both_hooks(check: impl Fn(&str) -> Result<()>) -> Result<()> {
    for hook in ["xdp", "tc"] {
        check(hook).with_context(|| format!("hook {hook}"))?;
    }
    Ok(())
}

/// The record of the query sent from `port`.
fn from_port(ended: &Ended, port: u16) -> Option<&Value> {
    ended.records.iter().find(|record| record["client_port"] == port)
}

#[test]
fn frames_cut_at_every_length_are_each_accounted_for() -> Result<()> {
    both_hooks(|hook| {
        let whole = udp_to_port_53(4000, &dns::query(1, "www.tap53.test", "A"));
        let lengths = 14..whole.len();
        let ended = capture(hook, |socket| {
            lengths.clone().try_for_each(|length| socket.send(&whole[..length]))
        })?;
        let ledger = Ledger(&ended.ledger);
        // The frames, and the well-formed query.
        let seen = lengths.len() as u64 + 1;
        assert_eq!(ledger.number("/interfaces/0/ingress/seen")?, seen);
        assert!(from_port(&ended, 4000).is_none(), "a record of a cut frame");
        let lost = ledger.sum("/interfaces/0/ingress/lost")? + ledger.sum("/agent/packets/lost")?;
        assert_eq!(lost, lengths.len() as u64, "{}", ended.ledger);
        Ok(())
    })
}

#[test]
fn every_prefix_of_a_message_keeps_its_readable_part() -> Result<()> {
    let message = dns::query(77, "www.tap53.test", "A");
    let ended = capture("xdp", |socket| {
        (0..message.len()).try_for_each(|length| {
            let port = 4000 + u16::try_from(length)?;
            socket.send(&udp_to_port_53(port, &message[..length]))
        })
    })?;
    for length in 0..message.len() {
        let port = 4000 + u16::try_from(length)?;
        let record = from_port(&ended, port);
        if length < dns::HEADER_SIZE {
            assert!(record.is_none(), "{length} bytes are no message: {record:?}");
        } else {
            let record = record.with_context(|| format!("no record of {length} bytes"))?;
            assert_eq!(record["parse_status"], "MALFORMED_QUESTION", "{record}");
            assert_eq!(record["dns_id"], 77);
            assert_eq!(record["qname"], Value::Null);
            assert_eq!(record["query_size"], length);
        }
    }
    let short = Ledger(&ended.ledger).number("/agent/packets/lost/shorter_than_header")?;
    assert_eq!(short, dns::HEADER_SIZE as u64);
    Ok(())
}

#[test]
fn hostile_messages_become_records_with_their_parse_status() -> Result<()> {
    let with_name = |name: &[u8]| {
        let mut message = dns::query(5, "", "A")[..dns::HEADER_SIZE].to_vec();
        message.extend(name);
        message.extend([0, 1, 0, 1]);
        message
    };
    let with_counts = |counts: [u16; 4]| {
        let mut message = dns::query(5, "www.tap53.test", "A");
        for (position, count) in counts.into_iter().enumerate() {
            let at = 4 + 2 * position;
            message[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        message
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("a pointer to itself", with_name(&[0xc0, 12]), "MALFORMED_QUESTION"),
        ("two pointers in a ring", with_name(&[0xc0, 14, 0xc0, 12]), "MALFORMED_QUESTION"),
        ("a pointer forward", with_name(&[0xc0, 200]), "MALFORMED_QUESTION"),
        ("a reserved label type", with_name(&[0x80, 1, 0]), "MALFORMED_QUESTION"),
        ("a label past the end", with_name(&[63, b'x']), "MALFORMED_QUESTION"),
        ("65,535 questions", with_counts([65_535, 0, 0, 0]), "MALFORMED_QUESTION"),
        ("65,535 answers", with_counts([1, 65_535, 0, 0]), "MALFORMED_ANSWER"),
        ("65,535 authorities", with_counts([1, 0, 65_535, 0]), "MALFORMED_REST"),
        ("all bits set", vec![0xff; 300], "NOT_DNS"),
    ];
    let ended = capture("xdp", |socket| {
        cases
            .iter()
            .zip(4000..)
            .try_for_each(|((_, message, _), port)| socket.send(&udp_to_port_53(port, message)))
    })?;
    for ((what, message, status), port) in cases.iter().zip(4000u16..) {
        // "All bits set" has QR set: to the agent it is a response, whose client is the other end.
        let record = from_port(&ended, port)
            .or_else(|| ended.records.iter().find(|record| record["server_port"] == port))
            .with_context(|| format!("no record of {what}"))?;
        assert_eq!(record["parse_status"], *status, "{what}: {record}");
        let size = if record["query_size"].is_null() { "response_size" } else { "query_size" };
        assert_eq!(record[size], message.len(), "{what}");
    }
    Ok(())
}

#[test]
fn bytes_of_every_value_in_a_name_are_escaped() -> Result<()> {
    let mut name = Vec::new();
    for chunk in (0..=u8::MAX).collect::<Vec<_>>().chunks(63) {
        name.push(u8::try_from(chunk.len())?);
        name.extend(chunk);
    }
    // Longer than 255 bytes (RFC 1035 §2.3.4) with its five length bytes, so in two messages.
    let (first, second) = name.split_at(2 * 64);
    let ended = capture("xdp", |socket| {
        [first, second].iter().zip(4000..).try_for_each(|(labels, port)| {
            let mut message = dns::query(9, "", "A")[..dns::HEADER_SIZE].to_vec();
            message.extend(*labels);
            message.extend([0, 0, 1, 0, 1]);
            socket.send(&udp_to_port_53(port, &message))
        })
    })?;
    let qname = |port| Some(from_port(&ended, port)?["qname"].as_str()?.to_owned());
    for (labels, port) in [(first, 4000), (second, 4001)] {
        let mut expected = Vec::new();
        let mut rest = labels;
        while let Some((length, after)) = rest.split_first() {
            let (label, after) = after.split_at(usize::from(*length));
            expected.push(label.iter().map(|byte| escaped(*byte)).collect::<String>());
            rest = after;
        }
        assert_eq!(qname(port).as_deref(), Some(expected.join(".").as_str()));
    }
    Ok(())
}

/// A byte of a label in presentation format (RFC 1035 §5.1), lower case.
fn escaped(byte: u8) -> String {
    match byte {
        b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => format!("\\{}", char::from(byte)),
        0x21..=0x7e => char::from(byte.to_ascii_lowercase()).to_string(),
        _ => format!("\\{byte:03}"),
    }
}

#[test]
fn other_protocols_are_ignored_by_name() -> Result<()> {
    both_hooks(|hook| {
        let arp = [ethernet(0x0806), vec![0; 46]].concat();
        let mut other_port = udp_to_port_53(4000, b"not for DNS");
        // Destination port 5353: neither end is in the port set.
        other_port[36..38].copy_from_slice(&5353u16.to_be_bytes());
        let mut icmp = udp_to_port_53(4000, b"");
        icmp[23] = 1;
        let ended = capture(hook, |socket| {
            [&arp, &other_port, &icmp].iter().try_for_each(|frame| socket.send(frame))
        })?;
        let ledger = Ledger(&ended.ledger);
        assert_eq!(ledger.number("/interfaces/0/ingress/ignored/not_ip")?, 1);
        assert_eq!(ledger.number("/interfaces/0/ingress/ignored/not_dns")?, 2);
        assert_eq!(ended.records.len(), 1, "only the well-formed query");
        Ok(())
    })
}

/// A frame as one fragment of itself: the data from `from` to `to`, in units of 8 bytes.
fn fragment(frame: &[u8], from: u16, to: Option<u16>) -> Result<Vec<u8>> {
    const DATA_AT: usize = 14 + 20;
    let at = |units: u16| DATA_AT + 8 * usize::from(units);
    let mut part = frame[..DATA_AT].to_vec();
    part.extend(&frame[at(from)..to.map_or(frame.len(), at)]);
    let length = u16::try_from(part.len() - 14)?;
    part[16..18].copy_from_slice(&length.to_be_bytes());
    let more = if to.is_some() { 0x2000 } else { 0 };
    part[20..22].copy_from_slice(&(more | from).to_be_bytes());
    Ok(part)
}

#[test]
fn fragments_are_joined_in_any_order_and_refused_where_they_overlap() -> Result<()> {
    let frame = |port, id| {
        let mut frame = udp_to_port_53(port, &dns::query(id, "www.tap53.test", "A"));
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame
    };
    both_hooks(|hook| {
        let (whole, reversed, overlapping) = (frame(4001, 1), frame(4002, 2), frame(4003, 3));
        let ended = capture(hook, |socket| {
            socket.send(&fragment(&whole, 0, Some(2))?)?;
            socket.send(&fragment(&whole, 2, None)?)?;
            socket.send(&fragment(&reversed, 2, None)?)?;
            socket.send(&fragment(&reversed, 0, Some(2))?)?;
            socket.send(&fragment(&overlapping, 0, Some(2))?)?;
            socket.send(&fragment(&overlapping, 1, None)?)
        })?;
        let ledger = Ledger(&ended.ledger);
        assert_eq!(ledger.sum("/interfaces/0/ingress/lost")?, 0);
        assert_eq!(ledger.number("/agent/fragments/joined")?, 4, "{}", ended.ledger);
        assert_eq!(ledger.number("/agent/fragments/datagrams")?, 2);
        assert_eq!(ledger.number("/agent/fragments/lost/overlap")?, 2);
        for (port, id) in [(4001, 1), (4002, 2)] {
            let record = from_port(&ended, port).context("no record of a joined datagram")?;
            assert_eq!((&record["dns_id"], &record["parse_status"]), (&id.into(), &"OK".into()));
        }
        assert!(from_port(&ended, 4003).is_none());
        Ok(())
    })
}

/// Pseudo-random bytes (xorshift64*), the same in each run, so that a failure can be reproduced.
#[test]
fn a_thousand_garbage_frames_do_no_harm() -> Result<()> {
    both_hooks(|hook| {
        let mut state = 0x5eed_0053_5eed_0053u64;
        let mut random = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
        };
        let ended = capture(hook, |socket| {
            for number in 0..1_000 {
                let length = usize::try_from(random() % 600)?;
                let garbage: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
                let frame = match number % 3 {
                    0 => udp_to_port_53(4000, &garbage),
                    1 => [ethernet(0x0800), garbage].concat(),
                    _ => [ethernet(0x86dd), garbage].concat(),
                };
                socket.send(&frame)?;
            }
            Ok(())
        })?;
        // The garbage, the well-formed query, and the client's ICMP errors: the resolver answers
        // some of the garbage with FORMERR, and nobody listens at its source port.
        let seen = Ledger(&ended.ledger).number("/interfaces/0/ingress/seen")?;
        assert!(seen >= 1_001, "{seen}");
        Ok(())
    })
}
