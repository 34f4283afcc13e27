use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;
use tap53_dns::private_address::is_private;

use super::*;
use crate::{SharedSignals, SignalsConfig};

/// 2026-01-01.
const NOW_US: i64 = 1_767_225_600_000_000;

const SECOND_US: i64 = 1_000_000;

fn config() -> SignalsConfig {
    SignalsConfig {
        enabled: true,
        learning: Duration::ZERO,
        max_memory_mib: 4,
        internal_suffixes: vec!["corp.example.com".to_owned()],
        ..SignalsConfig::default()
    }
}

fn with_state(path: &Path) -> SignalsConfig {
    SignalsConfig { state: Some(path.to_owned()), ..config() }
}

fn shared(config: &SignalsConfig) -> SharedSignals {
    SharedSignals::open(config, 1, NOW_US)
}

fn exchange(name: &str) -> Exchange<'_> {
    Exchange {
        at_us: NOW_US,
        client: Ipv4Addr::new(10, 0, 0, 1).into(),
        workload: None,
        name,
        qtype: 1,
        rcode: Some(NOERROR),
        query_bytes: 60,
        response_bytes: 120,
        has_private_address: false,
    }
}

fn names(signals: Signals) -> Vec<&'static str> {
    signals.names().collect()
}

fn observe(detector: &mut Detector, exchange: Exchange<'_>) -> Vec<&'static str> {
    names(detector.observe(&exchange))
}

#[test]
fn a_domain_is_new_once_for_the_node_and_once_for_each_workload() {
    let shared = shared(&config());
    let [mut one, mut other] = [shared.detector(), shared.detector()];
    let both = ["NEW_DOMAIN_NODE", "NEW_DOMAIN_WORKLOAD"];
    let shop = |name| Exchange { workload: Some(("shop", "web")), ..exchange(name) };
    let bank = |name| Exchange { workload: Some(("bank", "web")), ..exchange(name) };
    let client = Ipv4Addr::new(10, 0, 0, 2).into();
    assert_eq!(observe(&mut one, shop("www.example.com")), both);
    assert!(observe(&mut one, shop("www.example.com")).is_empty(), "again");
    assert!(observe(&mut one, shop("mail.example.com")).is_empty(), "the same domain");
    assert!(observe(&mut other, shop("www.example.com")).is_empty(), "by another worker");
    let bank_again = Exchange { client, ..bank("www.example.com") };
    assert_eq!(observe(&mut other, bank_again), ["NEW_DOMAIN_WORKLOAD"]);
    assert_eq!(observe(&mut one, exchange("a.example.co.uk")), ["NEW_DOMAIN_NODE"]);
    assert_eq!(shared.usage().domains, 4);
}

#[test]
fn a_domain_is_seen_first_when_it_resolves() {
    let mut detector = shared(&config()).detector();
    for rcode in [None, Some(NXDOMAIN), Some(2)] {
        assert!(observe(&mut detector, Exchange { rcode, ..exchange("example.org") }).is_empty());
    }
    for name in [".", "com", "77.2.0.192.in-addr.arpa", "d.0.1.0.0.2.ip6.arpa", ""] {
        assert!(observe(&mut detector, exchange(name)).is_empty(), "{name}");
    }
    assert_eq!(observe(&mut detector, exchange("example.org")), ["NEW_DOMAIN_NODE"]);
}

#[test]
fn nothing_is_marked_as_new_while_domains_are_learned() {
    let learning = Duration::from_secs(3_600);
    let mut detector = shared(&SignalsConfig { learning, ..config() }).detector();
    assert!(observe(&mut detector, exchange("example.org")).is_empty());
    let later = |name| Exchange { at_us: NOW_US + 3_600 * SECOND_US, ..exchange(name) };
    assert!(observe(&mut detector, later("example.org")).is_empty());
    assert_eq!(observe(&mut detector, later("example.net")), ["NEW_DOMAIN_NODE"]);
}

fn base32(number: u64, length: usize) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"abcdefghijklmnopqrstuvwxyz012345"[(state >> 59) as usize])
    };
    (0..length).map(|_| next()).collect()
}

