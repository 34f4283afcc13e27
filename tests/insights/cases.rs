//! For each view, records of which some must be in its rows and others must not.

use anyhow::Result;
use serde_json::{Value, json};

use crate::row::Row;

/// Records, and the rows that a view has of them.
pub(crate) struct Case {
    pub(crate) view: &'static str,
    /// The columns and the rows that it compares: other cases have rows in the same view.
    selection: (&'static str, &'static str),
    pub(crate) rows: Vec<Value>,
    pub(crate) expected: Value,
}

impl Case {
    pub(crate) fn query(&self) -> String {
        let (columns, condition) = self.selection;
        format!("SELECT {columns} FROM {} WHERE {condition} ORDER BY ALL", self.view)
    }
}

fn case(
    view: &'static str,
    selection: (&'static str, &'static str),
    rows: impl IntoIterator<Item = Row>,
    expected: Value,
) -> Case {
    Case { view, selection, rows: rows.into_iter().map(Row::value).collect(), expected }
}

pub(crate) fn all() -> Result<Vec<Case>> {
    Ok(vec![
        busy_clients()?,
        shares_of_all_clients(),
        absent_names()?,
        servfail_hours()?,
        slow_servers()?,
        slow_names()?,
        unanswered_paths()?,
        repeated_queries()?,
        new_domains()?,
        lone_domains()?,
        name_entropies()?,
        tunnel_candidates()?,
        absent_domain_bursts()?,
        private_answers()?,
        suspicious_responses()?,
        foreign_resolvers()?,
        aaaa_waste()?,
        short_ttls()?,
        cname_targets()?,
        address_lookups()?,
        weak_hours()?,
        domain_bytes()?,
    ])
}

fn busy_clients() -> Result<Case> {
    let seen_twice = Row::new("busy/web", "a.busy.test", "10:00:00")?.set("query_count", 2);
    let elsewhere = seen_twice.on_server_node("000000000000000000000000000000f1");
    let resolver = "10.9.1.53";
    Ok(case(
        "busy_clients",
        ("* EXCLUDE (share)", "client LIKE 'busy/%'"),
        [
            seen_twice,
            elsewhere,
            Row::new("busy/web", "b.busy.test", "10:00:10")?.nxdomain(),
            Row::new("busy/web", "b.busy.test", "10:00:20")?.set("server_address", resolver),
            Row::new("busy/web", "b.busy.test", "10:00:30")?.unanswered(),
            Row::new("busy/web", "b.busy.test", "10:00:40")?.set("rcode", "SERVFAIL"),
            // What a resolver asks for its clients is no question of theirs.
            Row::new("busy/resolver", "b.busy.test", "10:00:21")?.set("client_address", resolver),
        ],
        json!([{"client": "busy/web", "questions": 5, "queries": 6, "names": 2, "nxdomain": 1,
                "servfail": 1, "unanswered": 1}]),
    ))
}

fn shares_of_all_clients() -> Case {
    let columns = ("round(sum(share), 9) AS shares", "true");
    case("busy_clients", columns, [], json!([{"shares": 1.0}]))
}

fn absent_names() -> Result<Case> {
    Ok(case(
        "absent_names",
        ("client, qname, nxdomain, share, first_at, last_at", "client = 'absent/web'"),
        [
            Row::new("absent/web", "gone.absent.test", "10:00:00")?.nxdomain(),
            Row::new("absent/web", "gone.absent.test", "11:00:00")?.nxdomain(),
            Row::new("absent/web", "there.absent.test", "10:00:01")?,
            Row::new("absent/web", "there.absent.test", "10:00:02")?.set("rcode", "SERVFAIL"),
        ],
        json!([{"client": "absent/web", "qname": "gone.absent.test", "nxdomain": 2, "share": 0.5,
                "first_at": "2026-11-28T10:00:00+00:00", "last_at": "2026-11-28T11:00:00+00:00"}]),
    ))
}

