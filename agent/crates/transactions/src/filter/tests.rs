use proptest::prelude::*;

use super::*;
use crate::filter::config::{Lists, QueryType};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53));
const A: u16 = 1;
const ANY: u16 = 255;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn qnames(allow: &[&str], deny: &[&str]) -> Filter {
    let qnames = Lists { allow: texts(allow), deny: texts(deny) };
    Filter::new(&FilterConfig { qnames, ..FilterConfig::default() })
}

fn clients(allow: &[&str], deny: &[&str]) -> Filter {
    let prefixes = |list: &[&str]| list.iter().map(|prefix| prefix.parse().unwrap()).collect();
    let clients = Lists { allow: prefixes(allow), deny: prefixes(deny) };
    Filter::new(&FilterConfig { clients, ..FilterConfig::default() })
}

fn question(name: &str, qtype: u16) -> Question<'_> {
    Question { name, qtype, qclass: 1 }
}

fn of_name(filter: &Filter, name: &str) -> Option<FilterReason> {
    filter.decide(CLIENT, SERVER, [question(name, A)])
}

fn of_client(filter: &Filter, client: &str) -> Option<FilterReason> {
    filter.decide(client.parse().unwrap(), SERVER, [question("a.example", A)])
}

#[test]
fn everything_passes_unless_something_is_configured() {
    let filter = Filter::new(&FilterConfig::default());
    assert!(filter.rules.is_none());
    assert_eq!(of_name(&filter, "www.example"), None);
    assert_eq!(filter.decide(CLIENT, SERVER, []), None);
}

#[test]
fn a_zone_holds_itself_and_the_names_below_it() {
    let filter = qnames(&[], &["corp.example"]);
    for inside in ["corp.example", "www.corp.example", r"a\.b.corp.example", r"a\\.corp.example"] {
        assert_eq!(of_name(&filter, inside), Some(FilterReason::QnameDenied), "{inside}");
    }
    for outside in ["example", "evilcorp.example", "corp.example.test", ".", r"x\.corp.example"] {
        assert_eq!(of_name(&filter, outside), None, "{outside}");
    }
}

#[test]
fn the_most_specific_entry_decides_in_either_list() {
    let filter = qnames(&["corp.example", "open.secret.corp.example"], &["secret.corp.example"]);
    assert_eq!(of_name(&filter, "www.corp.example"), None);
    assert_eq!(of_name(&filter, "a.secret.corp.example"), Some(FilterReason::QnameDenied));
    assert_eq!(of_name(&filter, "a.open.secret.corp.example"), None);
    assert_eq!(of_name(&filter, "www.example"), Some(FilterReason::QnameNotAllowed));
}

#[test]
fn the_root_holds_every_name() {
    let filter = qnames(&["example"], &["."]);
    assert_eq!(of_name(&filter, "www.example"), None);
    for name in [".", "test", r"a\.example"] {
        assert_eq!(of_name(&filter, name), Some(FilterReason::QnameDenied), "{name}");
    }
}

#[test]
fn a_transaction_without_question_matches_no_name_or_type() {
    let none = |filter: &Filter| filter.decide(CLIENT, SERVER, []);
    assert_eq!(none(&qnames(&["."], &[])), Some(FilterReason::QnameNotAllowed));
    assert_eq!(none(&qnames(&[], &["."])), None);
    let qtypes = |allow: &[u16], deny: &[u16]| {
        let types = |list: &[u16]| list.iter().copied().map(QueryType).collect();
        let qtypes = Lists { allow: types(allow), deny: types(deny) };
        Filter::new(&FilterConfig { qtypes, ..FilterConfig::default() })
    };
    assert_eq!(none(&qtypes(&[A], &[])), Some(FilterReason::QtypeNotAllowed));
    assert_eq!(none(&qtypes(&[], &[A])), None);
    let any = |filter: &Filter| filter.decide(CLIENT, SERVER, [question("a", ANY)]);
    assert_eq!(any(&qtypes(&[], &[ANY])), Some(FilterReason::QtypeDenied));
    assert_eq!(any(&qtypes(&[A], &[])), Some(FilterReason::QtypeNotAllowed));
    assert_eq!(any(&qtypes(&[ANY, A], &[])), None);
}

#[test]
fn each_of_several_questions_must_pass() {
    let filter = qnames(&[], &["secret.example"]);
    let questions = [question("www.example", A), question("a.secret.example", A)];
    assert_eq!(filter.decide(CLIENT, SERVER, questions), Some(FilterReason::QnameDenied));
}

#[test]
fn prefixes_hold_their_first_and_last_address_and_no_other() {
    let filter = clients(&[], &["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/33"]);
    for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:7fff:ffff::1"] {
        assert_eq!(of_client(&filter, inside), Some(FilterReason::ClientDenied), "{inside}");
    }
    for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db8:8000::"] {
        assert_eq!(of_client(&filter, outside), None, "{outside}");
    }
}

#[test]
fn the_longest_prefix_decides_in_either_list() {
    let filter = clients(&["10.1.0.0/16", "10.1.2.3/32"], &["10.0.0.0/8", "10.1.2.0/24"]);
    assert_eq!(of_client(&filter, "10.1.9.9"), None);
    assert_eq!(of_client(&filter, "10.1.2.4"), Some(FilterReason::ClientDenied));
    assert_eq!(of_client(&filter, "10.1.2.3"), None);
    assert_eq!(of_client(&filter, "10.2.0.0"), Some(FilterReason::ClientDenied));
    assert_eq!(of_client(&filter, "192.0.2.1"), Some(FilterReason::ClientNotAllowed));
    assert_eq!(of_client(&filter, "2001:db8::1"), Some(FilterReason::ClientNotAllowed));
}

