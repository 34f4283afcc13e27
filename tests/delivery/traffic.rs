//! Synthetic traffic, modelled on a cluster's: few names are queried often, many rarely, with search
//! lists and one to four answers. It is the same each time.

use std::{net::SocketAddr, time::Duration};

use tap53_harness::{dns, pcap::Pcap};

/// xorshift64: the same numbers each time.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }

    /// Returns a number below `limit`, small ones far more often.
    fn popular(&mut self, limit: u32) -> u32 {
        let share = f64::from(self.below(1_000_000)) / 1e6;
        // The logarithm of a rank is spread evenly: Zipf's law with exponent 1.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below limit")]
        let rank = (f64::from(limit)).powf(share) as u32;
        rank.min(limit - 1)
    }
}

const WORDS: [&str; 24] = [
    "api",
    "auth",
    "billing",
    "cache",
    "cart",
    "catalog",
    "checkout",
    "db",
    "events",
    "gateway",
    "images",
    "inventory",
    "login",
    "mail",
    "metrics",
    "orders",
    "payments",
    "profile",
    "queue",
    "search",
    "session",
    "static",
    "tracking",
    "users",
];
const ZONES: [&str; 10] = [
    "com",
    "net",
    "org",
    "io",
    "co.uk",
    "amazonaws.com",
    "cloudfront.net",
    "example.com",
    "akamaiedge.net",
    "azure.com",
];

fn name(rank: u32) -> (String, bool) {
    let word = |at: u32| WORDS[(at as usize) % WORDS.len()];
    let namespace = word(rank / 7);
    match rank % 5 {
        0 | 1 => (format!("{}.{namespace}.svc.cluster.local", word(rank)), true),
        // From a search list.
        2 => (
            format!("{}.{}.{namespace}.svc.cluster.local", word(rank), ZONES[rank as usize % 10]),
            false,
        ),
        _ => (
            format!("{}-{rank}.{}.{}", word(rank), word(rank / 3), ZONES[rank as usize % 10]),
            true,
        ),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each is below what it is cut to")]
pub(super) fn push_transaction(packets: &mut Pcap, number: u32, random: &mut Random) {
    let (name, exists) = name(random.popular(5_000));
    let pod = random.popular(60);
    let (id, port) = (random.below(65_536) as u16, 32_768 + random.below(28_000) as u16);
    let client = SocketAddr::from(([10, 244, (pod / 16) as u8, 10 + (pod % 16) as u8], port));
    let server = SocketAddr::from(([10, 96, 0, 10], 53));
    let at = Duration::from_micros(u64::from(number) * 200 + u64::from(random.below(200)));
    let qtype = if random.below(2) == 0 { "A" } else { "AAAA" };
    let mut message = dns::query(id, &name, qtype);
    packets.udp_at(at, client, server, &message);
    message[2] |= 0x80;
    message[3] |= 0x80;
    if !exists {
        message[3] |= 3;
    } else if qtype == "A" {
        let answers = 1 + random.below(4) as u8;
        message[7] = answers;
        let mut records = Vec::new();
        for _ in 0..answers {
            records.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00");
            records.push(30);
            records.extend(b"\x00\x04");
            records.extend(random.below(u32::MAX).to_be_bytes());
        }
        // After the question; the EDNS record of the query is omitted.
        message[10] = 0;
        message[11] = 0;
        message.truncate(12 + name.len() + 2 + 4);
        message.extend(records);
    }
    let latency = Duration::from_micros(100 + u64::from(random.popular(50_000)));
    packets.udp_at(at + latency, server, client, &message);
}
