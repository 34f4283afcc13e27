use tap53_dns::{Message, Transport, Tunnel, TunnelKind, build::Build};
use tap53_signals::Signal;
use tap53_transactions::pair::{Exchange, Observation, RecordId, Related, Relation, Transaction};

use super::*;
use crate::encode::{Attribution, Identity, Owner, samples};

/// Half an hour after the samples.
fn same_day() -> Timestamp {
    Timestamp::from_second(1_700_000_000 + 1_800).unwrap()
}

fn next_day() -> Timestamp {
    Timestamp::from_second(1_700_000_000 + 86_400).unwrap()
}

fn text(options: TextOptions) -> Text {
    Text::at(options, options.zone(), same_day)
}

fn line_of(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    text(TextOptions::default()).encode(record, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn line(name: &str) -> String {
    samples::with_record(name, line_of)
}

/// Returns the line of the sample called `name`, after `change`.
fn changed(name: &str, change: impl FnOnce(&mut Transaction<'_>)) -> String {
    samples::with_record(name, |record| {
        let mut transaction = *record.transaction;
        change(&mut transaction);
        line_of(&Record { transaction: &transaction, ..*record })
    })
}

/// Passes the row of a sample between two pods to `each`.
fn with_pods<T>(name: &str, each: impl FnOnce(&Row<'_>) -> T) -> T {
    let pod = |namespace: &str, workload: Option<&str>, name: &str| {
        Owner::new(Identity {
            attribution: Attribution::Pod,
            pod_namespace: Some(namespace.to_owned()),
            pod_name: Some(name.to_owned()),
            workload_name: workload.map(str::to_owned),
            ..Identity::default()
        })
    };
    let client = pod("shop", Some("checkout"), "checkout-7d9f-x2x4z");
    let server = pod("kube-system", None, "coredns-5d78c-abcde");
    samples::with_record(name, |record| {
        each(&Row::of(&Record { client: &client, server: &server, ..*record }))
    })
}

/// Returns heading and lines of all samples between pods.
fn page(options: TextOptions) -> String {
    let mut text = text(options);
    let mut out = text.heading();
    for name in samples::NAMES {
        with_pods(name, |row| text.push(row, &mut out));
    }
    out
}

#[test]
fn lines_without_a_terminal_are_whole() {
    assert_eq!(
        page(TextOptions::default()),
        "\
TIME (UTC)       CLIENT                        SERVER                    PROTO  TYPE   NAME                              RESULT         LATENCY  ANSWERS
22:13:20.001000  shop/checkout                 kube-system/coredns-5d78c-abcde  UDP    A      www.example.test                  NOERROR       0.250 ms  192.0.2.80
22:13:20.001000  shop/checkout                 kube-system/coredns-5d78c-abcde  UDP    A      www.example.test                  UNANSWERED           -  [asked 2 times]  [backend 203.0.113.53:5353]  [client translated to 198.51.100.1:61234]  [capture gap]  [FORGED_RESPONSE_SEEN!]  [TCP_CONFLICT!]
22:13:20.001250  shop/checkout                 kube-system/coredns-5d78c-abcde  UDP    A      www.example.test                  NOERROR              -  192.0.2.80  [query not seen]
"
    );
}

#[test]
fn lines_fit_80_columns() {
    assert_eq!(
        page(TextOptions { width: Some(80), ..TextOptions::default() }),
        "\
UTC      CLIENT        SERVER      TYPE  NAME               RESULT     LATENCY
22:13:20 shop/checkout coredns-5d… A     www.example.test   NOERROR      250µs
22:13:20 shop/checkout coredns-5d… A     www.example.test   UNANSWERED       - …
22:13:20 shop/checkout coredns-5d… A     www.example.test   NOERROR          - …
"
    );
}

#[test]
fn lines_fit_120_columns() {
    assert_eq!(
        page(TextOptions { width: Some(120), ..TextOptions::default() }),
        "\
TIME (UTC)    CLIENT           SERVER        PROTO  TYPE   NAME                 RESULT         LATENCY  ANSWERS
22:13:20.001  shop/checkout    coredns-5d7…  UDP    A      www.example.test     NOERROR       0.250 ms  192.0.2.80
22:13:20.001  shop/checkout    coredns-5d7…  UDP    A      www.example.test     UNANSWERED           -  [asked 2 times]…
22:13:20.001  shop/checkout    coredns-5d7…  UDP    A      www.example.test     NOERROR              -  192.0.2.80  [qu…
"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let columns: Columns = "answers,notes,name,client_address".parse().unwrap();
    for width in 1..200 {
        for columns in [Columns::TEXT, Columns::WIDE, columns] {
            let options = TextOptions { width: Some(width), columns, ..TextOptions::default() };
            for line in page(options).lines() {
                assert!(width_of(line) <= width.into(), "{width}: {line:?}");
            }
        }
    }
}

#[test]
fn the_terminal_may_change_its_width() {
    let mut text = text(TextOptions { width: Some(80), ..TextOptions::default() });
    let narrow = text.heading();
    text.resize(Some(160));
    assert!(width_of(&text.heading()) > width_of(&narrow));
    text.resize(Some(80));
    assert_eq!(text.heading(), narrow);
}

#[test]
fn wide_lines_have_addresses_and_copies() {
    let wide = TextOptions { columns: Columns::WIDE, ..TextOptions::default() };
    let page = page(wide);
    let heading: Vec<&str> = page.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading[2..6], ["CLIENT", "CLIENT", "ADDRESS", "SERVER"]);
    let cells: Vec<&str> = page.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        cells[1..],
        [
            "shop/checkout",
            "192.0.2.1:40000",
            "kube-system/coredns-5d78c-abcde",
            "192.0.2.53:53",
            "UDP",
            "A",
            "www.example.test",
            "NOERROR",
            "0.250",
            "ms",
            "eth0,eth1",
            "0",
            "192.0.2.80"
        ]
    );
}

#[test]
fn a_date_is_shown_unless_it_is_todays() {
    let page = |options: TextOptions, now| {
        let mut text = Text::at(options, TimeZone::UTC, now);
        let mut out = String::new();
        with_pods("matched", |row| text.push(row, &mut out));
        with_pods("matched", |row| text.push(row, &mut out));
        out
    };
    let plain = TextOptions::default();
    assert!(page(plain, same_day).starts_with("22:13:20.001000  shop"));
    assert!(page(plain, next_day).starts_with("2023-11-14 22:13:20.001000  shop"));
    let dated = TextOptions { dated: true, ..plain };
    assert!(page(dated, same_day).starts_with("2023-11-14 22:13:20.001000  shop"));
    let heading = text(dated).heading();
    assert_eq!(heading.find("CLIENT"), page(dated, same_day).find("shop"), "{heading}");
    let terminal = TextOptions { width: Some(80), ..plain };
    assert!(page(terminal, same_day).starts_with("22:13:20 shop"));
    let grouped = page(terminal, next_day);
    let lines: Vec<&str> = grouped.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "2023-11-14"), "{grouped}");
}

#[test]
fn times_are_in_the_local_zone_on_request() {
    let options = TextOptions { local_time: true, ..TextOptions::default() };
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let mut text = Text::at(options, zone.clone(), same_day);
    assert!(text.heading().starts_with("TIME (LOCAL)"));
    let mut out = String::new();
    with_pods("matched", |row| text.push(row, &mut out));
    // The day has ended in this zone, also for the time now.
    assert!(out.starts_with("00:13:20.001000  shop"), "{out}");
    let csv = Csv { columns: "time".parse().unwrap(), zone, is_local: true };
    let mut out = Vec::new();
    with_pods("matched", |row| csv.push(row, &mut out).unwrap());
    assert_eq!(String::from_utf8(out).unwrap(), "2023-11-15T00:13:20.001000+02:00\n");
}

#[test]
fn csv_has_every_column() {
    let options = TextOptions { columns: Columns::CSV, ..TextOptions::default() };
    let csv = Csv::new(options);
    let mut out = csv.heading().unwrap().into_bytes();
    with_pods("unanswered", |row| csv.push(row, &mut out).unwrap());
    let hostile =
        Row { interface: "eth\x1b[2J\"0".into(), qname: Some("a,b.test".into()), ..Row::default() };
    csv.push(&hostile, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "\
time,node,interface,client,client_address,client_pod,server,server_address,server_pod,proto,type,name,result,latency_ms,copies,answers,notes
2023-11-14T22:13:20.001000Z,node-1,eth0,shop/checkout,192.0.2.1:40000,shop/checkout-7d9f-x2x4z,kube-system/coredns-5d78c-abcde,192.0.2.53:53,kube-system/coredns-5d78c-abcde,UDP,A,www.example.test,UNANSWERED,,0,,[asked 2 times]  [backend 203.0.113.53:5353]  [client translated to 198.51.100.1:61234]  [capture gap]  [FORGED_RESPONSE_SEEN!]  [TCP_CONFLICT!]
1970-01-01T00:00:00.000000Z,,\"eth\\u001b[2J\"\"0\",-,-:0,,-:0,-:0,,UDP,-,\"a,b.test\",,,0,,
"
    );
}

#[test]
fn no_text_moves_the_cursor() {
    let hostile = "\x1b[2J\u{202e}\r";
    let row = Row {
        node: hostile.into(),
        interface: hostile.into(),
        qname: Some(hostile.into()),
        client_pod_name: Some(hostile.into()),
        rcode: Some(hostile.into()),
        anomalies: vec![hostile.into()],
        answers: vec![crate::encode::RowAnswer { rdata: hostile.into(), ..Default::default() }],
        ..Row::default()
    };
    for width in [None, Some(80), Some(200)] {
        let options = TextOptions { columns: Columns::CSV, width, ..TextOptions::default() };
        let mut out = String::new();
        text(options).push(&row, &mut out);
        let is_plain = |line: &str| !line.chars().any(tap53_base::visible::is_invisible);
        assert!(out.lines().all(is_plain), "{out:?}");
    }
}

#[test]
fn the_result_is_coloured_on_request() {
    let options = TextOptions { color: true, ..TextOptions::default() };
    let lines = page(options);
    assert!(lines.contains("  \x1b[32mNOERROR\x1b[0m     "), "{lines}");
    assert!(lines.contains("\x1b[31mUNANSWERED\x1b[0m"), "{lines}");
    let plain = lines.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[33m", "");
    assert_eq!(plain.replace("\x1b[0m", ""), page(TextOptions::default()));
}

#[test]
fn a_latency_has_three_digits_where_there_is_little_room() {
    let short = |ns| short_latency(&Row { latency_ns: Some(ns), ..Row::default() });
    for (ns, text) in [
        (0, "0µs"),
        (250_000, "250µs"),
        (999_600, "1.00ms"),
        (4_387_000, "4.39ms"),
        (43_870_000, "43.9ms"),
        (438_700_000, "439ms"),
        (2_500_000_000, "2.50s"),
    ] {
        assert_eq!(short(ns), text);
    }
}

#[test]
fn signals_are_noted_shortly() {
    let noted = |signals: &[Signal]| {
        let mut line = String::new();
        samples::with_record("matched", |record| {
            let signals = Some(signals.iter().copied().collect());
            let record = Record { signals, ..*record };
            line = line_of(&record);
        });
        line.trim_end().rsplit_once("192.0.2.80").expect("the answer").1.trim().to_owned()
    };
    use Signal::{Dga, NewDomainNode, NewDomainWorkload, Tunnel};
    assert_eq!(noted(&[]), "");
    assert_eq!(noted(&[NewDomainNode, NewDomainWorkload]), "[new domain]");
    assert_eq!(noted(&[NewDomainWorkload, Tunnel]), "[new to workload]  [TUNNEL!]");
    assert_eq!(noted(&[Dga]), "[DGA!]");
}

#[test]
fn unusual_properties_are_noted() {
    assert!(line("unanswered").contains("UNANSWERED"));
    assert!(line("unanswered").ends_with(
        "[asked 2 times]  [backend 203.0.113.53:5353]  [client translated to \
         198.51.100.1:61234]  [capture gap]  [FORGED_RESPONSE_SEEN!]  [TCP_CONFLICT!]\n"
    ));
    assert!(line("response").ends_with("[query not seen]\n"), "{:?}", line("response"));
}

#[test]
fn a_relation_takes_precedence_over_an_unseen_query() {
    for (relation, note) in [
        (Relation::LateResponse, "[late: recorded as unanswered before]"),
        (Relation::RepeatedResponse, "[repeated response]"),
        (Relation::TcpAfterTruncation, "[again, after a truncated response]"),
        (Relation::RetriedOverTcp, "[asked again over TCP]"),
        (Relation::WrongId, "[wrong identifier for a query]"),
        (Relation::WrongServer, "[not who a query went to]"),
        (Relation::Translated, "[seen on one side of address translation]"),
    ] {
        let line = changed("response", |transaction| {
            transaction.related = Some(Related { relation, record: RecordId([0; 16]) });
        });
        assert!(line.ends_with(&format!("  192.0.2.80  {note}\n")), "{line:?}");
    }
}

#[test]
fn the_messages_of_a_zone_transfer_are_no_repetitions() {
    let record = Related { relation: Relation::RepeatedResponse, record: RecordId([0; 16]) };
    let note = |transport, question: Option<u16>| {
        let message = Build::message(1, true);
        let message = match question {
            Some(qtype) => message.question("test", qtype),
            None => message,
        };
        let response = Observation { message: message.parse(), ..Default::default() };
        let line = changed("response", |transaction| {
            transaction.flow.transport = transport;
            transaction.related = Some(record);
            let response: &'static Observation = Box::leak(Box::new(response));
            transaction.exchange = Exchange::Response(response);
        });
        line.rsplit_once("  ").map(|(_, note)| note.trim_end().to_owned()).unwrap()
    };
    for question in [Some(252), Some(251), None] {
        assert_eq!(note(Transport::Tcp, question), "[more of a zone transfer]");
        // Over UDP a transfer is one message (RFC 1995 §2).
        assert_eq!(note(Transport::Udp, question), "[repeated response]");
    }
    assert_eq!(note(Transport::Tcp, Some(1)), "[repeated response]");
}

#[test]
fn transport_and_tunnel_are_shown_and_copies_are_not() {
    let line = changed("matched", |transaction| {
        transaction.flow.transport = Transport::Tcp;
        transaction.flow.tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(42) });
        transaction.copy_count = 2;
    });
    assert!(line.contains("  TCP    A  "), "{line:?}");
    assert!(line.ends_with("  192.0.2.80  [vxlan 42]\n"), "{line:?}");
    let line = changed("matched", |transaction| {
        transaction.flow.tunnel = Some(Tunnel { kind: TunnelKind::Gre, id: None });
    });
    assert!(line.ends_with("  [gre]\n"), "{line:?}");
}

#[test]
fn a_long_answer_is_cut() {
    let text = [vec![200], vec![b'x'; 200]].concat();
    let message = Build::message(1, true).question("a.test", 16).answer(16, 60, &text);
    let response = Observation { message: message.parse(), ..Default::default() };
    let line = samples::with_record("matched", |record| {
        let exchange = Exchange::Response(&response);
        let transaction = Transaction { exchange, ..*record.transaction };
        line_of(&Record { transaction: &transaction, ..*record })
    });
    let cut = format!("  \"{}…  [query not seen]\n", "x".repeat(ANSWER_WIDTH - 2));
    assert!(line.ends_with(&cut), "{line:?}");
}

#[test]
fn other_opcodes_are_named() {
    let mut wire = Build::message(1, false).question("a.test", 6).wire();
    wire[2] |= 4 << 3;
    let message = Message::parse(&wire).unwrap();
    let query = Observation { message, ..Default::default() };
    let line = samples::with_record("matched", |record| {
        let exchange = Exchange::Query(&query);
        let transaction = Transaction { exchange, ..*record.transaction };
        line_of(&Record { transaction: &transaction, ..*record })
    });
    assert!(line.ends_with("  [NOTIFY]\n"), "{line:?}");
}
