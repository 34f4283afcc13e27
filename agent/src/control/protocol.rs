//! The protocol of the control socket: a request and an answer, each a line of JSON. The records follow
//! the answer to a `tail`.
//!
//! ```text
//!  {"version":1,"call":"status"}
//!  {"version":1,"call":"live"}
//!  {"version":1,"call":{"enable":{"pattern":"eth*","directions":"both","lasts_ms":600000}}}
//!  {"version":1,"call":{"tail":{"format":"json","selection":{"qnames":["example.com"]}}}}
//!  {"version":1,"call":{"tail":{"format":"row","past":{"last":20}}}}
//!  {"version":1,"call":{"top":{"selection":{"namespaces":["shop"]}}}}
//!    ─▶ {"ok":…}   or   {"error":{"reason":"denied","message":"…"}}
//! ```
//!
//! After the answer to a `tail`, each line is a record, except lines that begin with [`NOTE`]: they are
//! a [`Note`] about the stream. No record begins with it: JSON begins with `{` and text with a digit.
//!
//! After the answer to a `top`, the agent counts for the client. Each line feed that the client sends is
//! answered by a line: a [`Snapshot`](crate::top::Snapshot), or a [`Note`] at the end.
//!
//! Requests are parsed strictly, so that a misspelt key does not silently become a default. Answers are
//! parsed leniently, so that an older command understands a newer agent.

use serde::{Deserialize, Serialize};
use tap53_capture::interfaces::{Selector, Switch, SwitchTo, config::Directions};

use crate::tail::{LineFormat, Selection};

/// Version of the protocol. Requests of another version are refused.
pub const VERSION: u32 = 1;

/// Maximum size of a request in bytes, with its line feed.
pub const MAX_REQUEST: usize = 4_096;

/// First byte of a line that is a [`Note`] and not a record.
pub const NOTE: u8 = b'!';

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// [`VERSION`].
    pub version: u32,
    /// The call.
    pub call: Call,
}

/// The version of a request, which is read first.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// A call of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Return the agent's status.
    Status,
    /// Return whether the agent is alive; answered without the run loop.
    Live,
    /// Start capture on interfaces.
    Enable {
        /// Shell pattern of interface names, or a kind (`kind:pods`).
        pattern: String,
        /// Directions to capture.
        directions: Directions,
        /// Duration in milliseconds; unlimited if missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts_ms: Option<u64>,
    },
    /// Stop capture on interfaces.
    Disable {
        /// Shell pattern of interface names, or a kind (`kind:pods`).
        pattern: String,
        /// Detach the programs as well.
        #[serde(default)]
        detach: bool,
        /// Duration in milliseconds; unlimited if missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts_ms: Option<u64>,
    },
    /// Undo the switches that were made with this pattern.
    Reset {
        /// Shell pattern of interface names, or a kind (`kind:pods`).
        pattern: String,
    },
    /// Follow the records.
    Tail {
        /// Format of the records.
        format: LineFormat,
        /// Selection of records.
        #[serde(default)]
        selection: Box<Selection>,
        /// The records of the past that come first; none if missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        past: Option<PastRequest>,
    },
    /// Count the records for this client.
    Top {
        /// Selection of records.
        #[serde(default)]
        selection: Box<Selection>,
    },
}

/// The records of the past that a follower wants, from the agent's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PastRequest {
    /// Maximum number of records; the latest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Time before now in milliseconds, within which transactions have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// The reason why a request failed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// This user is not allowed.
    Denied,
    /// Too many connections, or followers that get counts.
    Busy,
    /// The request did not arrive in time.
    TimedOut,
    /// The request is longer than [`MAX_REQUEST`].
    TooLong,
    /// The request is malformed.
    Malformed,
    /// The request has another version.
    Version,
    /// The agent refused the request.
    Refused,
    /// The agent is too busy to answer, or is stopping.
    NoAnswer,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// The error of a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Reason for programs.
    pub reason: Reason,
    /// Message for people.
    pub message: String,
}

impl Fault {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A note in a stream of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// This number of lines was lost here: the reader was too slow.
    Lost(u64),
    /// The records of the past are complete; those that follow are new. Only in answers to a request
    /// with `past`.
    Past {
        /// Number of records of the past.
        records: u64,
        /// False if the agent's memory had dropped more that were requested.
        complete: bool,
    },
    /// Something that the reader should know, such as that one of several agents does not answer.
    Warning(String),
    /// The stream has ended, for this reason.
    End(String),
    /// The stream has ended because a newer follower took its place, for this reason.
    Displaced(String),
}

/// Parses a request, without its line feed.
pub(super) fn read(line: &[u8]) -> Result<Call, Fault> {
    let malformed = |error: serde_json::Error| {
        Fault::new(Reason::Malformed, format!("this is not a request: {error}"))
    };
    let AnyVersion { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        let message = format!("this agent speaks version {VERSION} of the protocol, not {version}");
        return Err(Fault::new(Reason::Version, message));
    }
    serde_json::from_slice(line).map(|Line { call, .. }| call).map_err(malformed)
}

