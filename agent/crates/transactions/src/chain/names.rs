//! Hashes of a question and of the names above it. The tracker compares hashes alone, so that an
//! event is small; their seed is random.

use std::hash::BuildHasher;

use arrayvec::ArrayVec;
use hashbrown::DefaultHashBuilder;
use tap53_dns::{Message, Question, parent};

/// Maximum number of ancestors of a name. Names of IPv6 reverse zones have 34 labels.
const MAX_ANCESTORS: usize = 36;

/// Number of labels from which on a name is not one of a search list.
const MAX_LABELS: usize = 20;

/// Maximum number of CNAME targets of an answer.
pub(super) const MAX_TARGETS: usize = 16;

/// Maximum number of answers that are searched for CNAME records.
const MAX_ANSWERS: usize = 64;

/// The type CNAME (RFC 1035 §3.2.2).
const CNAME: u16 = 5;

/// A question by hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Hash of the name, in lower case.
    pub name: u64,
    /// Type and class.
    pub kind: (u16, u16),
    /// Hashes of the names above it, without the root.
    pub ancestors: Box<[u64]>,
    /// Hashes of its labels, if it is short enough for a name of a search list.
    pub labels: Box<[u64]>,
    /// Position of the last label "svc" among them.
    pub service_label: Option<usize>,
}

/// How an upstream exchange is related to a client's exchange, from the closest relation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Related {
    /// It has the client's question, also after CNAME records.
    Question,
    /// It has the client's name and another type.
    Name,
    /// Its name is above the client's: a minimised query, or one for a delegation or a key.
    Ancestor,
    /// Its name has nothing in common with the client's, and the client is the only one that waits.
    Alone,
}

impl Names {
    /// Reads a question.
    #[must_use]
    pub fn of(question: Question<'_>, hasher: &DefaultHashBuilder) -> Self {
        let above = std::iter::successors(parent(question.name), |name| parent(name));
        let ancestors: ArrayVec<u64, MAX_ANCESTORS> = above
            .filter(|name| *name != ".")
            .map(|name| hash_name(hasher, name))
            .take(MAX_ANCESTORS)
            .collect();
        let names = std::iter::successors(Some(question.name), |name| parent(name));
        let labels: ArrayVec<&str, MAX_LABELS> = names.take(MAX_LABELS).map(first_label).collect();
        let is_whole = labels.len() < MAX_LABELS;
        let hashes = labels.iter().filter(|_| is_whole).map(|label| hash_name(hasher, label));
        Self {
            labels: hashes.collect(),
            service_label: labels.iter().rposition(|label| *label == "svc").filter(|_| is_whole),
            name: hash_name(hasher, question.name),
            kind: (question.qtype, question.qclass),
            ancestors: ancestors.as_slice().into(),
        }
    }
}

/// Returns the first label of a name.
fn first_label(name: &str) -> &str {
    let rest = parent(name).map_or(0, |parent| parent.len() + 1);
    name.get(..name.len() - rest).unwrap_or(name)
}

/// Returns the hash of a name in lower case.
fn hash_name(hasher: &DefaultHashBuilder, name: &str) -> u64 {
    hasher.hash_one(name)
}

/// Returns the hashes of the names that the CNAME records of a response point to.
pub(super) fn targets(response: &Message, hasher: &DefaultHashBuilder) -> Box<[u64]> {
    let answers = response.answers().take(MAX_ANSWERS).filter(|answer| answer.rtype == CNAME);
    let targets: ArrayVec<u64, MAX_TARGETS> = answers
        .map(|answer| hash_name(hasher, &answer.rdata.to_ascii_lowercase()))
        .take(MAX_TARGETS)
        .collect();
    targets.as_slice().into()
}

/// Returns the hash of a question from that of its name, with type and class.
pub(super) const fn question(name: u64, kind: (u16, u16)) -> u64 {
    let kind = (kind.0 as u64) << 16 | kind.1 as u64;
    name ^ (kind + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
