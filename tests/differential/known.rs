//! Accepted differences from another reader, with their reasons: one entry each.

use serde_json::Value;

use super::compare::{Difference, Reader, answers_of};

/// A difference that is meant.
struct Known {
    reader: Reader,
    /// The reason why we are right, or both are.
    reason: &'static str,
    applies: fn(&Case<'_>) -> bool,
}

/// The context of a difference.
struct Case<'a> {
    /// Name of the message's special feature.
    name: &'a str,
    /// Both lines.
    ours: &'a Value,
    theirs: &'a Value,
    difference: &'a Difference,
}

impl Case<'_> {
    fn is_rdata(&self) -> bool {
        self.difference.field.ends_with("/rdata")
    }

    fn text(&self) -> &str {
        self.difference.ours.as_str().unwrap_or_default()
    }

    fn answers(line: &Value) -> &[Value] {
        answers_of(line)
    }

    /// True if dnspython refused the RDATA concerned for what it says and not for its form: that
    /// of the answer that differs, or each that it refused where the message's status differs.
    fn is_refused_for_content(&self) -> bool {
        let answers = Self::answers(self.theirs);
        let concerned = match self.difference.field.split('/').collect::<Vec<_>>()[..] {
            ["answers", position, "rdata"] => {
                position.parse().ok().and_then(|position: usize| answers.get(position..=position))
            }
            ["parse_status"] => Some(answers),
            _ => None,
        };
        let mut refused = concerned
            .unwrap_or_default()
            .iter()
            .filter_map(|answer| answer["refused"].as_str())
            .peekable();
        refused.peek().is_some()
            && refused.all(|refusal| CONTENT.iter().any(|(what, _)| refusal.contains(what)))
    }
}

/// Errors for which dnspython refuses RDATA that has the form of its type: a part of its message, and the
/// reason why we show the RDATA. A record must show such data to its readers.
const CONTENT: &[(&str, &str)] = &[
    ("declared mandatory but not present", "RFC 9460 §8: for a client to ignore"),
    ("parameters in AliasMode", "RFC 9460 §2.4.2: for a client to ignore"),
    ("ECHConfigList", "RFC 9460 §14.3.2: its value belongs to another protocol"),
    ("length inconsistent with", "RFC 4034 §5.1.4: a digest is as long as its RDATA says"),
    ("is reserved", "RFC 4034 §5.1.3, RFC 8976 §2.2: zero is a number that was sent"),
    ("digest must be at least", "RFC 8976 §2.2.4: for a verifier to ignore"),
    ("bad longitude", "RFC 1712 §3: three strings; no range is checked"),
    ("bad latitude", "RFC 1712 §3"),
    ("non-canonical zero", "RFC 1876 §2: zero has ten forms"),
];

const KNOWN: &[Known] = &[
    Known {
        reader: Reader::Dnspython,
        reason: "a value that dnspython refuses has the form of its type, as CONTENT lists them",
        applies: |case| case.is_refused_for_content(),
    },
    Known {
        reader: Reader::Dnspython,
        reason: "RFC 6891 §6.1.1: OPT has its place in the additional section; elsewhere its RDATA \
                 means nothing, and that it is broken neither",
        applies: |case| {
            let answers = Case::answers(case.theirs);
            case.difference.field == "parse_status"
                && answers
                    .iter()
                    .filter(|answer| !answer["refused"].is_null())
                    .all(|answer| answer["type"] == "OPT")
        },
    },
    Known {
        reader: Reader::Tshark,
        reason: "RFC 6891 §6.1.1, again: tshark reads OPT in any section, and its extended response \
                 code there",
        applies: |case| {
            Case::answers(case.ours).iter().any(|answer| answer["type"] == "OPT")
                && (case.theirs["malformed"] == true || case.difference.field == "rcode")
        },
    },
    Known {
        reader: Reader::Tshark,
        reason: "RFC 6891 §5: no extended label type is in use, so where a name with one ends is \
                 not known; tshark guesses, reads on, and may take what it finds for an OPT",
        applies: |case| {
            case.difference.field == "rcode"
                && case.ours["parse_status"] == "MALFORMED_QUESTION"
                && case.theirs["malformed"] == true
        },
    },
    Known {
        reader: Reader::Tshark,
        reason: "an octet of a label is shown as it is: a dot within it looks like one between two",
        applies: |case| {
            let is_name = case.is_rdata() || case.difference.field.ends_with("name");
            is_name && case.difference.theirs == case.text().replace("\\.", ".")
        },
    },
    Known {
        reader: Reader::Tshark,
        reason: "an octet zero ends what tshark shows of a name",
        applies: |case| case.difference.theirs == "." && case.text().starts_with("\\000"),
    },
    Known {
        reader: Reader::Tshark,
        reason: "RFC 8490 §5.4: a DSO message without a TLV is a response to one, and whole; tshark \
                 wants one",
        applies: |case| {
            case.name == "DSO nothing"
                && case.ours["opcode"] == "DSO"
                && case.difference.field == "parse_status"
        },
    },
    Known {
        reader: Reader::Tshark,
        reason: "RFC 3597 §5: the RDATA of another class than IN may have another form; tshark reads \
                 that of every class as class IN's, and gives up where it does not fit",
        applies: |case| {
            let gives_up = matches!(&*case.difference.field, "parse_status" | "number of answers");
            gives_up
                && case.theirs["malformed"] == true
                && Case::answers(case.ours).iter().any(|answer| {
                    answer["class"] != "IN"
                        && answer["rdata"].as_str().is_some_and(|rdata| rdata.starts_with("\\#"))
                })
        },
    },
    Known {
        reader: Reader::Tshark,
        reason: "RFC 2874 §3.1.1: the bits that fill up an A6's suffix are ignored; tshark shows them",
        applies: |case| {
            case.is_rdata()
                && case.name.starts_with("type A6: ")
                // Three bits of the suffix's first byte count.
                && case.text() == "61 ::7:ffff:ffff:ffff:ffff a.test"
                && case.difference.theirs == "61 ::ff:ffff:ffff:ffff:ffff a.test"
        },
    },
];

/// Returns the reason of an accepted difference.
pub(crate) fn reason(
    reader: Reader,
    name: &str,
    ours: &Value,
    theirs: &Value,
    difference: &Difference,
) -> Option<&'static str> {
    let case = Case { name, ours, theirs, difference };
    let known = KNOWN.iter().find(|known| known.reader == reader && (known.applies)(&case));
    known.map(|known| known.reason)
}
