use super::*;
use crate::{privacy::Key, privacy::config::KeyFile};

fn hash() -> AddressRule {
    let key = Key::from_content(b"0123456789abcdef0123456789abcdeF").unwrap();
    AddressRule::Hash(KeyFile { key_file: "key".into(), key })
}

const fn truncate(ipv4: u8, ipv6: u8) -> AddressRule {
    AddressRule::Truncate(PrefixLengths { ipv4, ipv6 })
}

const V6: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.f.e.d.c.b.a.9.8.8.b.d.0.1.0.0.2.ip6.arpa";

#[test]
fn truncation_gives_the_reverse_name_of_the_truncated_address() {
    for (length, name, expected) in [
        (24, "77.2.0.192.in-addr.arpa", "0.2.0.192.in-addr.arpa"),
        (16, "77.2.0.192.in-addr.arpa", "0.0.0.192.in-addr.arpa"),
        (20, "77.255.0.192.in-addr.arpa", "0.240.0.192.in-addr.arpa"),
        (0, "77.2.0.192.in-addr.arpa", "0.0.0.0.in-addr.arpa"),
        (32, "77.2.0.192.in-addr.arpa", "77.2.0.192.in-addr.arpa"),
        (24, "2.0.192.in-addr.arpa", "2.0.192.in-addr.arpa"),
        (8, "2.0.192.in-addr.arpa", "0.0.192.in-addr.arpa"),
        (8, "in-addr.arpa", "in-addr.arpa"),
    ] {
        assert_eq!(rewritten(&truncate(length, 0), name).as_deref(), Some(expected), "{length}");
    }
    let of_v6 = |length| rewritten(&truncate(0, length), V6).unwrap();
    let zeros = |count| "0.".repeat(count);
    assert_eq!(of_v6(56), format!("{}d.c.b.a.9.8.8.b.d.0.1.0.0.2.ip6.arpa", zeros(18)));
    assert_eq!(of_v6(54), format!("{}c.c.b.a.9.8.8.b.d.0.1.0.0.2.ip6.arpa", zeros(18)));
    assert_eq!(of_v6(128), V6);
    assert_eq!(of_v6(0), format!("{}ip6.arpa", zeros(32)));
}

#[test]
fn classless_zones_and_services_show_no_more_than_the_prefix() {
    for name in [
        "5.0/25.2.0.192.in-addr.arpa",
        "5.0-127.2.0.192.in-addr.arpa",
        "77.customer.2.0.192.in-addr.arpa",
        "b._dns-sd._udp.77.2.0.192.in-addr.arpa",
        r"5.0\.25.2.0.192.in-addr.arpa",
        "256.2.0.192.in-addr.arpa",
        "077.2.0.192.in-addr.arpa",
        "+77.2.0.192.in-addr.arpa",
    ] {
        let expected = Some("0.2.0.192.in-addr.arpa");
        assert_eq!(rewritten(&truncate(24, 56), name).as_deref(), expected, "{name}");
    }
    // A label that is no number ends the prefix, even if the prefix is longer.
    for (name, expected) in [
        ("1.2.x.192.in-addr.arpa", "0.0.0.192.in-addr.arpa"),
        ("5.0/25.2.0.192.in-addr.arpa", "0.2.0.192.in-addr.arpa"),
        ("x.in-addr.arpa", "0.in-addr.arpa"),
        (r"3\.2.1.in-addr.arpa", "0.1.in-addr.arpa"),
    ] {
        assert_eq!(rewritten(&truncate(32, 128), name).as_deref(), Some(expected));
    }
}

#[test]
fn a_name_elsewhere_is_no_reverse_name() {
    for name in [
        "77.2.0.192.zen.example",
        "notin-addr.arpa",
        "77.2.0.192.in-addr.arparat.example",
        r"77.2.0.192.in-addr.arpa\.corp.example",
        r"77\.in-addr.arpa.corp.example",
        r"77\.in-addr.arpa",
        "e164.arpa",
        "arpa",
        "int",
        ".",
        "",
    ] {
        for rule in [truncate(0, 0), hash(), AddressRule::Drop] {
            assert_eq!(rewritten(&rule, name), None, "{name}");
        }
    }
}

