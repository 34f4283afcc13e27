use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*};
use tap53_records::encode::Profile;

use super::*;
use crate::catalogue::Catalogue;

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> =
        LazyLock::new(|| Catalogue::new(Profile::Full).unwrap());
    &CATALOGUE
}

fn parsed(text: &str) -> Expression {
    parse(text, catalogue()).unwrap_or_else(|error| panic!("{error}"))
}

fn error(text: &str) -> ParseError {
    parse(text, catalogue()).expect_err(text)
}

#[test]
fn and_binds_more_strongly_than_or_and_not_most() {
    let display = |text: &str| parsed(text).to_string();
    assert_eq!(
        display("rcode=NXDOMAIN or rcode = SERVFAIL and not capture_gap"),
        "rcode = \"NXDOMAIN\" or rcode = \"SERVFAIL\" and not capture_gap"
    );
    assert_eq!(
        parsed("(truncated or capture_gap) and truncated").to_string(),
        "(truncated or capture_gap) and truncated"
    );
    assert!(matches!(parsed("not truncated and capture_gap"), Expression::And(..)));
    assert!(matches!(parsed("truncated AND capture_gap OR truncated"), Expression::Or(..)));
}

#[test]
fn literals_have_the_kind_of_their_field() {
    let test = |text: &str| match parsed(text) {
        Expression::Compare(_, test) => test,
        other => panic!("{other:?}"),
    };
    assert_eq!(test("latency > 1.5ms"), Test::Order(Order::Greater, Literal::Duration(1_500_000)));
    assert_eq!(test("latency_ns<=7"), Test::Order(Order::LessOrEqual, Literal::Duration(7)));
    assert_eq!(test("upstream_time = 2m"), Test::Equal(Literal::Duration(120_000_000_000)));
    assert_eq!(
        test("client = 2001:DB8::1"),
        Test::Equal(Literal::Address("2001:db8::1".parse().unwrap()))
    );
    assert_eq!(
        test("client in 10.1.2.3/8"),
        Test::In(vec![Literal::Network("10.0.0.0/8".parse().unwrap())])
    );
    assert_eq!(
        test("query_time >= 1970-01-02"),
        Test::Order(Order::GreaterOrEqual, Literal::Time(86_400_000_000))
    );
    assert_eq!(
        test("query_time < 1970-01-01T00:00:00.000001Z"),
        Test::Order(Order::Less, Literal::Time(1))
    );
    assert_eq!(test("record_id = 00FF"), Test::Equal(Literal::Text("00ff".to_owned())));
    assert_eq!(test("rcode != null"), Test::IsNotNull);
    assert_eq!(test("truncated = false"), Test::Equal(Literal::Boolean(false)));
    assert_eq!(test("qname = 'a\\'b'"), Test::Equal(Literal::Text("a'b".to_owned())));
    // Names have decimal escapes, which are left as they are.
    assert_eq!(test(r#"qname = "a\032b""#), Test::Equal(Literal::Text(r"a\032b".to_owned())));
}

#[test]
fn errors_point_at_the_place_and_name_the_remedy() {
    let cases: [(&str, std::ops::Range<usize>, &str); 17] = [
        ("rcod = NXDOMAIN", 0..4, "did you mean `rcode`"),
        ("qname = a and latncy > 5ms", 14..20, "did you mean `latency`"),
        ("zzz = 1", 0..3, "`tap53 schema` lists the fields"),
        ("latency > 5 parsecs", 12..19, "expected and, or"),
        ("latency > 5q", 10..12, "no duration"),
        ("latency > -5ms", 10..14, "no duration"),
        ("client = 10.0.0", 9..15, "neither an address nor a network"),
        ("qname > a", 6..7, "`>` is for numbers"),
        ("client ~ 10", 7..8, "`~` is for texts"),
        ("qname == a", 7..8, "a single `=`"),
        ("qname = \"a", 8..10, "is not closed"),
        ("(truncated", 10..10, "expected `)`"),
        ("", 0..0, "expected the name of a field"),
        ("qname", 5..5, "expected an operator after `qname`"),
        ("answers = a", 0..7, "expected one of its fields"),
        ("client_labels = a", 0..13, "expected a label"),
        ("truncated && capture_gap", 10..11, "`&` is no operator"),
    ];
    for (text, at, why) in cases {
        let error = error(text);
        assert!(error.why.contains(why), "{text}: {}", error.why);
        assert_eq!(error.at, at, "{text}: {}", error.why);
    }
    let shown = error("ä = 1 and rcod = 2").to_string();
    assert!(shown.ends_with("  ä = 1 and rcod = 2\n  ^"), "{shown}");
}

#[test]
fn depth_and_length_are_bounded() {
    assert!(error(&format!("{}truncated", "not ".repeat(1000))).why.contains("nested too deeply"));
    assert!(error(&"(".repeat(1000)).why.contains("nested too deeply"));
    let long = vec!["truncated"; 600].join(" or ");
    assert!(parse(&long, catalogue()).is_ok());
    assert!(error(&vec!["truncated"; 3000].join(" or ")).why.contains("longer than"));
}

/// A field of each kind, with a strategy for its literals.
fn comparison() -> impl Strategy<Value = Expression> {
    let text = || "[ -~äß\\\\\"']{0,12}";
    let texts = prop_oneof![Just("qname"), Just("anomalies"), Just("outcome")];
    let of_text = (texts, text()).prop_flat_map(|(field, text)| {
        let literal = Literal::Text(text.clone());
        let tests = prop_oneof![
            Just(Test::Equal(literal.clone())),
            Just(Test::NotEqual(literal.clone())),
            Just(Test::In(vec![literal.clone(), literal])),
            Just(Test::IsNull),
            Just(Test::IsNotNull),
            Just(Test::Matches(
                literal::pattern(&text.replace('[', ""))
                    .unwrap_or_else(|_| literal::pattern("a*").unwrap())
            )),
        ];
        tests.prop_map(move |test| (field, None, test))
    });
    let order = prop_oneof![
        Just(Order::Less),
        Just(Order::LessOrEqual),
        Just(Order::Greater),
        Just(Order::GreaterOrEqual)
    ];
    let numbers = prop_oneof![
        any::<i64>().prop_map(|number| ("client_port", Literal::Number(number))),
        (0..i64::MAX).prop_map(|number| ("latency_ns", Literal::Duration(number))),
        (-1_000_000_000_000_000..200_000_000_000_000_000i64)
            .prop_map(|micros| ("query_time", Literal::Time(micros))),
    ];
    let of_number = (numbers, order)
        .prop_map(|((field, literal), order)| (field, None, Test::Order(order, literal)));
    let address = prop_oneof![
        any::<IpAddr>().prop_map(Literal::Address),
        (any::<IpAddr>(), 0u8..=32).prop_map(|(address, length)| Literal::Network(
            IpNet::new(address, length).unwrap().trunc()
        )),
    ];
    let of_address =
        (prop_oneof![Just("client_address"), Just("resolved_addresses")], vec(address, 1..4))
            .prop_map(|(field, literals)| (field, None, Test::In(literals)));
    let of_boolean = prop_oneof![
        Just(("capture_gap", None, Test::IsTrue)),
        any::<bool>().prop_map(|it| ("truncated", None, Test::Equal(Literal::Boolean(it)))),
    ];
    let of_part = text().prop_flat_map(|text| {
        let test = Test::Equal(Literal::Text(text));
        prop_oneof![
            Just(("answers", Some("rdata"), test.clone())),
            Just(("client_labels", Some("app.kubernetes.io/name"), test)),
        ]
    });
    prop_oneof![of_text, of_number, of_address, of_boolean, of_part].prop_map(
        |(field, key, test)| {
            let known = catalogue();
            let kind = match (&known.find(field).unwrap().kind, key) {
                (Kind::Records(fields), Some(key)) => {
                    fields.iter().find(|field| field.name == key).unwrap().kind.clone()
                }
                (Kind::Labels, _) => Kind::Text,
                (kind, _) => kind.clone(),
            };
            let operand = Operand { field: field.to_owned(), key: key.map(str::to_owned), kind };
            Expression::Compare(operand, test)
        },
    )
}

fn expression() -> impl Strategy<Value = Expression> {
    comparison().prop_recursive(5, 24, 2, |inner| {
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            pair().prop_map(|(one, other)| Expression::And(Box::new(one), Box::new(other))),
            pair().prop_map(|(one, other)| Expression::Or(Box::new(one), Box::new(other))),
            inner.clone().prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_displayed_parses_to_the_same(expression in expression()) {
        let text = expression.to_string();
        let parsed = parse(&text, catalogue());
        prop_assert_eq!(parsed.map_err(|error| error.to_string()), Ok(expression));
    }

    #[test]
    fn any_text_is_parsed_or_refused_at_a_place_in_it(text in "[ -~äß()=<>~\"']{0,40}") {
        if let Err(error) = parse(&text, catalogue()) {
            prop_assert!(text.get(error.at.clone()).is_some(), "{:?}", error.at);
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
