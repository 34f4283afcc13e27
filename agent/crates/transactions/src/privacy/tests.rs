use proptest::prelude::*;

use super::*;
use crate::privacy::config::KeyFile;

fn key(first: u8) -> Key {
    let mut octets = [7; 32];
    octets[0] = first;
    Key::from_content(&octets).unwrap()
}

fn hash(key: Key) -> AddressRule {
    AddressRule::Hash(KeyFile { key_file: "key".into(), key })
}

const fn truncation(ipv4: u8, ipv6: u8) -> AddressRule {
    AddressRule::Truncate(PrefixLengths { ipv4, ipv6 })
}

fn text(rule: &AddressRule, address: &str) -> String {
    shown(rule, address.parse().unwrap()).to_string()
}

#[test]
fn addresses_are_shown_as_they_are_by_default() {
    let policy = Policy::default();
    for address in ["192.0.2.77", "2001:db8::1", "::ffff:192.0.2.77"] {
        for side in [Side::Client, Side::Server] {
            assert_eq!(policy.address(side, address.parse().unwrap()).to_string(), address);
        }
    }
    let name = "77.2.0.192.in-addr.arpa";
    assert!(matches!(policy.name(name), Cow::Borrowed(same) if same == name));
    assert!(matches!(policy.answer_rdata(name), Cow::Borrowed(same) if same == name));
    assert!(matches!(policy.update_rdata(1, "192.0.2.77"), Cow::Borrowed("192.0.2.77")));
    assert!(policy.shows_cookies() && policy.shows_option(8) && policy.shows_option(65_001));
}

#[test]
fn each_side_has_its_own_rule() {
    let config = PrivacyConfig {
        client_address: AddressRule::Drop,
        server_address: truncation(8, 0),
        ..PrivacyConfig::default()
    };
    let policy = Policy::new(&config);
    let address = IpAddr::from([192, 0, 2, 77]);
    assert_eq!(policy.address(Side::Client, address).to_string(), "");
    assert_eq!(policy.address(Side::Server, address).to_string(), "192.0.0.0");
}

#[test]
fn truncation_keeps_the_bits_of_the_prefix() {
    for (length, expected) in [
        (0, "0.0.0.0"),
        (1, "128.0.0.0"),
        (23, "192.0.2.0"),
        (31, "192.0.3.76"),
        (32, "192.0.3.77"),
    ] {
        assert_eq!(text(&truncation(length, 0), "192.0.3.77"), expected);
    }
    for (length, expected) in [
        (0, "::"),
        (47, "2001:db8:fffe::"),
        (56, "2001:db8:ffff:ff00::"),
        (128, "2001:db8:ffff:ffff::1"),
    ] {
        assert_eq!(text(&truncation(0, length), "2001:db8:ffff:ffff::1"), expected);
    }
    // It was sent as IPv6, so the IPv6 prefix applies; a long one would show the IPv4 address.
    assert_eq!(text(&truncation(32, 56), "::ffff:192.0.2.77"), "::");
}

#[test]
fn pseudonyms_are_keyed_blake3_of_the_octets_of_an_address() {
    // The key and the results of BLAKE3's own test vectors, whose input is 0, 1, 2, …
    let key = Key::from_content(b"whats the Elvish word for friend").unwrap();
    assert_eq!(key.pseudonym(&[]).as_str(), "h:92b2b75604ed3c761f9d6f62392c8a92");
    assert_eq!(key.pseudonym(&[0]).as_str(), "h:6d7878dfff2f485635d39013278ae14f");
    let rule = hash(key);
    assert_eq!(text(&rule, "0.1.2.3"), "h:7671dde590c95d5ac9616651ff5aa0a2");
    assert_eq!(text(&rule, "1:203:405:607:809:a0b:c0d:e0f"), "h:ebf2f6371efa50708aa47be314c8def0");
    assert_eq!(text(&rule, "192.0.2.77"), "h:0f8c3c79589f19cf39acaea9b3c9b95d");
}

#[test]
fn one_host_has_one_pseudonym_in_both_forms_of_its_address() {
    let rule = hash(key(0));
    assert_eq!(text(&rule, "::ffff:192.0.2.77"), text(&rule, "192.0.2.77"));
}