#[test]
fn a_reverse_name_with_the_domain_of_a_search_list_is_hidden() {
    let v6 = format!("{V6}.corp.example");
    for (rule, name, expected) in [
        (
            truncate(24, 56),
            "77.2.0.192.in-addr.arpa.corp.example",
            "0.2.0.192.in-addr.arpa.corp.example",
        ),
        (truncate(24, 56), "x.77.2.0.192.in-addr.arpa.test", "0.2.0.192.in-addr.arpa.test"),
        (truncate(0, 8), &v6, &format!("{}0.2.ip6.arpa.corp.example", "0.".repeat(30))),
        (AddressRule::Drop, "77.2.0.192.in-addr.arpa.corp.example", "in-addr.arpa.corp.example"),
        (AddressRule::Drop, "in-addr.arpa.corp.example", "in-addr.arpa.corp.example"),
        // The labels before the last zone are the address.
        (
            truncate(24, 56),
            "77.2.0.192.in-addr.arpa.9.8.7.6.in-addr.arpa.test",
            "0.8.7.6.in-addr.arpa.test",
        ),
        (AddressRule::Drop, "77.2.0.192.in-addr.arpa.1.0.ip6.int.test", "ip6.int.test"),
        (AddressRule::Drop, "1.0.ip6.arpa.7.6.in-addr.arpa", "in-addr.arpa"),
    ] {
        assert_eq!(rewritten(&rule, name).as_deref(), Some(expected), "{name}");
    }
    // An address has one pseudonym, whatever follows its reverse name.
    let rule = hash();
    for name in ["77.2.0.192.in-addr.arpa", "5.0/25.2.0.192.in-addr.arpa"] {
        let plain = rewritten(&rule, name).unwrap();
        let searched = rewritten(&rule, &format!("{name}.corp.example"));
        assert_eq!(searched, Some(format!("{plain}.corp.example")));
    }
}

#[test]
fn a_whole_address_has_its_own_pseudonym_and_other_names_one_of_theirs() {
    let rule = hash();
    let name = |name: &str| rewritten(&rule, name).unwrap();
    let address = |address: &str| crate::privacy::shown(&rule, address.parse().unwrap());
    assert_eq!(name("77.2.0.192.in-addr.arpa"), format!("{}.in-addr.arpa", address("192.0.2.77")));
    assert_eq!(name(V6), format!("{}.ip6.arpa", address("2001:db8:89ab:cdef::1")));
    let others = [
        "77.2.0.192.in-addr.arpa",
        "2.0.192.in-addr.arpa",
        "5.0/25.2.0.192.in-addr.arpa",
        "b.77.2.0.192.in-addr.arpa",
        "0.77.2.0.192.in-addr.arpa",
    ];
    let mut pseudonyms: Vec<_> = others.iter().map(|other| name(other)).collect();
    assert!(pseudonyms.iter().all(|text| text.len() == 34 + ".in-addr.arpa".len()));
    pseudonyms.sort();
    pseudonyms.dedup();
    assert_eq!(pseudonyms.len(), others.len());
    assert_eq!(name("ip6.arpa"), "ip6.arpa");
}

#[test]
fn a_dropped_name_leaves_its_zone() {
    let name = |name| rewritten(&AddressRule::Drop, name);
    assert_eq!(name("77.2.0.192.in-addr.arpa").as_deref(), Some("in-addr.arpa"));
    assert_eq!(name(V6).as_deref(), Some("ip6.arpa"));
    assert_eq!(name("1.0.ip6.int").as_deref(), Some("ip6.int"));
}

#[test]
fn reverse_names_in_rdata_are_rewritten_in_place() {
    let rdata = |rdata| rewritten_rdata(&truncate(24, 56), rdata);
    assert_eq!(rdata("77.2.0.192.in-addr.arpa").as_deref(), Some("0.2.0.192.in-addr.arpa"));
    assert_eq!(
        rdata("9.2.0.192.in-addr.arpa host.example 1 2 3 4 5").as_deref(),
        Some("0.2.0.192.in-addr.arpa host.example 1 2 3 4 5")
    );
    assert_eq!(
        rdata("10 9.2.0.192.in-addr.arpa.test").as_deref(),
        Some("10 0.2.0.192.in-addr.arpa.test")
    );
    assert_eq!(rdata("host.example"), None);
    assert_eq!(rdata("\"77.2.0.192.in-addr.arpa.test \""), None, "nor is its beginning");
    assert_eq!(rdata("\"77.2.0.192.in-addr.arpa\""), None, "a text is no name");
}

#[test]
fn generic_rdata_with_a_reverse_name_is_withheld() {
    let rdata = |rdata: &str| rewritten_rdata(&truncate(24, 56), rdata);
    let name = "0237370132013003313932";
    for zone in [
        "07696e2d61646472046172706100",
        "07494E2D41444452044152504100",
        "07696e2d61646472046172706104746573740000",
    ] {
        assert_eq!(rdata(&format!("\\# 25 {name}{zone}")).as_deref(), Some(WITHHELD));
        assert_eq!(rdata(&format!("\\# 27 0001 {name} {zone}")).as_deref(), Some(WITHHELD));
    }
    assert_eq!(rdata("\\# 4 0a000001"), None);
}
