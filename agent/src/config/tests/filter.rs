use ipnet::IpNet;

use super::*;

fn read(filter: &str) -> Result<FilterConfig, Vec<String>> {
    match parse(&format!("interfaces: {{include: [lo]}}\nfilter:\n{filter}")) {
        Ok(config) => Ok(config.filter.exchanges),
        Err(Error::Refused { problems, .. }) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn entries_are_normalized_to_the_form_of_records() {
    let filter = read(
        r#"
  qnames:
    allow: ["Corp.Example.", ".", 'a\.B.example', '\065\046\255.example', "_x-1.test"]
    deny: [internal.corp.example]
  qtypes: {allow: [a, AAAA, TYPE65280, type28, HTTPS], deny: [any]}
  clients: {allow: ["10.0.0.0/8", "2001:DB8::/32"], deny: ["192.0.2.1", "::1"]}
  servers: {allow: ["0.0.0.0/0"]}
  sample: 0.1
"#,
    )
    .unwrap();
    assert_eq!(
        filter.qnames.allow,
        ["corp.example", ".", r"a\.b.example", r"a\.\255.example", "_x-1.test"]
    );
    assert_eq!(filter.qtypes.allow, [1, 28, 65_280, 28, 65].map(QueryType));
    assert_eq!(filter.qtypes.deny, [QueryType(255)]);
    let texts = |list: &[IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&filter.clients.allow), ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(texts(&filter.clients.deny), ["192.0.2.1/32", "::1/128"]);
    assert_eq!(texts(&filter.servers.allow), ["0.0.0.0/0"]);
    assert!((filter.sample - 0.1).abs() < f64::EPSILON);
}

#[test]
fn every_problem_is_named_with_its_key() {
    let problems = read(
        r#"
  qnames: {allow: ["a..b", ".corp", "*.corp", 'a\2', 'a\300', "é é", "a b", ""], deny: [7]}
  qname: {}
  qtypes: {allow: [AAAAA, TYPE70000, TYPE]}
  clients: {deny: ["10.0.0.1/8", "10/8", "10.0.0.0/33", "host"]}
  servers: {allow: ["::/0"], deny: ["::/0"]}
  sample: 0
"#,
    )
    .unwrap_err();
    let type_reason = "is not a query type: write its mnemonic, or TYPE65280";
    let prefix_reason = "must be a prefix, such as 10.0.0.0/8 or 2001:db8::/32";
    assert_eq!(
        problems,
        [
            "filter.qnames.allow[0]: \"a..b\": has an empty label",
            "filter.qnames.allow[1]: \".corp\": begins with a dot: names below are meant anyway",
            "filter.qnames.allow[2]: \"*.corp\": already matches all names below it: omit \
             the *",
            "filter.qnames.allow[3]: \"a\\\\2\": has an incomplete escape",
            "filter.qnames.allow[4]: \"a\\\\300\": has an escape above \\255",
            "filter.qnames.allow[5]: \"é é\": is not a valid internationalized name (UTS #46)",
            "filter.qnames.allow[6]: \"a b\": has white space or control characters",
            "filter.qnames.allow[7]: \"\": must not be empty",
            "filter.qnames.deny[0]: 7: must be text: put it in quotes",
            "filter.qname: no such key; did you mean qnames?",
            &format!("filter.qtypes.allow[0]: \"AAAAA\": {type_reason}"),
            &format!("filter.qtypes.allow[1]: \"TYPE70000\": {type_reason}"),
            &format!("filter.qtypes.allow[2]: \"TYPE\": {type_reason}"),
            "filter.clients.deny[0]: \"10.0.0.1/8\": has bits behind its length: write 10.0.0.0/8",
            &format!("filter.clients.deny[1]: \"10/8\": {prefix_reason}"),
            &format!("filter.clients.deny[2]: \"10.0.0.0/33\": {prefix_reason}"),
            &format!("filter.clients.deny[3]: \"host\": {prefix_reason}"),
            "filter.servers.deny: \"::/0\": is in allow too: leave it in one of them",
            "filter.sample: 0: must be a number above 0, up to 1",
        ]
    );
}

#[test]
fn names_that_are_too_long_are_refused() {
    let label = "a".repeat(63);
    let longest = [label.as_str(), &label, &label, &"a".repeat(61)].join(".");
    assert_eq!(zone(&longest), Ok(longest.clone()));
    zone(&format!("{longest}a")).unwrap_err();
    zone(&format!("{label}a.example")).unwrap_err();
}

#[test]
fn a_share_is_above_zero_and_at_most_one() {
    for share in ["1", "1.0", "0.001", "1e-9"] {
        read(&format!("  sample: {share}")).unwrap();
    }
    for share in ["0", "0.0", "-0.1", "1.1", "2", "\"0.1\"", "true"] {
        assert_eq!(read(&format!("  sample: {share}")).unwrap_err().len(), 1, "{share}");
    }
}

#[test]
fn a_written_filter_reads_back() {
    let text = r#"
interfaces: {include: [lo]}
filter:
  qnames: {allow: ['a\.b.\000\034\\.example', "."], deny: ['\042x.example']}
  qtypes: {allow: [TYPE65280, MX]}
  clients: {deny: ["10.0.0.0/8", "::/0"]}
  sample: 0.3
"#;
    let config: Config = parse(text).unwrap();
    let yaml = config.to_yaml().unwrap();
    assert_eq!(parse(&yaml).unwrap(), config, "{yaml}");
}

#[test]
fn internationalized_names_are_written_as_on_the_wire() {
    for (unicode, ascii) in [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example.", "xn--bcher-kva.example"),
        ("_dns.münchen.example", "_dns.xn--mnchen-3ya.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ] {
        assert_eq!(zone(unicode).as_deref(), Ok(ascii));
        assert_eq!(zone(ascii).as_deref(), Ok(ascii));
    }
    let reason = |text: &str| zone(text).unwrap_err();
    assert!(reason(r"a\.b.bücher.example").starts_with("mixes escapes"));
    assert!(reason("bücher..example").contains("internationalized"));
    assert!(reason("*.bücher.example").contains("omit the *"));
    let too_long = format!("{}.example", "ü".repeat(64));
    assert!(reason(&too_long).contains("internationalized"), "{too_long}");
}
