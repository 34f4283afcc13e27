//! A capture file with addresses at every place of a message, and what to search for.

use std::net::{IpAddr, SocketAddr};

use tap53_harness::{dns::push_name, pcap::Pcap};

const CLIENT: &str = "198.51.142.77";
const CLIENT_V6: &str = "2001:db8:cafe:7::77";
const SERVER: &str = "203.0.113.153";
const SERVER_V6: &str = "2001:db8:5e4f:e4::53";
/// The client's as a reverse name, in the zone of RFC 2317, and as one name of IPv6.
const REVERSE: &str = "77.142.51.198.in-addr.arpa";
const CLASSLESS: &str = "77.64/26.142.51.198.in-addr.arpa";
/// Name as queried by a resolver that applies its search list.
const SEARCHED: &str = "77.142.51.198.in-addr.arpa.search.tap53.test";
const REVERSE_V6: &str = "7.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.e.f.a.c.8.b.d.0.1.0.0.2.ip6.arpa";
const SUBNET: [u8; 4] = [100, 77, 142, 200];
const COOKIE: &[u8; 8] = b"\xc0\x0c\x1e\xca\xfe\xba\xbe\x77";
const HARDWARE_ADDRESS: [u8; 6] = [2, 0xca, 0xfe, 0x4d, 0xac, 0x77];

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const TXT: u16 = 16;
const OPT: u16 = 41;
const RRSIG: u16 = 46;
const SVCB: u16 = 64;
/// Priority 1, the root, key 4, and a length of four bytes (RFC 9460 §2.2, §7.3).
const IPV4HINT: &[u8] = b"\0\x01\0\0\x04\0\x04";
const UNKNOWN: u16 = 65_280;
const QUERY: u16 = 0x0100;
const RESPONSE: u16 = 0x8180;
/// Opcode 5 (RFC 2136 §2.2).
const UPDATE: u16 = 5 << 11;

/// Something that must not be found.
pub(crate) struct Canary {
    /// Name of the secret.
    pub(crate) name: &'static str,
    /// Possible forms: text, bytes, hexadecimal; compared without case.
    pub(crate) forms: Vec<Vec<u8>>,
}

impl Canary {
    /// Bytes as they are, and in hexadecimal.
    pub(crate) fn of_bytes(name: &'static str, bytes: &[u8]) -> Self {
        let hexadecimal: String = bytes.iter().map(|octet| format!("{octet:02x}")).collect();
        Self { name, forms: vec![bytes.to_vec(), hexadecimal.into_bytes()] }
    }

    fn of_address(name: &'static str, address: &str) -> Self {
        let mut canary = match address.parse().expect("an address") {
            IpAddr::V4(address) => Self::of_bytes(name, &address.octets()),
            IpAddr::V6(address) => Self::of_bytes(name, &address.octets()),
        };
        canary.forms.push(address.into());
        canary
    }

    /// A name in text and in wire format, by the part that contains the address.
    fn of_name(name: &'static str, labels: &str) -> Self {
        let mut wire = Vec::new();
        push_name(&mut wire, labels);
        wire.pop();
        let mut canary = Self::of_bytes(name, &wire);
        canary.forms.push(labels.into());
        canary
    }
}

/// Each with the part that 16 and 32 bits of prefix do not show.
pub(crate) fn canaries() -> Vec<Canary> {
    let mut subnet = Canary::of_bytes("client subnet", &SUBNET);
    subnet.forms.push(b"100.77.142".to_vec());
    vec![
        Canary::of_address("client", CLIENT),
        Canary::of_address("IPv6 client", CLIENT_V6),
        Canary::of_address("server", SERVER),
        Canary::of_address("IPv6 server", SERVER_V6),
        Canary::of_name("reverse name", "77.142.51"),
        Canary::of_name("classless reverse name", "77.64/26"),
        Canary::of_name("zone of the reverse name", "142.51.198"),
        Canary::of_name("IPv6 reverse name", "7.0.0.0.e.f.a.c"),
        subnet,
        Canary::of_bytes("cookie", COOKIE),
        Canary::of_bytes("hardware address", &HARDWARE_ADDRESS),
    ]
}

/// The file.
pub(crate) fn capture_file() -> Vec<u8> {
    let mut pcap = Pcap::default();
    let mut v4 = Flow::new(&mut pcap, CLIENT, SERVER);
    v4.exchange(A, "www.tap53.test", &[record("www.tap53.test", A, &[192, 0, 2, 80])]);
    v4.exchange(
        PTR,
        REVERSE,
        &[
            record(REVERSE, CNAME, &wire(CLASSLESS)),
            record(CLASSLESS, PTR, &wire("host.tap53.test")),
            record(REVERSE, RRSIG, &signature("142.51.198.in-addr.arpa")),
            record(REVERSE, UNKNOWN, &wire(REVERSE)),
        ],
    );
    v4.exchange(
        PTR,
        SEARCHED,
        &[record(SEARCHED, CNAME, &wire(SEARCHED)), record(SEARCHED, UNKNOWN, &wire(SEARCHED))],
    );
    v4.exchange(PTR, REVERSE_V6, &[record(REVERSE_V6, PTR, &wire(REVERSE_V6))]);
    v4.exchange(PTR, "_dns-sd._udp.77.142.51.198.in-addr.arpa", &[]);
    v4.update();
    Flow::new(&mut pcap, CLIENT_V6, SERVER_V6).exchange(A, "www.tap53.test", &[]);
    // What cannot be read: a question that ends early, and bytes that are no message.
    let end = |address: &str, port| SocketAddr::new(address.parse().expect("an address"), port);
    let broken = message(9, QUERY, [1, 0, 0, 0], &[&wire(REVERSE)[..9]]);
    pcap.udp(end(CLIENT, 40_001), end(SERVER, 53), &broken);
    pcap.udp(end(CLIENT, 40_002), end(SERVER, 53), &[1, 2, 3]);
    pcap.bytes().to_vec()
}