fn servfail_hours() -> Result<Case> {
    let failed = |time| {
        let row = Row::new("fails/web", "a.fails.test", time)?.set("rcode", "SERVFAIL");
        anyhow::Ok(row.set("response_extended_error", 22))
    };
    Ok(case(
        "servfail_hours",
        ("*", "domain IN ('fails.test', 'works.test')"),
        [
            failed("10:10:00")?,
            Row::new("fails/web", "b.fails.test", "10:59:59")?,
            Row::new("fails/web", "b.fails.test", "11:00:00")?,
            Row::new("fails/web", "a.works.test", "10:10:00")?,
        ],
        json!([{"hour": "2026-11-28T10:00:00+00:00", "resolver": crate::row::RESOLVER,
                "domain": "fails.test", "questions": 2, "servfail": 1, "share": 0.5,
                "extended_error": 22}]),
    ))
}

fn slow_servers() -> Result<Case> {
    let server = |row: Row| row.set("server_address", "10.9.4.1");
    let slow = |time, first, latest| {
        anyhow::Ok(server(Row::new("slow/web", "a.slow.test", time)?.latency_ms(first, latest)))
    };
    Ok(case(
        "slow_servers",
        (
            "answered, p50_ms, round(p95_ms, 6) AS p95_ms, round(p99_ms, 6) AS p99_ms, longest_ms",
            "resolver = '10.9.4.1'",
        ),
        [
            slow("10:00:00", 10, 10)?,
            slow("10:00:01", 20, 20)?,
            // The client waited, and the server did not take longer.
            slow("10:00:02", 5030, 30)?,
            server(Row::new("slow/web", "a.slow.test", "10:00:09")?.unanswered()),
        ],
        json!([{"answered": 3, "p50_ms": 20.0, "p95_ms": 29.0, "p99_ms": 29.8, "longest_ms": 30.0}]),
    ))
}

fn slow_names() -> Result<Case> {
    let resolver = "10.9.5.53";
    Ok(case(
        "slow_names",
        ("qname, qtype, answered, p50_ms, waited_s", "qname = 'a.waits.test'"),
        [
            Row::new("waits/web", "a.waits.test", "10:00:00")?.latency_ms(1000, 1000),
            Row::new("waits/web", "a.waits.test", "10:00:10")?
                .latency_ms(3000, 500)
                .set("server_address", resolver),
            Row::new("waits/web", "a.waits.test", "10:00:20")?.unanswered(),
            Row::new("waits/resolver", "a.waits.test", "10:00:11")?
                .latency_ms(9000, 9000)
                .set("client_address", resolver),
        ],
        json!([{"qname": "a.waits.test", "qtype": "A", "answered": 2, "p50_ms": 2000.0, "waited_s": 4.0}]),
    ))
}

fn unanswered_paths() -> Result<Case> {
    let lost = Row::new("silent/web", "a.silent.test", "10:00:30")?;
    let answered = lost.on_server_node("000000000000000000000000000000f2");
    Ok(case(
        "unanswered_paths",
        ("*", "client LIKE 'silent/%'"),
        [
            Row::new("silent/web", "a.silent.test", "10:00:00")?,
            Row::new("silent/web", "a.silent.test", "10:00:10")?.unanswered(),
            Row::new("silent/web", "a.silent.test", "10:00:20")?
                .unanswered()
                .set("capture_gap", true),
            lost.unanswered(),
            answered,
            Row::new("silent/heard", "a.silent.test", "10:00:00")?,
        ],
        json!([{"client": "silent/web", "server_address": crate::row::RESOLVER, "questions": 4,
                "unanswered": 3, "uncertain": 1, "lost_on_the_way": 1,
                "last_at": "2026-11-28T10:00:30+00:00"}]),
    ))
}

