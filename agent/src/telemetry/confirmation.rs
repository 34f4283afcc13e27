//! How an agent confirms a probe to a client without access to its control socket: the lines that it
//! writes at `/probe` of its telemetry port.
//!
//! ```text
//!  GET /probe?name=LABEL.tap53-probe.invalid      LABEL: 16 hexadecimal digits, drawn at random
//!    ─▶ {"following":{"capturing":["eth0"]}}      at once: now the query can be sent
//!    ─▶ {"recorded":{"interface":"eth0",…}}       when the record is there, or: {"lost":…}
//! ```
//!
//! Everybody who reaches the port may be on the other end, so nothing is confirmed that the other end
//! does not know: names have 64 random bits, and [`Recorded`] has no address and no owner. With them,
//! a pod that sends queries from forged addresses could read their pseudonyms here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Below which name a probe asks, unless told otherwise: one that exists nowhere (RFC 6761 §6.4).
pub const SUFFIX: &str = "tap53-probe.invalid";

/// Hexadecimal digits of the random label.
pub(crate) const LABEL_DIGITS: usize = 16;

/// Returns true for names that are confirmed: a random label below [`SUFFIX`].
pub(crate) fn is_confirmed(name: &str) -> bool {
    let label = name.strip_suffix(SUFFIX).and_then(|rest| rest.strip_suffix('.'));
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    label.is_some_and(|label| label.len() == LABEL_DIGITS && label.bytes().all(is_digit))
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first line: the agent looks for the name from now on.
    Following {
        /// Names of the interfaces from which it captures.
        capturing: Vec<String>,
    },
    /// The record.
    Recorded(Box<Recorded>),
    /// The agent had more records than it could show.
    Lost,
}

/// The confirmed part of a record. Fields have the names and values of the record's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    interface: String,
    direction: String,
    outcome: String,
    dns_id: u16,
    qname: String,
    qtype: String,
    transport: String,
    rcode: Option<String>,
}

impl Recorded {
    /// Takes the fields from a record of [`LineFormat::Json`](crate::tail::LineFormat::Json).
    pub(crate) fn read(record: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(record)
    }

    pub(crate) fn into_value(self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

impl Line {
    /// The line with its line feed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // Cannot fail: strings and numbers are valid JSON.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    pub(crate) fn read(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_random_label_are_confirmed() {
        assert!(is_confirmed("0123456789abcdef.tap53-probe.invalid"));
        for refused in [
            "",
            "tap53-probe.invalid",
            ".tap53-probe.invalid",
            "0123456789abcde.tap53-probe.invalid",
            "0123456789ABCDEF.tap53-probe.invalid",
            "0123456789abcdef0.tap53-probe.invalid",
            "0123456789abcdef.x.tap53-probe.invalid",
            "0123456789abcdeftap53-probe.invalid",
            "0123456789abcdef.tap53-probe.invalid.",
            "0123456789abcdef.example.com",
            "www.example.com",
        ] {
            assert!(!is_confirmed(refused), "{refused}");
        }
    }

    #[test]
    fn what_is_confirmed_has_no_address_and_no_owner() {
        let record = br#"{"interface":"eth0","direction":"INGRESS","outcome":"MATCHED","dns_id":7,
            "qname":"a.invalid","qtype":"A","transport":"UDP","rcode":null,
            "client_address":"10.244.1.2","client_port":4711,"client_pod_name":"shop"}"#;
        let recorded = Recorded::read(record).unwrap();
        let line = Line::Recorded(Box::new(recorded.clone())).bytes();
        assert_eq!(Line::read(&line).unwrap(), Line::Recorded(Box::new(recorded)));
        let text = String::from_utf8(line).unwrap();
        assert!(!text.contains("10.244") && !text.contains("4711") && !text.contains("shop"));
    }

    #[test]
    fn lines_survive_a_round_trip() {
        for line in [Line::Following { capturing: vec!["eth0".to_owned()] }, Line::Lost] {
            assert_eq!(Line::read(&line.bytes()).unwrap(), line);
        }
        assert!(Line::read(b"metrics").is_err());
    }
}
