//! Reads the DNS messages of a capture file that dumpcap wrote (pcapng of Ethernet, IPv4 and UDP), sharing
//! no code with the agent.

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    dns::HEADER_SIZE,
    lookups::{Answer, Kind, Lookup},
};

const ENHANCED_PACKET: u32 = 6;
/// dumpcap writes nanoseconds with this option of the interface (if_tsresol 9), else microseconds.
const INTERFACE_DESCRIPTION: u32 = 1;
const TIME_RESOLUTION: u16 = 9;
/// Ethernet, IPv4 without options, UDP.
const HEADERS: usize = 14 + 20 + 8;
const DNS_PORT: u16 = 53;
const IS_RESPONSE: u8 = 0x80;

/// Returns the lookups of a file in the order of their queries. One without a response is left out.
pub(super) fn lookups(file: &[u8]) -> Result<Vec<Lookup>> {
    let mut found: Vec<Option<Lookup>> = Vec::new();
    let mut open: HashMap<(u16, u16), usize> = HashMap::new();
    let mut first = None;
    for (at, frame) in packets(file)? {
        let Some(datagram) = Datagram::read(&frame) else { continue };
        let at = at - *first.get_or_insert(at);
        let Some((id, flags, name, qtype, after)) = header_and_question(datagram.message) else {
            continue;
        };
        if flags & IS_RESPONSE == 0 {
            open.insert((datagram.source_port, id), found.len());
            found.push(None);
            let size = datagram.message.len();
            *found.last_mut().context("just pushed")? = Some(Lookup {
                at,
                client: datagram.source.into(),
                name,
                qtype,
                rcode: u8::MAX,
                answers: Vec::new(),
                captured_sizes: Some((size, 0)),
                kind: Kind::Tunnel,
            });
        } else if let Some(index) = open.remove(&(datagram.destination_port, id))
            && let Some(lookup) = &mut found[index]
        {
            lookup.rcode = datagram.message[3] & 0x0f;
            lookup.answers = answers(datagram.message, after).unwrap_or_default();
            lookup.captured_sizes =
                lookup.captured_sizes.map(|(query, _)| (query, datagram.message.len()));
        }
    }
    let answered = found.into_iter().flatten().filter(|lookup| lookup.rcode != u8::MAX);
    Ok(answered.collect())
}

/// Returns the packets with their times.
fn packets(file: &[u8]) -> Result<Vec<(Duration, Vec<u8>)>> {
    let (mut rest, mut packets, mut is_nanoseconds) = (file, Vec::new(), false);
    while rest.len() >= 12 {
        let (kind, length) = (word(rest, 0)?, word(rest, 4)? as usize);
        ensure!((12..=rest.len()).contains(&length), "a block of {length} bytes");
        let (block, next) = rest.split_at(length);
        let body = &block[8..length - 4];
        match kind {
            INTERFACE_DESCRIPTION => is_nanoseconds = has_nanoseconds(&body[8..]),
            ENHANCED_PACKET => {
                let ticks = u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?);
                let at = if is_nanoseconds {
                    Duration::from_nanos(ticks)
                } else {
                    Duration::from_micros(ticks)
                };
                let captured = word(body, 12)? as usize;
                let frame = body.get(20..20 + captured).context("a whole packet")?;
                packets.push((at, frame.to_vec()));
            }
            _ => {}
        }
        rest = next;
    }
    Ok(packets)
}

fn has_nanoseconds(mut options: &[u8]) -> bool {
    while let [code_low, code_high, length_low, length_high, rest @ ..] = options {
        let code = u16::from_le_bytes([*code_low, *code_high]);
        let length = usize::from(u16::from_le_bytes([*length_low, *length_high]));
        if code == TIME_RESOLUTION {
            return rest.first() == Some(&9);
        }
        options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("a word")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

/// A UDP datagram from or to port 53.
struct Datagram<'a> {
    source: Ipv4Addr,
    source_port: u16,
    destination_port: u16,
    message: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        const { assert!(HEADERS == 42) };
        let (header, message) = frame.split_at_checked(HEADERS)?;
        let is_first_of_ipv4_udp = header[12..15] == [8, 0, 0x45] && header[23] == 17;
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let source = Ipv4Addr::new(header[26], header[27], header[28], header[29]);
        let (source_port, destination_port) = (port(34), port(36));
        (is_first_of_ipv4_udp && (source_port == DNS_PORT || destination_port == DNS_PORT))
            .then_some(Self { source, source_port, destination_port, message })
    }
}

/// Returns the id, the high byte of the flags, the name and type of the question, and where the answers are.
fn header_and_question(message: &[u8]) -> Option<(u16, u8, Vec<u8>, u16, usize)> {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let end = name_end(message, HEADER_SIZE)?;
    let name = message.get(HEADER_SIZE..end)?.to_vec();
    Some((number(0)?, *message.get(2)?, name, number(end)?, end + 4))
}

/// Returns where a name ends that begins at a place: behind its last byte or its pointer.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            length => at += 1 + length,
        }
    }
}

/// Returns the answers as they are in the message, so with pointers in names.
fn answers(message: &[u8], mut at: usize) -> Option<Vec<Answer>> {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let mut answers = Vec::new();
    for _ in 0..number(6)? {
        let fixed = name_end(message, at)?;
        let length = usize::from(number(fixed + 8)?);
        at = fixed + 10 + length;
        answers
            .push(Answer { rtype: number(fixed)?, rdata: message.get(fixed + 10..at)?.to_vec() });
    }
    Some(answers)
}
