//! Data that the policy hides is in no encoding.

use tap53_dns::{Message, build::Build};
use tap53_transactions::{
    pair::{Exchange, Observation, Transaction},
    privacy::{
        Policy,
        config::{AddressRule, Presence, PrivacyConfig, SubnetRule},
    },
};

use crate::encode::{
    Columns, Csv, Datum, Encode, JsonLine, MessageLine, Record, RowLine, Text, TextOptions, samples,
};

/// An UPDATE request with the address 203.0.113.77 in every possible place: the reverse name in its
/// question, the client subnet, the prerequisite, the added records, the texts of extended errors
/// and the name server identifiers.
fn update() -> Message {
    let client_subnet = [0, 8, 0, 8, 0, 1, 32, 0, 203, 0, 113, 77];
    let again = client_subnet;
    let cookie = b"\0\x0a\0\x08cookie77";
    let error = b"\0\x0f\0\x0e\0\x12203.0.113.77";
    let nsid = b"\0\x03\0\x0c203.0.113.77";
    let text = b"\x0c203.0.113.77";
    // SVCB: priority 1, the root, ipv4hint.
    let hint = b"\0\x01\0\0\x04\0\x04\xcb\0\x71\x4d";
    let mut wire = Build::message(1, false)
        .question("77.113.0.203.in-addr.arpa", 6)
        .answer(1, 60, &[203, 0, 113, 77])
        .answer(1, 60, &[203, 0, 113, 77])
        .answer(16, 60, text)
        .answer(64, 60, hint)
        .answer(65_280, 60, &[203, 0, 113, 77])
        .opt(&[&client_subnet[..], cookie, &again, error, error, nsid, nsid].concat())
        .wire();
    // UPDATE; the second record counts for section 3, between the other two.
    wire[2] |= 5 << 3;
    (wire[7], wire[9]) = (1, 4);
    Message::parse(&wire).unwrap()
}

fn encodings(policy: &Policy) -> Vec<String> {
    let query = Observation { message: update(), ..Default::default() };
    samples::with_record("unanswered", |record| {
        let mut transaction =
            Transaction { exchange: Exchange::Query(&query), ..*record.transaction };
        transaction.flow.client = ([203, 0, 113, 77], 40_000).into();
        transaction.flow.server = ([203, 0, 113, 77], 53).into();
        let record = Record { transaction: &transaction, policy, ..*record };
        let encoders: [Box<dyn Encode>; 6] = [
            Box::new(Datum::default()),
            Box::new(JsonLine),
            Box::new(MessageLine),
            Box::new(Text::new(TextOptions::default())),
            Box::new(Csv::new(TextOptions { columns: Columns::CSV, ..Default::default() })),
            Box::new(RowLine),
        ];
        encoders
            .into_iter()
            .map(|mut encoder| {
                let mut out = Vec::new();
                encoder.encode(&record, &mut out).unwrap();
                String::from_utf8_lossy(&out).into_owned()
            })
            .collect()
    })
}

/// The address in text, in a name, as bytes, and as bytes in hexadecimal.
const TRACES: [&str; 6] =
    ["203.0.113.77", "77.113.0.203", "cb00714d", "cookie77", "636f6f6b69653737", "203.0.113"];

#[test]
fn hidden_data_is_in_no_encoding() {
    let hidden = Policy::new(&PrivacyConfig {
        client_address: AddressRule::Drop,
        server_address: AddressRule::Drop,
        reverse_names: AddressRule::Drop,
        client_subnet: SubnetRule::Drop,
        cookies: Presence::Drop,
        other_options: Presence::Drop,
    });
    for text in encodings(&hidden) {
        for trace in TRACES {
            assert!(!text.contains(trace), "{trace} in {text}");
        }
        assert!(text.contains("in-addr.arpa"), "{text}");
    }
}

/// Without this, the test above could search for something that never occurs.
#[test]
fn other_data_is_in_every_encoding() {
    let all = encodings(&Policy::default()).join("\n");
    for trace in TRACES {
        assert!(all.contains(trace), "{trace} not in {all}");
    }
}