fn repeated_queries() -> Result<Case> {
    Ok(case(
        "repeated_queries",
        ("*", "client LIKE 'again/%'"),
        [
            Row::new("again/web", "a.again.test", "10:00:00")?
                .set("query_count", 3)
                .latency_ms(5000, 1000),
            Row::new("again/web", "b.again.test", "10:00:10")?.set("truncated", true),
            Row::new("again/web", "b.again.test", "10:00:11")?
                .set("transport", "TCP")
                .set("relation", "TCP_AFTER_TRUNCATION"),
            Row::new("again/web", "c.again.test", "10:00:20")?,
            Row::new("again/once", "c.again.test", "10:00:20")?,
        ],
        json!([{"client": "again/web", "server_address": crate::row::RESOLVER, "questions": 4,
                "repeated": 1, "extra_queries": 2, "waited_s": 4.0, "truncated": 1, "over_tcp": 1,
                "tcp_share": 0.25}]),
    ))
}

fn new_domains() -> Result<Case> {
    let yesterday = "2026-11-27T10:00:00Z";
    let before = |row: Row| row.set("query_time", yesterday).set("response_time", yesterday);
    Ok(case(
        "new_domains",
        ("*", "domain IN ('newcomer.test', 'known.test') OR domain = 'cluster.local'"),
        [
            before(Row::new("new/web", "a.known.test", "00:00:00")?),
            Row::new("new/web", "b.known.test", "10:00:00")?,
            Row::new("new/web", "a.newcomer.test", "10:00:00")?,
            Row::new("new/cart", "b.newcomer.test", "11:00:00")?.nxdomain(),
            Row::new("new/web", "x.new.svc.cluster.local", "11:00:00")?,
        ],
        json!([{"domain": "newcomer.test", "first_at": "2026-11-28T10:00:00+00:00",
                "first_client": "new/web", "clients": 2, "questions": 2, "answered": 1,
                "history_days": 1}]),
    ))
}

fn lone_domains() -> Result<Case> {
    Ok(case(
        "lone_domains",
        ("domain, client, names, questions", "domain IN ('alone.test', 'shared.test')"),
        [
            Row::new("lone/web", "a.alone.test", "10:00:00")?,
            Row::new("lone/web", "b.alone.test", "10:00:01")?,
            Row::new("lone/web", "b.alone.test", "10:00:02")?,
            Row::new("lone/web", "a.shared.test", "10:00:00")?,
            Row::new("lone/cart", "a.shared.test", "10:00:00")?,
        ],
        json!([{"domain": "alone.test", "client": "lone/web", "names": 2, "questions": 3}]),
    ))
}

fn name_entropies() -> Result<Case> {
    Ok(case(
        "name_entropies",
        ("qname, CAST(characters AS int) AS characters, entropy", "domain = 'entropy.test'"),
        [
            Row::new("entropy/web", "ab.ab.entropy.test", "10:00:00")?,
            Row::new("entropy/web", "abcdefgh.entropy.test", "10:00:00")?,
            Row::new("entropy/web", "aaaa.entropy.test", "10:00:00")?,
            Row::new("entropy/web", "entropy.test", "10:00:00")?,
        ],
        json!([
            {"qname": "aaaa.entropy.test", "characters": 4, "entropy": 0.0},
            {"qname": "ab.ab.entropy.test", "characters": 4, "entropy": 1.0},
            {"qname": "abcdefgh.entropy.test", "characters": 8, "entropy": 3.0},
        ]),
    ))
}

/// Labels of 32 characters that look random, and are the same in each run.
fn random_label(seed: u64) -> String {
    const CHARACTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(CHARACTERS[(state % 32) as usize])
    };
    (0..32).map(|_| next()).collect()
}