/// Returns after how many exchanges `signal` comes, if it does within `count`, `per_second` of them.
fn marked_after(
    config: &SignalsConfig,
    signal: Signal,
    per_second: i64,
    count: u64,
    exchange_of: impl Fn(u64) -> (String, u16, Option<u16>, u32),
) -> Option<u64> {
    let shared = shared(config);
    // A client's flows are spread.
    let mut workers = [shared.detector(), shared.detector()];
    (0..count).find(|number| {
        let (name, qtype, rcode, response_bytes) = exchange_of(*number);
        let at_us = NOW_US + number.cast_signed() * SECOND_US / per_second;
        let exchange = Exchange { at_us, qtype, rcode, response_bytes, ..exchange(&name) };
        let worker = &mut workers[usize::from(*number % 2 == 0)];
        worker.observe(&exchange).contains(signal)
    })
}

fn tunnel_name(number: u64, zone: &str) -> String {
    format!("{}.{}.{zone}", base32(number, 57), base32(number + 1_000, 40))
}

#[test]
fn a_tunnel_is_marked_within_200_exchanges() {
    for per_second in [5, 50, 500] {
        let named = |number| (tunnel_name(number, "t.example.com"), 1, Some(NOERROR), 220);
        let marked = marked_after(&config(), Signal::Tunnel, per_second, 200, named);
        assert!(marked.is_some_and(|it| it < 100), "{per_second} per second: {marked:?}");
    }
}

#[test]
fn only_the_domain_and_the_client_of_a_tunnel_are_marked() {
    let shared = shared(&config());
    let mut detector = shared.detector();
    for number in 0..200 {
        detector.observe(&exchange(&tunnel_name(number, "t.example.com")));
    }
    let (name, elsewhere) = (tunnel_name(500, "t.example.com"), tunnel_name(501, "t.example.net"));
    let client = Ipv4Addr::new(10, 0, 0, 2).into();
    assert_eq!(observe(&mut detector, exchange(&name)), ["TUNNEL"]);
    assert!(!observe(&mut detector, exchange(&elsewhere)).contains(&"TUNNEL"));
    assert!(observe(&mut detector, Exchange { client, ..exchange(&name) }).is_empty());
}

#[test]
fn internal_names_and_lookup_services_are_no_tunnel() {
    for zone in ["corp.example.com", "sxl.sophosxl.net"] {
        let named = |number| (tunnel_name(number, zone), 16, Some(NOERROR), 400);
        assert_eq!(marked_after(&config(), Signal::Tunnel, 50, 500, named), None, "{zone}");
    }
}

#[test]
fn lookups_are_no_tunnel() {
    let names: [fn(u64) -> String; 5] = [
        |it| format!("{}.{}.2.192.zen.spamhaus.org", it % 256, it / 256),
        |it| {
            format!(
                "{:032x}.malware.hash.cymru.com",
                u128::from(it).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            )
        },
        |it| format!("{}.avqs.example.net", base32(it, 26)),
        |it| format!("host-{it}.example.com.dbl.spamhaus.org"),
        |it| format!("d{}.cdn.example.net", base32(it, 13)),
    ];
    for name in names {
        for (qtype, rcode) in [(1, 0), (16, 0), (16, 3)] {
            let named = |number| (name(number), qtype, Some(rcode), 130);
            let marked = marked_after(&config(), Signal::Tunnel, 100, 5_000, named);
            assert_eq!(marked, None, "{} {qtype}", name(7));
        }
    }
}

#[test]
fn a_burst_is_many_domains_that_do_not_exist() {
    let generated = |number| (format!("{}.com", base32(number, 12)), 1, Some(NXDOMAIN), 120);
    assert!(marked_after(&config(), Signal::Dga, 20, 200, generated).is_some());
    let names_of_one =
        |number| (format!("{}.example.com", base32(number, 12)), 1, Some(NXDOMAIN), 120);
    assert_eq!(marked_after(&config(), Signal::Dga, 20, 2_000, names_of_one), None);
    let existing = |number| (format!("{}.com", base32(number, 12)), 1, Some(NOERROR), 120);
    assert_eq!(marked_after(&config(), Signal::Dga, 20, 2_000, existing), None);
    // Without a domain: Chromium's probes, and search lists of a zone that is not public.
    let probes = |number| (base32(number, 12), 1, Some(NXDOMAIN), 120);
    assert_eq!(marked_after(&config(), Signal::Dga, 20, 2_000, probes), None);
    let local = |number| (format!("{}.lan", base32(number, 12)), 1, Some(NXDOMAIN), 120);
    assert_eq!(marked_after(&config(), Signal::Dga, 20, 2_000, local), None);
}