#[test]
fn a_prefix_of_no_length_holds_its_own_family() {
    let filter = clients(&[], &["0.0.0.0/0"]);
    assert_eq!(of_client(&filter, "255.255.255.255"), Some(FilterReason::ClientDenied));
    assert_eq!(of_client(&filter, "::1"), None);
}

#[test]
fn an_ipv4_mapped_address_is_held_by_prefixes_of_both_forms() {
    let denied = Some(FilterReason::ClientDenied);
    assert_eq!(of_client(&clients(&[], &["10.0.0.0/8"]), "::ffff:10.1.2.3"), denied);
    assert_eq!(of_client(&clients(&[], &["::ffff:0:0/96"]), "::ffff:10.1.2.3"), denied);
    assert_eq!(of_client(&clients(&[], &["::/0"]), "::ffff:10.1.2.3"), denied);
    assert_eq!(of_client(&clients(&[], &["::ffff:0:0/96"]), "10.1.2.3"), None, "sent as IPv4");
}

#[test]
fn the_first_reason_in_order_counts() {
    let config = FilterConfig {
        qnames: Lists { allow: vec!["corp.example".into()], deny: Vec::new() },
        qtypes: Lists { allow: Vec::new(), deny: vec![QueryType(ANY)] },
        clients: Lists { allow: vec!["10.0.0.0/8".parse().unwrap()], deny: Vec::new() },
        servers: Lists { allow: Vec::new(), deny: vec!["192.0.2.53/32".parse().unwrap()] },
        sample: f64::MIN_POSITIVE,
    };
    let filter = Filter::new(&config);
    let decide = |client: &str, server: &str, name, qtype| {
        let questions = [question(name, qtype)];
        filter.decide(client.parse().unwrap(), server.parse().unwrap(), questions).unwrap()
    };
    use FilterReason as Reason;
    assert_eq!(decide("1.1.1.1", "192.0.2.53", "a", ANY), Reason::ClientNotAllowed);
    assert_eq!(decide("10.1.1.1", "192.0.2.53", "a", ANY), Reason::ServerDenied);
    assert_eq!(decide("10.1.1.1", "192.0.2.54", "a", ANY), Reason::QtypeDenied);
    assert_eq!(decide("10.1.1.1", "192.0.2.54", "a", A), Reason::QnameNotAllowed);
    assert_eq!(decide("10.1.1.1", "192.0.2.54", "corp.example", A), Reason::SampledOut);
}

#[test]
fn reasons_are_in_index_order_and_have_unique_names() {
    let mut names: Vec<_> = FilterReason::ALL.into_iter().map(FilterReason::name).collect();
    for (index, reason) in FilterReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FilterReason::ALL.len());
}

/// Labels with dots and backslashes in them, from few letters, so that names coincide.
fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let octet = prop_oneof![Just(b'a'), Just(b'.'), Just(b'\\'), Just(0xff)];
    prop::collection::vec(prop::collection::vec(octet, 1..3), 1..5)
}

fn presentation(labels: &[Vec<u8>]) -> String {
    tap53_dns::presentation(labels.iter().map(Vec::as_slice))
}

proptest! {
    #[test]
    fn zones_hold_names_label_by_label(name in labels(), zone in labels()) {
        let filter = qnames(&[], &[&presentation(&zone)]);
        let refused = of_name(&filter, &presentation(&name)).is_some();
        prop_assert_eq!(refused, name.ends_with(&zone));
    }

    #[test]
    fn prefixes_decide_as_a_search_through_all_of_them(
        client: u32,
        prefixes in prop::collection::vec((any::<u32>(), 0..=32u8, any::<bool>()), 0..8),
        near in prop::collection::vec((0..=32u8, any::<bool>()), 0..4),
    ) {
        let near = near.into_iter().map(|(length, denied)| (client, length, denied));
        let mut list: Vec<(IpNet4, bool)> = Vec::new();
        for (bits, length, denied) in prefixes.into_iter().chain(near) {
            let prefix = IpNet4::new(bits.into(), length).unwrap().trunc();
            if !list.iter().any(|(other, _)| *other == prefix) {
                list.push((prefix, denied));
            }
        }
        let of = |denied| list.iter().filter(move |entry| entry.1 == denied);
        let texts = |denied| of(denied).map(|entry| entry.0.to_string()).collect::<Vec<_>>();
        let (allow, deny) = (texts(false), texts(true));
                let [allow_strs, deny_strs] =
            [&allow, &deny].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
        let filter = clients(&allow_strs, &deny_strs);
        let address = std::net::Ipv4Addr::from_bits(client);
        let closest = list
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len());
        let expected = match closest {
            Some((_, true)) => Some(FilterReason::ClientDenied),
            None if !allow.is_empty() => Some(FilterReason::ClientNotAllowed),
            _ => None,
        };
        prop_assert_eq!(of_client(&filter, &address.to_string()), expected);
    }
}

type IpNet4 = ipnet::Ipv4Net;