fn tunnel_candidates() -> Result<Case> {
    let mut rows = Vec::new();
    for number in 1..=20 {
        let second = format!("10:00:{number:02}");
        let long = random_label(number);
        rows.push(Row::new("tunnel/long", &format!("{long}.long.test"), &second)?);
        let short = format!("k{number}.txt.test");
        rows.push(Row::new("tunnel/txt", &short, &second)?.set("qtype", "TXT"));
        // Many short names, as of a CDN; long ones without randomness; and too few.
        rows.push(Row::new("tunnel/cdn", &format!("img{number}.cdn.test"), &second)?);
        let readable = format!("shard-{number}-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.host.test");
        rows.push(Row::new("tunnel/host", &readable, &second)?);
        if number < 20 {
            rows.push(Row::new("tunnel/few", &format!("{long}.few.test"), &second)?);
        }
    }
    Ok(case(
        "tunnel_candidates",
        (
            "client, domain, names, questions, length, entropy > 3.8 AS random, data_share, bytes_out",
            "client LIKE 'tunnel/%'",
        ),
        rows,
        json!([
            {"client": "tunnel/long", "domain": "long.test", "names": 20, "questions": 20,
             "length": 32.0, "random": true, "data_share": 0.0, "bytes_out": 20 * 67},
            {"client": "tunnel/txt", "domain": "txt.test", "names": 20, "questions": 20,
             "length": 2.55, "random": false, "data_share": 1.0, "bytes_out": 20 * 67},
        ]),
    ))
}

fn absent_domain_bursts() -> Result<Case> {
    let mut rows = vec![Row::new("burst/bot", "a.exists.test", "10:30:00")?];
    for number in 1..=10 {
        let name = format!("a.drawn{number:02}.test");
        rows.push(Row::new("burst/bot", &name, &format!("10:00:{number:02}"))?.nxdomain());
        // The hour ends before the tenth one.
        let (hour, minute) = if number < 10 { (10, 59) } else { (11, 0) };
        let time = format!("{hour}:{minute:02}:{number:02}");
        rows.push(Row::new("burst/slow", &name, &time)?.nxdomain());
        // One domain, and many names.
        let below = format!("a{number}.one.test");
        rows.push(Row::new("burst/names", &below, &format!("10:00:{number:02}"))?.nxdomain());
    }
    Ok(case(
        "absent_domain_bursts",
        ("*", "client LIKE 'burst/%'"),
        rows,
        json!([{"client": "burst/bot", "hour": "2026-11-28T10:00:00+00:00", "absent": 10, "found": 1,
                "example": "drawn01.test"}]),
    ))
}

fn private_answers() -> Result<Case> {
    let address = |name: &str, rdata: &str| {
        let kind = if rdata.contains(':') { "AAAA" } else { "A" };
        anyhow::Ok(Row::new("private/web", name, "10:00:00")?.answer(kind, 1, rdata))
    };
    let lone = [
        ("p0.rebind.test", "10.0.0.1"),
        ("p1.rebind.test", "172.16.0.1"),
        ("p2.rebind.test", "192.168.0.1"),
        ("p3.rebind.test", "100.64.0.1"),
        ("p4.rebind.test", "fd00::1"),
        ("p5.rebind.test", "fe80::1"),
        ("p6.rebind.test", "127.0.0.1"),
        ("q0.rebind.test", "172.15.0.1"),
        ("q1.rebind.test", "100.63.0.1"),
        ("q2.rebind.test", "203.0.113.1"),
        ("q3.rebind.test", "2001:db8::1"),
        ("x.private.svc.cluster.local", "10.0.0.1"),
    ];
    let mut rows = Vec::new();
    for (name, rdata) in lone {
        rows.push(address(name, rdata)?);
    }
    rows.push(address("p0.rebind.test", "203.0.113.2")?);
    let expected: Vec<_> = lone[..7]
        .iter()
        .map(|&(qname, address)| {
            json!({"qname": qname, "address": address, "questions": 1, "clients": 1,
                   "also_public": qname == "p0.rebind.test"})
        })
        .collect();
    Ok(case(
        "private_answers",
        (
            "qname, address, questions, clients, also_public",
            "qname LIKE '%.rebind.test' OR qname LIKE '%.private.svc.cluster.local'",
        ),
        rows,
        Value::Array(expected),
    ))
}

