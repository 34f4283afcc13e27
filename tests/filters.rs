//! A known mix of transactions, filtered: each is in the records or counted with the right reason.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{account::Ledger, agent, dns, pcap::Pcap};

const SERVER: &str = "203.0.113.53:53";

/// A query from `client`, and its response.
fn exchange(pcap: &mut Pcap, client: &str, server: &str, id: u16, name: &str, qtype: &str) {
    let ends: [SocketAddr; 2] = [client, server].map(|end| end.parse().expect("an address"));
    let query = dns::query(id, name, qtype);
    pcap.udp(ends[0], ends[1], &query);
    pcap.udp(ends[1], ends[0], &response(&query));
}

/// The query with the QR bit set (RFC 1035 §4.1.1).
fn response(query: &[u8]) -> Vec<u8> {
    let mut response = query.to_vec();
    response[2] |= 0x80;
    response
}

/// The ledger and the names of the records that are left.
fn replay(pcap: &Pcap, filter: &str) -> Result<(Value, Vec<String>)> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (file, configuration, ledger) = (path("mix.pcap"), path("tap53.yaml"), path("ledger"));
    fs::write(&file, pcap.bytes())?;
    fs::write(&configuration, format!("interfaces: {{include: [lo]}}\nfilter:\n{filter}"))?;
    let output =
        agent::run(&["replay", "-c", &configuration, "--json", "--ledger", &ledger, &file])?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{log}");
    let ledger: Value = serde_json::from_slice(&fs::read(&ledger)?)?;
    let mut names = Vec::new();
    for line in std::str::from_utf8(&output.stdout)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        names.push(record["qname"].as_str().unwrap_or("(none)").to_owned());
    }
    Ok((ledger, names))
}

/// The reasons that are not zero.
fn reasons(ledger: &Value, unit: &str) -> Result<BTreeMap<String, u64>> {
    let filtered = ledger["agent"][unit]["filtered"].as_object().context("no filtered")?;
    let counted = filtered.iter().filter_map(|(reason, count)| {
        count.as_u64().filter(|count| *count > 0).map(|count| (reason.clone(), count))
    });
    Ok(counted.collect())
}

fn expected(reasons: &[(&str, u64)]) -> BTreeMap<String, u64> {
    reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

#[test]
fn every_transaction_is_recorded_or_counted_with_its_reason() -> Result<()> {
    let mut pcap = Pcap::default();
    let mut id = 0;
    let mut exchanges = |times: u16, client: &str, server: &str, name: &str, qtype: &str| {
        for _ in 0..times {
            id += 1;
            exchange(&mut pcap, client, server, id, name, qtype);
        }
    };
    let inside = "10.1.2.3:4000";
    exchanges(2, "10.1.2.4:4000", SERVER, "www.corp.test", "A"); // the client is denied
    exchanges(3, "192.0.2.1:4000", SERVER, "www.corp.test", "A"); // nor is this one allowed
    exchanges(4, inside, "203.0.113.66:53", "www.corp.test", "A"); // the server is denied
    exchanges(5, inside, SERVER, "www.corp.test", "TXT"); // the type is denied
    exchanges(6, inside, SERVER, "a.secret.corp.test", "A"); // the name is denied
    exchanges(7, inside, SERVER, "evilcorp.test", "A"); // nor is this one allowed
    exchanges(8, inside, SERVER, "WWW.Corp.test", "AAAA");
    exchanges(9, inside, SERVER, "open.secret.corp.test", "A");
    // A message without a question; a query again, without a response.
    let [client, server]: [SocketAddr; 2] =
        [inside, SERVER].map(|end| end.parse().expect("an address"));
    pcap.udp(client, server, &[0x07, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Within a millisecond the second would be a copy, as a mirror port shows one.
    for ms in [1_000, 1_010] {
        let query = dns::query(1_000, "b.secret.corp.test", "A");
        pcap.udp_at(Duration::from_millis(ms), client, server, &query);
    }

    let (ledger, names) = replay(
        &pcap,
        r#"
  clients: {allow: ["10.0.0.0/8"], deny: ["10.1.2.4"]}
  servers: {deny: ["203.0.113.64/26"]}
  qtypes: {deny: [TXT]}
  qnames: {allow: [Corp.Test., open.secret.corp.test], deny: [secret.corp.test]}
"#,
    )?;
    Ledger(&ledger).require_balance()?;
    assert_eq!(
        reasons(&ledger, "records")?,
        expected(&[
            ("client_denied", 2),
            ("client_not_allowed", 3),
            ("server_denied", 4),
            ("qtype_denied", 5),
            ("qname_denied", 6 + 1),
            ("qname_not_allowed", 7 + 1),
        ])
    );
    assert_eq!(
        reasons(&ledger, "messages")?,
        expected(&[
            ("client_denied", 4),
            ("client_not_allowed", 6),
            ("server_denied", 8),
            ("qtype_denied", 10),
            ("qname_denied", 12 + 2),
            ("qname_not_allowed", 14 + 1),
        ])
    );
    let left = |name: &str| names.iter().filter(|found| *found == name).count();
    assert_eq!((left("www.corp.test"), left("open.secret.corp.test")), (8, 9));
    assert_eq!(names.len(), 17);
    assert_eq!(Ledger(&ledger).number("/agent/records/created")?, 46);
    Ok(())
}

#[test]
fn a_sample_keeps_query_response_and_repetition_together() -> Result<()> {
    let mut pcap = Pcap::default();
    for number in 0..400u16 {
        let name = format!("n{number}.test");
        // Twice, from another port and with another identifier, and once for the other family.
        exchange(&mut pcap, "10.0.0.1:4000", SERVER, number, &name, "A");
        exchange(&mut pcap, "10.0.0.1:4001", SERVER, 1_000 + number, &name, "A");
        exchange(&mut pcap, "10.0.0.1:4000", SERVER, 2_000 + number, &name, "AAAA");
    }
    let (ledger, names) = replay(&pcap, "  sample: 0.25\n")?;
    Ledger(&ledger).require_balance()?;
    let mut records: BTreeMap<&str, u64> = BTreeMap::new();
    for name in &names {
        *records.entry(name).or_default() += 1;
    }
    assert!(records.values().all(|count| *count == 3), "{records:?}");
    // Binomial: 100 of 400, with a standard deviation of 9. The choice is the same in every run.
    assert!((60..=140).contains(&records.len()), "{}", records.len());
    let sampled_out = 3 * (400 - records.len() as u64);
    assert_eq!(reasons(&ledger, "records")?, expected(&[("sampled_out", sampled_out)]));
    assert_eq!(reasons(&ledger, "messages")?, expected(&[("sampled_out", 2 * sampled_out)]));
    Ok(())
}
