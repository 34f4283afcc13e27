//! Nanoseconds for each exchange, by kind of traffic: `cargo bench -p tap53-signals`.

use std::{hint::black_box, net::Ipv4Addr, time::Instant};

use tap53_signals::{Exchange, SharedSignals, SignalsConfig};

const EXCHANGES: usize = 1 << 20;
const ROUNDS: usize = 5;

/// 2026-01-01 in microseconds since 1970.
const START_US: i64 = 1_767_225_600_000_000;

/// 20,000 exchanges a second.
const STEP_US: i64 = 50;

struct Traffic {
    title: &'static str,
    /// Name, client, type and response code of each exchange.
    exchanges: Vec<(String, u8, u16, u16)>,
}

/// A generator of numbers that are spread.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn base32(&mut self, length: usize) -> String {
        (0..length)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[(self.next() % 32) as usize]))
            .collect()
    }
}

fn traffic(
    title: &'static str,
    mut each: impl FnMut(usize, &mut Numbers) -> (String, u16, u16),
) -> Traffic {
    let mut numbers = Numbers(1);
    let exchanges = (0..EXCHANGES).map(|number| {
        let (name, qtype, rcode) = each(number, &mut numbers);
        #[allow(clippy::cast_possible_truncation, reason = "less than 64")]
        (name, (numbers.next() % 64) as u8, qtype, rcode)
    });
    Traffic { title, exchanges: exchanges.collect() }
}

/// Nine of ten exchanges ask for one of a few hundred names, as pods do; the others for one of 20,000.
fn usual(_: usize, numbers: &mut Numbers) -> (String, u16, u16) {
    let count = if numbers.next().is_multiple_of(10) { 20_000 } else { 60 };
    let number = numbers.next() % count;
    let (qtype, rcode) = (if numbers.next().is_multiple_of(2) { 1 } else { 28 }, 0);
    (format!("host-{}.domain-{number}.example.com", number % 7), qtype, rcode)
}

fn main() {
    let of_many = |number, _: &mut Numbers| (format!("www.domain-{}.net", number / 3), 1, 0);
    let traffics = [
        traffic("pods: repeated names", usual),
        traffic("resolver: new names, a third new domains", of_many),
        traffic("block list: new names, half missing", |number, numbers| {
            let address = numbers.next();
            let name = format!(
                "{}.{}.{}.7.zen.example.org",
                address % 256,
                address >> 8 & 255,
                number % 256
            );
            (name, 1, if number % 2 == 0 { 3 } else { 0 })
        }),
        traffic("tunnel: new long names", |_, numbers| {
            (format!("{}.{}.t.example.com", numbers.base32(57), numbers.base32(57)), 16, 0)
        }),
    ];
    for Traffic { title, exchanges } in &traffics {
        let config = SignalsConfig { enabled: true, ..SignalsConfig::default() };
        let shared = SharedSignals::open(&config, 1, START_US);
        let mut detector = shared.detector();
        let (mut at_us, mut best) = (START_US, f64::MAX);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for (name, client, qtype, rcode) in exchanges {
                at_us += STEP_US;
                let exchange = Exchange {
                    at_us,
                    client: Ipv4Addr::new(10, 0, 0, *client).into(),
                    workload: Some(("namespace", "workload")),
                    name,
                    qtype: *qtype,
                    rcode: Some(*rcode),
                    query_bytes: 60,
                    response_bytes: 140,
                    has_private_address: false,
                };
                black_box(detector.observe(&exchange));
            }
            best = best.min(began.elapsed().as_nanos() as f64 / EXCHANGES as f64);
        }
        println!("{title:<45} {best:>6.1} ns an exchange");
    }
}