#[test]
fn a_client_subnet_is_shown_up_to_the_shorter_of_both_prefixes() {
    let subnet = |address: &str, source_prefix| ClientSubnet {
        address: address.parse().unwrap(),
        source_prefix,
        scope_prefix: 32,
    };
    let policy =
        |client_subnet| Policy::new(&PrivacyConfig { client_subnet, ..PrivacyConfig::default() });
    let truncate = policy(SubnetRule::Truncate(PrefixLengths { ipv4: 20, ipv6: 48 }));
    assert_eq!(truncate.client_subnet(subnet("192.0.31.77", 32)), Some(subnet("192.0.16.0", 20)));
    assert_eq!(truncate.client_subnet(subnet("10.0.0.0", 8)), Some(subnet("10.0.0.0", 8)));
    // Bits after the source prefix should be zero (RFC 7871 §6); they are removed even if not.
    assert_eq!(truncate.client_subnet(subnet("10.9.9.9", 8)), Some(subnet("10.0.0.0", 8)));
    assert_eq!(
        truncate.client_subnet(subnet("2001:db8:1:2::", 64)),
        Some(subnet("2001:db8:1::", 48))
    );
    assert_eq!(policy(SubnetRule::Drop).client_subnet(subnet("192.0.2.0", 24)), None);
    // A repeated or malformed subnet is among the options, where it cannot be truncated.
    assert!(!truncate.shows_option(8) && truncate.shows_option(10) && truncate.shows_option(3));
}

#[test]
fn options_are_shown_by_their_rules() {
    let config = PrivacyConfig { cookies: Presence::Drop, ..PrivacyConfig::default() };
    let policy = Policy::new(&config);
    assert!(!policy.shows_cookies() && !policy.shows_option(10));
    assert!(policy.shows_option(8) && policy.shows_option(65_001));
    let config = PrivacyConfig { other_options: Presence::Drop, ..PrivacyConfig::default() };
    let policy = Policy::new(&config);
    assert!(!policy.shows_option(65_001));
    assert!(policy.shows_cookies() && policy.shows_option(8));
}

#[test]
fn an_update_carries_its_senders_address() {
    let client_address = truncation(24, 56);
    let config = PrivacyConfig { client_address, ..PrivacyConfig::default() };
    let policy = Policy::new(&config);
    assert_eq!(policy.update_rdata(1, "192.0.2.77"), "192.0.2.0");
    assert_eq!(policy.update_rdata(28, "2001:db8::1"), "2001:db8::");
    assert_eq!(policy.update_rdata(1, ""), "");
    assert_eq!(policy.update_rdata(1, "\\# 5 c000024d00"), WITHHELD);
    // RDATA with only names stays, but not if it is malformed.
    assert_eq!(policy.update_rdata(33, "0 0 443 www.example"), "0 0 443 www.example");
    assert_eq!(policy.update_rdata(33, "\\# 4 c000024d"), WITHHELD);
    for (rtype, rdata) in [
        (16, "\"192.0.2.77\""),
        (64, "1 . ipv4hint=192.0.2.77"),
        (65, "1 . ipv6hint=2001:db8::77"),
        (42, "1:192.0.2.77/32"),
        (45, "10 1 2 192.0.2.77 AQ=="),
        (49, "AAIBY2PC"),
        (65_280, "\\# 4 c000024d"),
    ] {
        assert_eq!(policy.update_rdata(rtype, rdata), WITHHELD);
        assert_eq!(policy.answer_rdata(rdata), rdata);
        assert_eq!(Policy::default().update_rdata(rtype, rdata), rdata);
    }
    // Its own reverse name, even if such names are shown in general.
    let (name, hidden) = ("77.2.0.192.in-addr.arpa", "0.2.0.192.in-addr.arpa");
    assert_eq!(policy.name(name), name);
    assert_eq!(
        (policy.update_name(name), policy.update_rdata(12, name)),
        (hidden.into(), hidden.into())
    );
    assert_eq!(policy.answer_rdata("192.0.2.77"), "192.0.2.77");
}

#[test]
fn free_text_of_servers_is_hidden_if_addresses_are() {
    let keep = PrivacyConfig::default();
    let lengths = PrefixLengths::default();
    let hiding = [
        PrivacyConfig { client_address: AddressRule::Drop, ..keep.clone() },
        PrivacyConfig { server_address: AddressRule::Drop, ..keep.clone() },
        PrivacyConfig { reverse_names: truncation(24, 56), ..keep.clone() },
        PrivacyConfig { client_subnet: SubnetRule::Truncate(lengths), ..keep.clone() },
    ];
    for config in hiding {
        let policy = Policy::new(&config);
        assert_eq!(policy.error_text("192.0.2.77 is blocked"), None);
        // A repeated one is among the options.
        assert!(!policy.shows_option(15));
        let keeps_servers = config.server_address == AddressRule::Keep;
        assert_eq!(policy.shows_nsid(b"192.0.2.53"), keeps_servers);
        assert_eq!(policy.shows_option(3), keeps_servers);
        assert!(policy.shows_nsid(b""), "who asks for one says nothing of addresses");
    }
    let config = PrivacyConfig { cookies: Presence::Drop, ..keep };
    assert_eq!(Policy::new(&config).error_text("stale"), Some("stale"));
    assert!(Policy::new(&config).shows_nsid(b"192.0.2.53"));
}