fn suspicious_responses() -> Result<Case> {
    let mixed = Row::new("odd/web", "a.odd.test", "10:00:00")?
        .set("anomalies", json!(["CASE_MISMATCH", "FORGED_RESPONSE_SEEN"]));
    let forged = Row::new("odd/web", "b.odd.test", "10:00:01")?
        .set("anomalies", json!(["WRONG_ID"]))
        .set("outcome", "UNMATCHED_RESPONSE")
        .set("relation", "WRONG_ID");
    Ok(case(
        "suspicious_responses",
        ("kind, client, records, names, example", "client LIKE 'odd/%'"),
        [
            // Delivered twice.
            mixed.clone(),
            mixed,
            forged,
            Row::new("odd/well", "a.odd.test", "10:00:00")?,
        ],
        json!([
            {"kind": "CASE_MISMATCH", "client": "odd/web", "records": 1, "names": 1, "example": "a.odd.test"},
            {"kind": "FORGED_RESPONSE_SEEN", "client": "odd/web", "records": 1, "names": 1, "example": "a.odd.test"},
            {"kind": "WRONG_ID", "client": "odd/web", "records": 1, "names": 1, "example": "b.odd.test"},
        ]),
    ))
}

fn foreign_resolvers() -> Result<Case> {
    let at = |server: &str, attribution: &str, time: &str| {
        let row = Row::new("foreign/web", "a.foreign.test", time)?;
        anyhow::Ok(row.set("server_address", server).set("server_attribution", attribution))
    };
    Ok(case(
        "foreign_resolvers",
        ("client, server_address, server_port, questions, share, names", "client LIKE 'foreign/%'"),
        [
            at("198.51.100.9", "EXTERNAL", "10:00:00")?,
            at("198.51.100.9", "EXTERNAL", "10:00:01")?,
            at(crate::row::RESOLVER, "SERVICE", "10:00:02")?,
            at("169.254.20.10", "UNKNOWN", "10:00:03")?,
        ],
        json!([{"client": "foreign/web", "server_address": "198.51.100.9", "server_port": 53,
                "questions": 2, "share": 0.5, "names": 1}]),
    ))
}

fn aaaa_waste() -> Result<Case> {
    let asked = |client: &str, qname: &str, qtype: &str, address: Option<&str>| {
        let row = Row::new(client, qname, "10:00:00")?.set("qtype", qtype);
        anyhow::Ok(match address {
            Some(address) => row.answer(qtype, 60, address),
            None => row,
        })
    };
    Ok(case(
        "aaaa_waste",
        ("*", "client LIKE 'aaaa/%'"),
        [
            asked("aaaa/web", "four.aaaa.test", "A", Some("203.0.113.1"))?,
            asked("aaaa/web", "four.aaaa.test", "AAAA", None)?,
            asked("aaaa/web", "both.aaaa.test", "A", Some("203.0.113.1"))?,
            asked("aaaa/web", "both.aaaa.test", "AAAA", Some("2001:db8::1"))?,
            asked("aaaa/web", "none.aaaa.test", "A", None)?,
            asked("aaaa/web", "none.aaaa.test", "AAAA", None)?,
            asked("aaaa/web", "six.aaaa.test", "AAAA", Some("2001:db8::1"))?,
            asked("aaaa/web", "other.aaaa.test", "TXT", None)?,
            // Only another client knows an address for it.
            asked("aaaa/cart", "four.aaaa.test", "AAAA", None)?,
        ],
        json!([{"client": "aaaa/web", "questions": 8, "aaaa_questions": 4, "wasted": 1, "share": 0.125,
                "names": 1}]),
    ))
}

fn short_ttls() -> Result<Case> {
    let hot = |time, ttl| {
        let row = Row::new("ttl/web", "hot.ttl.test", time)?.answer("A", ttl, "203.0.113.1");
        // The least TTL of an answer counts.
        anyhow::Ok(row.answer("A", 900, "203.0.113.2").set("server_address", "10.9.16.1"))
    };
    Ok(case(
        "short_ttls",
        ("*", "resolver = '10.9.16.1'"),
        [
            hot("10:00:00", 5)?,
            hot("10:00:20", 5)?,
            hot("10:00:40", 5)?,
            hot("10:01:00", 5)?,
            hot("10:02:00", 300)?,
        ],
        json!([{"resolver": "10.9.16.1", "qname": "hot.ttl.test", "qtype": "A", "questions": 5,
                "least_ttl": 5, "median_ttl": 5.0, "largest_ttl": 300, "below_minute": 4, "minutes": 2,
                "saved": 2}]),
    ))
}

