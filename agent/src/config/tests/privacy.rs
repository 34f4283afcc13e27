use std::{fs, os::unix::fs::PermissionsExt as _};

use tap53_transactions::privacy::Key;

use super::*;

const SECRET: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";

fn read(privacy: &str) -> Result<PrivacyConfig, Vec<String>> {
    match parse(&format!("interfaces: {{include: [lo]}}\n{privacy}")) {
        Ok(config) => Ok(config.privacy),
        Err(Error::Refused { problems, .. }) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(other) => panic!("{other}"),
    }
}

fn key_file(mode: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), SECRET).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn every_rule_can_be_written() {
    let file = key_file(0o600);
    let path = file.path().display();
    let config = read(&format!(
        "privacy:\n  client_address: {{hash: {{key_file: {path}}}}}\n  \
         server_address: {{truncate: {{ipv4: 16}}}}\n  reverse_names: truncate\n  \
         client_subnet: {{truncate: {{ipv6: 32}}}}\n  cookies: keep\n  other_options: keep\n"
    ))
    .unwrap();
    let key = Key::read(file.path()).unwrap();
    let expected = PrivacyConfig {
        client_address: AddressRule::Hash(KeyFile { key_file: file.path().into(), key }),
        server_address: AddressRule::Truncate(PrefixLengths { ipv4: 16, ipv6: 56 }),
        reverse_names: AddressRule::Truncate(PrefixLengths { ipv4: 24, ipv6: 56 }),
        client_subnet: SubnetRule::Truncate(PrefixLengths { ipv4: 24, ipv6: 32 }),
        cookies: Presence::Keep,
        other_options: Presence::Keep,
    };
    assert_eq!(config, expected);
}

#[test]
fn identifying_fields_are_dropped_with_the_clients_address() {
    let config = read("privacy: {client_address: truncate}").unwrap();
    assert_eq!(config.client_subnet, SubnetRule::Drop);
    assert_eq!((config.cookies, config.other_options), (Presence::Drop, Presence::Drop));
    assert_eq!(config.server_address, AddressRule::Keep);
    assert_eq!(config.reverse_names, AddressRule::Keep);
    let config = read("privacy: {client_address: drop, cookies: keep}").unwrap();
    assert_eq!(config.cookies, Presence::Keep, "what was asked for stays");
    assert!(read("privacy: {client_address: keep}").unwrap().keeps_everything());
}

#[test]
fn every_problem_is_named_with_its_key() {
    let problems = read(
        r#"
privacy:
  client_address: hide
  server_address: hash
  reverse_names: {truncate: {ipv4: 33, ipv5: 1}}
  client_subnet: {hash: {key_file: x}}
  cookies: truncate
  clients: drop
"#,
    )
    .unwrap_err();
    assert_eq!(
        problems,
        [
            "privacy.client_address: \"hide\": must be one of keep, truncate, hash, drop",
            "privacy.server_address: needs a key: write {hash: {key_file: PATH}}",
            "privacy.reverse_names.truncate.ipv4: 33: must be a whole number from 0 to 32",
            "privacy.reverse_names.truncate.ipv5: no such key; did you mean ipv6?",
            "privacy.client_subnet: must be keep, drop or truncate",
            "privacy.cookies: \"truncate\": must be one of keep, drop",
            "privacy.clients: no such key",
        ]
    );
    let both = "privacy: {client_address: {truncate: {}, hash: {key_file: x}}}";
    for text in [both, "privacy: {client_address: {}}", "privacy: {client_address: {drop: true}}"] {
        let reason = "privacy.client_address: must be keep, drop, or one of truncate and hash";
        assert_eq!(read(text).unwrap_err(), [reason]);
    }
    assert_eq!(
        read("privacy: {client_address: {hash: {}}}").unwrap_err(),
        ["privacy.client_address.hash.key_file: missing"]
    );
}

#[test]
fn a_key_is_read_with_the_configuration_and_never_written() {
    let file = key_file(0o640);
    let path = file.path().display();
    let text = format!(
        "interfaces: {{include: [lo]}}\nprivacy: {{client_address: {{hash: {{key_file: {path}}}}}}}"
    );
    let config = parse(&text).unwrap();
    let yaml = config.to_yaml().unwrap();
    assert_eq!(parse(&yaml).unwrap(), config, "{yaml}");
    assert!(yaml.contains(&path.to_string()), "{yaml}");
    // Nor a part of it, nor its octets in decimal.
    for written in [yaml, format!("{config:?}")] {
        assert!(!written.contains(&SECRET[..8]), "{written}");
        assert!(!written.contains("17, 34, 51"), "{written}");
    }
}

#[test]
fn a_key_that_every_user_can_read_is_refused() {
    let file = key_file(0o644);
    let path = file.path().display();
    let problems =
        read(&format!("privacy: {{server_address: {{hash: {{key_file: {path}}}}}}}")).unwrap_err();
    assert_eq!(
        problems,
        [format!(
            "privacy.server_address.hash.key_file: \"{path}\": is open to every user (mode 0644): \
             take the others' rights away (chmod o=; defaultMode: 0440 for a Kubernetes secret)"
        )]
    );
}

#[test]
fn messages_as_sent_and_hidden_addresses_exclude_each_other() {
    for rule in ["client_address: drop", "cookies: drop", "reverse_names: truncate"] {
        let problems =
            read(&format!("privacy: {{{rule}}}\nrecord: {{wire_bytes: true}}")).unwrap_err();
        assert_eq!(problems.len(), 1, "{rule}: {problems:?}");
        assert!(problems[0].starts_with("record.wire_bytes: true: messages as they were sent"));
    }
    read("privacy: {client_address: keep}\nrecord: {wire_bytes: true}").unwrap();
}