#[test]
fn a_private_address_of_a_public_name_is_marked_each_time() {
    let mut detector = shared(&SignalsConfig { new_domains: false, ..config() }).detector();
    let mut observe = |name, address: &str| {
        let has_private_address = is_private(address.parse().unwrap());
        names(detector.observe(&Exchange { has_private_address, ..exchange(name) }))
    };
    for _ in 0..2 {
        assert_eq!(observe("a.example.com", "10.0.0.1"), ["REBINDING"]);
        assert!(observe("a.example.com", "198.51.100.7").is_empty());
    }
    for name in [
        "db.corp.example.com",
        "host.lan",
        "a.svc.cluster.local",
        "localhost",
        "x.rds.amazonaws.com",
    ] {
        assert!(observe(name, "10.0.0.1").is_empty(), "{name}");
    }
}

#[test]
fn what_is_switched_off_is_not_marked() {
    let off = SignalsConfig {
        new_domains: false,
        tunnels: false,
        dga: false,
        rebinding: false,
        ..config()
    };
    let shared = shared(&off);
    let mut detector = shared.detector();
    for number in 0..400 {
        let name = tunnel_name(number, "t.example.com");
        let private = Exchange { has_private_address: true, ..exchange(&name) };
        assert!(detector.observe(&private).is_empty());
        let name = format!("{}.com", base32(number, 12));
        assert!(observe(&mut detector, Exchange { rcode: Some(3), ..exchange(&name) }).is_empty());
    }
}

#[test]
fn the_memory_is_bounded_whatever_comes() {
    for (mib, workers) in [(4, 1), (16, 2), (16, 64), (64, 8)] {
        let config = SignalsConfig { max_memory_mib: mib, ..config() };
        let shared = SharedSignals::open(&config, workers, NOW_US);
        let bytes = shared.memory_bytes(workers);
        assert!(bytes <= (mib as usize) << 20, "{bytes} of {mib} MiB for {workers} workers");
        assert!(bytes > (mib as usize) << 18, "{bytes} of {mib} MiB for {workers} workers");
    }
}

fn state_path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("state/domains")
}

#[test]
fn domains_survive_the_end_of_the_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = with_state(&state_path(&directory));
    let first = shared(&config);
    assert_eq!(observe(&mut first.detector(), exchange("a.example.com")), ["NEW_DOMAIN_NODE"]);
    first.flush();
    // As if it was killed: nothing is written at the end.
    std::mem::forget(first);
    let later = Exchange { at_us: NOW_US + 86_400 * SECOND_US, ..exchange("b.example.com") };
    let content = fs::read(state_path(&directory)).expect("a file");
    let copy = tempfile::tempdir().expect("a directory");
    let second = with_state(&copy.path().join("domains"));
    fs::write(copy.path().join("domains"), content).expect("it can be written");
    let second = shared(&second);
    assert!(observe(&mut second.detector(), later).is_empty());
    assert_eq!(observe(&mut second.detector(), exchange("a.example.net")), ["NEW_DOMAIN_NODE"]);
    assert_eq!((second.usage().domains, second.usage().state_resets), (2, 0));
}

#[test]
fn the_state_is_written_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = with_state(&state_path(&directory));
    let first = shared(&config);
    observe(&mut first.detector(), exchange("a.example.com"));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let is_written = || {
        fs::read(state_path(&directory))
            .is_ok_and(|content| content[4_096..].iter().any(|it| *it != 0))
    };
    while !is_written() {
        assert!(std::time::Instant::now() < deadline, "nothing was written");
        std::thread::yield_now();
    }
    drop(first);
    assert!(observe(&mut shared(&config).detector(), exchange("a.example.com")).is_empty());
}

