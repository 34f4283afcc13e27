//! What goes over the socket: one line of JSON there, one back, and behind a `tail` the records.
//!
//! ```text
//!  {"version":1,"call":"status"}
//!  {"version":1,"call":"live"}
//!  {"version":1,"call":{"enable":{"pattern":"eth*","directions":"both","lasts_ms":600000}}}
//!  {"version":1,"call":{"tail":{"format":"json","selection":{"qnames":["example.com"]}}}}
//!    ─▶ {"ok":…}   or   {"error":{"reason":"denied","message":"…"}}
//! ```
//!
//! Behind the answer to a `tail`, each line is a record, but for those that begin with [`NOTE`]: a
//! [`Note`] about the stream itself. No record begins so, as JSON begins with `{` and text with a
//! digit.
//!
//! Requests are read strictly, so that a misspelt key is not a change with its default; answers
//! leniently, so that an older command understands a newer agent.

use glob::Pattern;
use serde::{Deserialize, Serialize};
use tap53_capture::interfaces::{Switch, SwitchTo, config::Directions};

use crate::tail::{LineFormat, Selection};

/// Of the protocol. Another one is refused.
pub const VERSION: u32 = 1;

/// Bytes of a request, its line feed included.
pub const MAX_REQUEST: usize = 4_096;

/// First byte of a line in a stream of records that is none.
pub const NOTE: u8 = b'!';

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// [`VERSION`].
    pub version: u32,
    /// What is wanted.
    pub call: Call,
}

/// Of a request whose version is not ours, what can be read.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// How things are.
    Status,
    /// Ask if the agent is alive; answered without the run loop.
    Live,
    /// Capture on interfaces.
    Enable {
        /// Shell pattern of interface names.
        pattern: String,
        /// In which directions.
        directions: Directions,
        /// For how long, milliseconds; without end where it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts_ms: Option<u64>,
    },
    /// Capture on interfaces no longer.
    Disable {
        /// Shell pattern of interface names.
        pattern: String,
        /// Also take the programs off.
        #[serde(default)]
        detach: bool,
        /// For how long, milliseconds; without end where it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts_ms: Option<u64>,
    },
    /// Forget what was switched with this pattern.
    Reset {
        /// Shell pattern of interface names.
        pattern: String,
    },
    /// Follow the records.
    Tail {
        /// How they are written.
        format: LineFormat,
        /// Which of them.
        #[serde(default)]
        selection: Selection,
    },
}

/// Why a request failed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// This user may not.
    Denied,
    /// Too many connections or followers.
    Busy,
    /// The request did not arrive in time.
    TimedOut,
    /// Longer than [`MAX_REQUEST`].
    TooLong,
    /// Not a request.
    Malformed,
    /// Of another version.
    Version,
    /// The agent looked at it and does not do it.
    Refused,
    /// The agent is too busy, or stops.
    NoAnswer,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Fault {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// About a stream of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// So many lines are missing here: the reader was too slow.
    Lost(u64),
    /// Nothing more comes, and why.
    End(String),
}

/// Reads a request, without its line feed.
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

/// A change, checked; `to` from what the call says.
pub(super) fn switch(pattern: &str, to: SwitchTo, lasts_ms: Option<u64>) -> Result<Switch, Fault> {
    /// A year: what is to last longer stands in the configuration.
    const LONGEST_MS: u64 = 366 * 24 * 3_600 * 1_000;
    /// Longer than any name (IFNAMSIZ is 16), with room for brackets.
    const LONGEST_PATTERN: usize = 128;
    let refuse = |message: String| Fault::new(Reason::Malformed, message);
    if pattern.is_empty() || pattern.len() > LONGEST_PATTERN {
        return Err(refuse(format!("a pattern has 1 to {LONGEST_PATTERN} bytes")));
    }
    if pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refuse("a pattern has no white space and no control characters".to_owned()));
    }
    let pattern = Pattern::new(pattern)
        .map_err(|error| refuse(format!("{pattern:?} is not a shell pattern: {}", error.msg)))?;
    if lasts_ms.is_some_and(|ms| ms == 0 || ms > LONGEST_MS) {
        return Err(refuse("a change lasts more than nothing and at most a year".to_owned()));
    }
    Ok(Switch { pattern, to, lasts: lasts_ms.map(std::time::Duration::from_millis) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_writes_the_agent_reads() {
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
            Call::Tail { format: LineFormat::Json, selection: Selection::default() },
        ];
        for call in calls {
            let line = Line { version: VERSION, call: call.clone() };
            let text = serde_json::to_vec(&line).unwrap();
            assert!(text.len() < MAX_REQUEST);
            assert_eq!(read(&text), Ok(call));
        }
    }

    #[test]
    fn a_request_is_read_as_it_is_documented() {
        let text = r#"{"version":1,"call":{"enable":{"pattern":"eth*","directions":"both"}}}"#;
        let expected =
            Call::Enable { pattern: "eth*".into(), directions: Directions::Both, lasts_ms: None };
        assert_eq!(read(text.as_bytes()), Ok(expected));
        assert_eq!(read(br#"{"version":1,"call":"status"}"#), Ok(Call::Status));
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_name() {
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
    fn a_pattern_or_a_time_that_makes_no_sense_is_refused() {
        for pattern in ["", "eth 0", "eth[", "a\u{7}", &"x".repeat(129)] {
            assert!(switch(pattern, SwitchTo::Reset, None).is_err(), "{pattern:?}");
        }
        for lasts_ms in [0, u64::MAX] {
            assert!(switch("eth0", SwitchTo::Reset, Some(lasts_ms)).is_err(), "{lasts_ms}");
        }
        assert!(switch("eth[0-9]*", SwitchTo::Reset, Some(1)).is_ok());
    }
}