/// Checks a switch and returns it.
pub(super) fn switch(pattern: &str, to: SwitchTo, lasts_ms: Option<u64>) -> Result<Switch, Fault> {
    /// A year; a permanent change belongs in the configuration.
    const MAX_MS: u64 = 366 * 24 * 3_600 * 1_000;
    /// Longer than any name (IFNAMSIZ is 16), with room for brackets.
    const MAX_PATTERN: usize = 128;
    let refuse = |message: String| Fault::new(Reason::Malformed, message);
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(refuse(format!("a pattern has 1 to {MAX_PATTERN} bytes")));
    }
    if pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refuse("a pattern has no white space and no control characters".to_owned()));
    }
    let selector =
        Selector::parse(pattern).map_err(|reason| refuse(format!("{pattern:?} {reason}")))?;
    if lasts_ms.is_some_and(|ms| ms == 0 || ms > MAX_MS) {
        return Err(refuse("the duration must be more than zero and at most a year".to_owned()));
    }
    Ok(Switch { selector, to, lasts: lasts_ms.map(std::time::Duration::from_millis) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_survives_a_round_trip() {
        let calls = [
            Call::Status,
            Call::Live,
            Call::Enable {
                pattern: "eth*".into(),
                directions: Directions::Both,
                lasts_ms: Some(600_000),
            },
            Call::Disable { pattern: "eth0".into(), detach: true, lasts_ms: None },
            Call::Reset { pattern: "eth0".into() },
            Call::Tail { format: LineFormat::Json, selection: Box::default(), past: None },
            Call::Tail {
                format: LineFormat::Row,
                selection: Box::new(Selection {
                    namespaces: vec!["shop".to_owned()],
                    labels: vec![("app".to_owned(), "checkout".to_owned())],
                    slower_us: Some(50_000),
                    ..Selection::default()
                }),
                past: Some(PastRequest { last: Some(5), since_ms: None }),
            },
            Call::Top { selection: Box::default() },
        ];
        for call in calls {
            let line = Line { version: VERSION, call: call.clone() };
            let text = serde_json::to_vec(&line).unwrap();
            assert!(text.len() < MAX_REQUEST);
            assert_eq!(read(&text), Ok(call));
        }
    }

    #[test]
    fn documented_requests_are_parsed() {
        let text = r#"{"version":1,"call":{"enable":{"pattern":"eth*","directions":"both"}}}"#;
        let expected =
            Call::Enable { pattern: "eth*".into(), directions: Directions::Both, lasts_ms: None };
        assert_eq!(read(text.as_bytes()), Ok(expected));
        assert_eq!(read(br#"{"version":1,"call":"status"}"#), Ok(Call::Status));
    }

    /// An agent of an earlier version refuses keys that it does not know.
    #[test]
    fn a_request_names_only_what_it_uses() {
        let selection = Box::new(Selection { unanswered: true, ..Selection::default() });
        let call = Call::Tail { format: LineFormat::Json, selection, past: None };
        let text = serde_json::to_string(&Line { version: VERSION, call }).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"call":{"tail":{"format":"json","selection":{"unanswered":true}}}}"#
        );
    }

    #[test]
    fn unknown_calls_and_keys_are_refused_by_name() {
        for (text, reason, part) in [
            (r#"{"version":1,"call":"stat"}"#, Reason::Malformed, "stat"),
            (r#"{"version":1,"call":"status","if":1}"#, Reason::Malformed, "`if`"),
            (
                r#"{"version":1,"call":{"disable":{"pattern":"a","detatch":true}}}"#,
                Reason::Malformed,
                "`detatch`",
            ),
            (
                r#"{"version":1,"call":{"tail":{"format":"json","selection":{"qname":[]}}}}"#,
                Reason::Malformed,
                "`qname`",
            ),
            (r#"{"version":2,"call":{"restart":{}}}"#, Reason::Version, "not 2"),
            (r#"{"call":"status"}"#, Reason::Malformed, "`version`"),
            ("GET / HTTP/1.1", Reason::Malformed, "not a request"),
            ("", Reason::Malformed, "not a request"),
        ] {
            let fault = read(text.as_bytes()).unwrap_err();
            assert_eq!(fault.reason, reason, "{text}");
            assert!(fault.message.contains(part), "{text}: {}", fault.message);
        }
    }

    #[test]
    fn invalid_patterns_and_durations_are_refused() {
        for pattern in ["", "eth 0", "eth[", "a\u{7}", &"x".repeat(129)] {
            assert!(switch(pattern, SwitchTo::Reset, None).is_err(), "{pattern:?}");
        }
        for lasts_ms in [0, u64::MAX] {
            assert!(switch("eth0", SwitchTo::Reset, Some(lasts_ms)).is_err(), "{lasts_ms}");
        }
        assert!(switch("eth[0-9]*", SwitchTo::Reset, Some(1)).is_ok());
    }
}