#[test]
fn two_agents_do_not_write_one_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = with_state(&state_path(&directory));
    let first = shared(&config);
    observe(&mut first.detector(), exchange("a.example.com"));
    first.flush();
    let second = shared(&config);
    assert!(second.usage().state_write_failures > 0);
    assert_eq!(second.usage().domains, 1, "it was read");
    observe(&mut second.detector(), exchange("a.example.net"));
    drop(first);
    second.flush();
    drop(second);
    let third = shared(&config);
    assert_eq!((third.usage().domains, third.usage().state_resets), (2, 0));
}

#[test]
fn a_damaged_state_is_counted_and_begins_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = state_path(&directory);
    let config = with_state(&path);
    let written = |config| {
        let signals = shared(config);
        observe(&mut signals.detector(), exchange("a.example.com"));
    };
    written(&config);
    let good = fs::read(&path).expect("a file");
    let slot = 4_096 + good[4_096..].iter().position(|it| *it != 0).expect("a domain");
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damages: [Damage<'_>; 7] = [
        &|content| content.clear(),
        &|content| content.truncate(100),
        &|content| content.truncate(8_192),
        &|content| content[3] ^= 1,
        &|content| content[20] ^= 1,
        &|content| content[slot] ^= 1,
        &|content| content.push(0),
    ];
    for damage in damages {
        let mut content = good.clone();
        damage(&mut content);
        fs::write(&path, content).expect("it can be written");
        let signals = shared(&config);
        assert_eq!((signals.usage().state_resets, signals.usage().domains), (1, 0));
        assert_eq!(
            observe(&mut signals.detector(), exchange("a.example.com")),
            ["NEW_DOMAIN_NODE"]
        );
        drop(signals);
        let signals = shared(&config);
        assert_eq!((signals.usage().state_resets, signals.usage().domains), (0, 1));
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("state"), "no directory").expect("it can be written");
    let signals = shared(&with_state(&state_path(&directory)));
    assert!(signals.usage().state_write_failures > 0);
    assert_eq!(observe(&mut signals.detector(), exchange("a.example.com")), ["NEW_DOMAIN_NODE"]);
}

proptest! {
    // Each case creates tables.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_exchange_panics(
        exchanges in proptest::collection::vec((
            "(\\PC{0,20}|[a-z0-9.\\\\-]{0,260}|(\\\\[0-9]{0,3}\\.?){0,80})",
            any::<(i64, u16, Option<u16>, u32, u32)>(),
            "[0-9a-f:.]{0,20}",
        ), 1..50),
    ) {
        let shared = shared(&config());
        let memory = shared.memory_bytes(1);
        let mut detector = shared.detector();
        for (name, (at_us, qtype, rcode, query_bytes, response_bytes), address) in &exchanges {
            let exchange = Exchange {
                at_us: *at_us,
                qtype: *qtype,
                rcode: *rcode,
                query_bytes: *query_bytes,
                response_bytes: *response_bytes,
                workload: Some((address, name)),
                has_private_address: address.len() % 2 == 0,
                ..exchange(name)
            };
            detector.observe(&exchange);
        }
        prop_assert_eq!(shared.memory_bytes(1), memory);
    }

    #[test]
    fn any_state_file_is_read_or_refused(content in proptest::collection::vec(any::<u8>(), 0..9_000)) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("domains");
        fs::write(&path, content).expect("it can be written");
        prop_assert_eq!(shared(&with_state(&path)).usage().state_resets, 1);
    }
}

#[test]
fn a_replay_has_the_same_signals_each_time() {
    let signals = || {
        let shared = SharedSignals::of_replay(&config(), NOW_US);
        let mut detector = shared.detector();
        let mut at_us = NOW_US;
        let each = (0..400).map(|number| {
            at_us += SECOND_US / 20;
            let name = tunnel_name(number, "t.example.com");
            detector.observe(&Exchange { at_us, ..exchange(&name) })
        });
        each.collect::<Vec<_>>()
    };
    let first = signals();
    assert!(first.iter().any(|signals| signals.contains(Signal::Tunnel)));
    assert_eq!(first[0], Signals::NONE.with(Signal::NewDomainNode, true), "it learns nothing");
    assert_eq!(first, signals());
}
