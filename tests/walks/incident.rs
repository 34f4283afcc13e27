//! The capture of the analyst's walk: ten minutes of an office, and what there is to find.
//!
//! `docs/walks/incident.pcap` has a real tunnel, so it differs each time. It is made if it is missing, and
//! stays as it is otherwise.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tap53_harness::{
    frames::FrameSocket,
    lookups::{Answer, Benign, Kind, Lookup, NOERROR, dga, dga::Family, name_of, rtype},
    namespace::{CLIENT_END, Namespace, SERVER_END},
    pcap::Pcap,
    tunnel::{Pace, Stage, Tool},
};

const SEED: u64 = 14;
const BENIGN: usize = 900;
const SPAN: Duration = Duration::from_secs(600);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 53)), 53);
/// The workstation with the tunnel, the one with the generator, and the one that gets a forged answer.
const TUNNEL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 1, 7));
const GENERATOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 66));
const VICTIM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 31));
/// Time from a query to its response.
const LATENCY: Duration = Duration::from_millis(12);

/// Time between two packets that are sent.
const INTERVAL: Duration = Duration::from_micros(200);

/// Writes the capture.
///
/// # Errors
/// Without root, or if the tunnel cannot be set up.
pub(crate) fn write(path: &Path) -> Result<()> {
    let mut lookups: Vec<Lookup> = Benign::new(SEED, BENIGN, SPAN).collect();
    lookups.extend(tunnel()?);
    lookups.extend(dga::burst(Family::Hex, SEED, GENERATOR, Duration::from_secs(420), (90, 6)));
    let mut messages = Vec::new();
    for (number, lookup) in lookups.iter().enumerate() {
        let number = u16::try_from(number)?;
        add(&mut messages, lookup, number, &[lookup]);
    }
    let [asked, forged] = conflict();
    add(&mut messages, &asked, u16::MAX, &[&forged, &asked]);
    messages.sort_by_key(|message| message.at);
    let mut capture = Pcap::default();
    for Message { at, source, destination, payload } in messages {
        capture.udp_at(at, source, destination, &payload);
    }
    capture.write(path)
}

/// Sends the packets of the capture from both ends of a link, as fast as a small machine can record them;
/// returns the number of queries.
pub(crate) fn send(capture: &Path, client: &Namespace, server: &Namespace) -> Result<usize> {
    /// Sizes of the headers of a pcap file and of a packet in it.
    const FILE_HEADER: usize = 24;
    const PACKET_HEADER: usize = 16;
    /// Offset of the source address in an IPv4 header.
    const SOURCE: usize = 12;
    let (near, far) = (
        FrameSocket::open(client, CLIENT_END.interface)?,
        FrameSocket::open(server, SERVER_END.interface)?,
    );
    let file = fs::read(capture)?;
    let mut rest = file.get(FILE_HEADER..).context("a header")?;
    let mut queries = 0;
    while let Some((header, packets)) = rest.split_first_chunk::<PACKET_HEADER>() {
        let length = u32::from_le_bytes(*header[8..].first_chunk().context("a length")?);
        let (packet, next) = packets.split_at_checked(length as usize).context("a packet")?;
        let source = packet.get(SOURCE..SOURCE + 4).context("an IPv4 header")?;
        let is_response =
            IpAddr::V4(Ipv4Addr::from(*source.first_chunk().context("four")?)) == SERVER.ip();
        let (socket, from, to) = if is_response {
            (&far, SERVER_END, CLIENT_END)
        } else {
            (&near, CLIENT_END, SERVER_END)
        };
        socket.send(&[&to.mac[..], &from.mac, &[0x08, 0x00], packet].concat())?;
        queries += usize::from(!is_response);
        thread::sleep(INTERVAL);
        rest = next;
    }
    Ok(queries)
}

/// A message at a time.
struct Message {
    at: Duration,
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

/// Adds a query and the responses to it, a millisecond apart.
fn add(messages: &mut Vec<Message>, asked: &Lookup, number: u16, answered: &[&Lookup]) {
    let client = SocketAddr::new(asked.client, 20_000 + number % 40_000);
    let id = number.wrapping_mul(40_503);
    let (query, _) = asked.messages(id);
    let at = asked.at;
    messages.push(Message { at, source: client, destination: SERVER, payload: query });
    for (delay, lookup) in (0..).map(Duration::from_millis).zip(answered) {
        let (_, response) = lookup.messages(id);
        let at = at + LATENCY + delay;
        messages.push(Message { at, source: SERVER, destination: client, payload: response });
    }
}

/// Returns 260 lookups of a real tunnel. Text is the type, since its data has no names that point elsewhere.
fn tunnel() -> Result<Vec<Lookup>> {
    let mut stage = Stage::new(Tool::Iodine("TXT"), "t.attic-t53.com")?;
    stage.run(Pace { packets: 140, per_second: 10 })?;
    let begin = Duration::from_secs(240);
    let captured = stage.captured()?.into_iter().take(260);
    let moved = captured.map(|lookup| Lookup { at: begin + lookup.at, client: TUNNEL, ..lookup });
    Ok(moved.collect())
}

/// Returns what a bank's name resolves to, and what a forger answers first.
fn conflict() -> [Lookup; 2] {
    [Ipv4Addr::new(203, 0, 113, 20), Ipv4Addr::new(198, 51, 100, 66)].map(|address| Lookup {
        at: Duration::from_secs(500),
        client: VICTIM,
        name: name_of("login.bank-t53.com"),
        qtype: rtype::A,
        rcode: NOERROR,
        answers: vec![Answer { rtype: rtype::A, rdata: address.octets().to_vec() }],
        captured_sizes: None,
        kind: Kind::Web,
    })
}