#[test]
fn reverse_names_are_hidden_in_every_name() {
    let config = PrivacyConfig { reverse_names: AddressRule::Drop, ..PrivacyConfig::default() };
    let policy = Policy::new(&config);
    let name = "77.2.0.192.in-addr.arpa";
    assert_eq!(policy.name(name), "in-addr.arpa");
    assert_eq!(policy.answer_rdata(name), "in-addr.arpa");
    assert_eq!(policy.update_rdata(12, name), "in-addr.arpa");
    assert_eq!(policy.name("www.example"), "www.example");
}

proptest! {
    #[test]
    fn truncating_again_changes_nothing(address: IpAddr, ipv4 in 0..=32u8, ipv6 in 0..=128u8) {
        let lengths = PrefixLengths { ipv4, ipv6 };
        let once = truncate(address, lengths);
        prop_assert_eq!(truncate(once, lengths), once);
        prop_assert_eq!(once.is_ipv4(), address.is_ipv4());
    }

    #[test]
    fn addresses_of_one_prefix_look_alike(
        address: u128,
        other: u128,
        length in 0..=128u8,
    ) {
        let mask = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        let other = address & !mask | other & mask;
        let shown = |bits| truncate_to(Ipv6Addr::from_bits(bits).into(), length);
        prop_assert_eq!(shown(address), shown(other));
    }

    #[test]
    fn a_pseudonym_is_stable_per_key_and_differs_between_keys(address: IpAddr) {
        let text = |first| shown(&hash(key(first)), address).to_string();
        prop_assert_eq!(text(0), text(0));
        prop_assert_ne!(text(0), text(1));
        prop_assert_eq!(text(0).len(), 34);
        prop_assert!(text(0).parse::<IpAddr>().is_err(), "nobody takes it for an address");
    }

    #[test]
    fn pseudonyms_distinguish_addresses(one: IpAddr, other: IpAddr) {
        prop_assume!(one.to_canonical() != other.to_canonical());
        let rule = hash(key(0));
        prop_assert_ne!(shown(&rule, one), shown(&rule, other));
    }

    #[test]
    fn any_name_is_rewritten_without_its_hidden_labels(
        labels in prop::collection::vec("[0-9a-f]{1,3}|[a-z/.\\\\-]{1,6}", 0..40),
        zone in 0..3usize,
        ipv4 in 0..=32u8,
        ipv6 in 0..=128u8,
    ) {
        let zone = ["in-addr.arpa", "ip6.arpa", "ip6.int"][zone];
        let name = [labels, vec![zone.to_owned()]].concat().join(".");
        let reverse_names = truncation(ipv4, ipv6);
        let policy = Policy::new(&PrivacyConfig { reverse_names, ..PrivacyConfig::default() });
        let once = policy.name(&name).into_owned();
        prop_assert_eq!(policy.name(&once), once.as_str(), "truncating again changes nothing");
        let hashed = PrivacyConfig { reverse_names: hash(key(0)), ..PrivacyConfig::default() };
        let policy = Policy::new(&hashed);
        let text = policy.name(&name);
        let pseudonym = text.strip_suffix(zone).and_then(|text| text.strip_suffix('.'));
        let is_pseudonym = |text: &str| text.starts_with("h:") && text.len() == 34;
        prop_assert!(text == zone || pseudonym.is_some_and(is_pseudonym) || text == name.as_str());
    }

    #[test]
    fn a_reverse_name_and_its_address_are_truncated_alike(bits: u32, length in 0..=32u8) {
        let reverse = |address: Ipv4Addr| {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        };
        let address = Ipv4Addr::from_bits(bits);
        let reverse_names = truncation(length, 0);
        let policy = Policy::new(&PrivacyConfig { reverse_names, ..PrivacyConfig::default() });
        let IpAddr::V4(expected) = truncate_to(address.into(), length) else { unreachable!() };
        let name = reverse(address);
        prop_assert_eq!(policy.name(&name), reverse(expected));
    }
}