fn cname_targets() -> Result<Case> {
    Ok(case(
        "cname_targets",
        ("*", "target LIKE '%.target.test'"),
        [
            Row::new("cname/web", "a.cname.test", "10:00:00")?
                .answer("CNAME", 60, "edge.target.test")
                .answer("A", 60, "203.0.113.17"),
            Row::new("cname/cart", "b.cname.test", "10:00:00")?
                .answer("CNAME", 60, "hop.target.test")
                .answer("CNAME", 60, "edge.target.test"),
            Row::new("cname/cart", "edge.target.test", "10:00:00")?.answer("A", 60, "203.0.113.17"),
        ],
        json!([
            {"target": "edge.target.test", "names": 2, "clients": 2, "questions": 2, "longest": 2},
            {"target": "hop.target.test", "names": 1, "clients": 1, "questions": 1, "longest": 2},
        ]),
    ))
}

fn address_lookups() -> Result<Case> {
    Ok(case(
        "address_lookups",
        (
            "qname, client, answered_at, ttl, valid_until",
            "address = '203.0.113.118' AND valid_until >= TIMESTAMPTZ '2026-11-28T10:00:30Z'",
        ),
        [
            Row::new("address/web", "a.address.test", "10:00:00")?.answer("A", 60, "203.0.113.118"),
            Row::new("address/cart", "b.address.test", "10:00:00")?.answer("A", 5, "203.0.113.118"),
            Row::new("address/web", "c.address.test", "10:00:00")?.answer("A", 60, "203.0.113.119"),
        ],
        json!([{"qname": "a.address.test", "client": "address/web",
                "answered_at": "2026-11-28T10:00:00+00:00", "ttl": 60,
                "valid_until": "2026-11-28T10:01:00+00:00"}]),
    ))
}

fn weak_hours() -> Result<Case> {
    let numbered = |node: &str, number: u64, time: &str| {
        let row = Row::new("weak/web", "a.weak.test", time)?.set("node", node).set("run_id", node);
        anyhow::Ok(row.set("record_number", number))
    };
    Ok(case(
        "weak_hours",
        ("*", "node LIKE 'weak-%'"),
        [
            // A part of a run: the records before the first one are not missing.
            numbered("weak-1", 7, "10:00:00")?,
            numbered("weak-1", 8, "10:00:01")?.unanswered().set("capture_gap", true),
            numbered("weak-1", 11, "10:00:02")?.unanswered(),
            numbered("weak-1", 12, "11:00:00")?,
            numbered("weak-2", 1, "10:00:00")?,
            numbered("weak-2", 2, "10:00:01")?.unanswered(),
        ],
        json!([{"node": "weak-1", "hour": "2026-11-28T10:00:00+00:00", "records": 3, "gaps": 1,
                "unanswered": 2, "uncertain": 1, "unmatched": 0, "missing_records": 2}]),
    ))
}

fn domain_bytes() -> Result<Case> {
    let resolver = "10.9.20.53";
    let sized = |row: Row, query: u32, response: u32| {
        row.set("query_size", query).set("response_size", response)
    };
    Ok(case(
        "domain_bytes",
        ("*", "domain = 'bytes.test'"),
        [
            sized(
                Row::new("bytes/web", "a.bytes.test", "10:00:00")?.set("query_count", 2),
                40,
                400,
            ),
            sized(Row::new("bytes/web", "b.bytes.test", "10:00:01")?, 20, 100)
                .set("server_address", resolver),
            sized(Row::new("bytes/resolver", "b.bytes.test", "10:00:02")?, 20, 100)
                .set("client_address", resolver),
        ],
        json!([{"domain": "bytes.test", "questions": 2, "bytes_out": 100, "bytes_in": 500, "factor": 5.0,
                "largest_response": 400}]),
    ))
}