struct Flow<'a> {
    pcap: &'a mut Pcap,
    client: SocketAddr,
    server: SocketAddr,
    id: u16,
}

impl<'a> Flow<'a> {
    fn new(pcap: &'a mut Pcap, client: &str, server: &str) -> Self {
        let address = |text: &str| text.parse().expect("an address");
        let client = SocketAddr::new(address(client), 40_000);
        Self { pcap, client, server: SocketAddr::new(address(server), 53), id: 0 }
    }

    /// A query with all EDNS options that identify a client, and a response that repeats them.
    fn exchange(&mut self, qtype: u16, name: &str, answers: &[Vec<u8>]) {
        self.id += 1;
        let mut question = wire(name);
        question.extend([qtype, 1].iter().flat_map(|word| word.to_be_bytes()));
        let query = message(self.id, QUERY, [1, 0, 0, 1], &[&question, &opt()]);
        self.pcap.udp(self.client, self.server, &query);
        let count = u16::try_from(answers.len()).expect("a few answers");
        let parts = [&question[..], &answers.concat(), &opt()];
        let response = message(self.id, RESPONSE, [1, count, 0, 1], &parts);
        self.pcap.udp(self.server, self.client, &response);
    }

    /// A client that registers its own address (RFC 2136 §3.4).
    fn update(&mut self) {
        self.id += 1;
        let mut zone = wire("tap53.test");
        zone.extend([6u16, 1].iter().flat_map(|word| word.to_be_bytes()));
        let IpAddr::V4(address) = self.client.ip() else { panic!("an IPv4 client") };
        let records = [
            record("client.tap53.test", A, &address.octets()),
            record(REVERSE, PTR, &wire("client.tap53.test")),
            record("client.tap53.test", TXT, &[&[13], CLIENT.as_bytes()].concat()),
            record("client.tap53.test", SVCB, &[IPV4HINT, &address.octets()].concat()),
            record("client.tap53.test", UNKNOWN, &address.octets()),
        ];
        let update = message(self.id, UPDATE, [1, 0, 5, 0], &[&zone, &records.concat()]);
        self.pcap.udp(self.client, self.server, &update);
        self.pcap.udp(self.server, self.client, &message(self.id, 1 << 15 | UPDATE, [0; 4], &[]));
    }
}

fn message(id: u16, flags: u16, counts: [u16; 4], parts: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [id, flags].into_iter().chain(counts) {
        message.extend(word.to_be_bytes());
    }
    message.extend(parts.concat());
    message
}

fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    push_name(&mut wire, name);
    wire
}

fn record(owner: &str, rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut record = wire(owner);
    let length = u16::try_from(rdata.len()).expect("short RDATA");
    for word in [rtype, 1, 0, 300, length] {
        record.extend(word.to_be_bytes());
    }
    record.extend(rdata);
    record
}

/// RDATA of RRSIG (RFC 4034 §3.1) with an empty signature.
fn signature(signer: &str) -> Vec<u8> {
    let mut rdata = PTR.to_be_bytes().to_vec();
    rdata.extend([13, 6]);
    rdata.extend([0; 14]);
    rdata.extend(wire(signer));
    rdata
}

/// An OPT record (RFC 6891 §6.1) with a client subnet (RFC 7871 §6), the same again, a cookie
/// (RFC 7873 §4), the same again, an address of the link layer in an option of local use, and the
/// texts of errors and name servers, each twice.
fn opt() -> Vec<u8> {
    const CLIENT_SUBNET: u16 = 8;
    const COOKIE_OPTION: u16 = 10;
    const LOCAL: u16 = 65_001;
    const NSID: u16 = 3;
    const EXTENDED_ERROR: u16 = 15;
    let error = [b"\0\x12", CLIENT.as_bytes(), b" by ", SERVER.as_bytes()].concat();
    let subnet = [&[0, 1, 32, 0][..], &SUBNET].concat();
    let mut options = Vec::new();
    for (code, value) in [
        (CLIENT_SUBNET, &subnet[..]),
        (CLIENT_SUBNET, &subnet),
        (COOKIE_OPTION, COOKIE),
        (COOKIE_OPTION, COOKIE),
        (LOCAL, &HARDWARE_ADDRESS),
        (EXTENDED_ERROR, &error),
        (EXTENDED_ERROR, &error),
        (NSID, SERVER.as_bytes()),
        (NSID, SERVER.as_bytes()),
    ] {
        options.extend(code.to_be_bytes());
        options.extend(u16::try_from(value.len()).expect("a short option").to_be_bytes());
        options.extend(value);
    }
    let mut opt = vec![0];
    for word in [OPT, 1_232, 0, 0, u16::try_from(options.len()).expect("a few options")] {
        opt.extend(word.to_be_bytes());
    }
    opt.extend(options);
    opt
}
