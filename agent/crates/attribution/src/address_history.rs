//! Computes the owners of an address over time: claims become a list of disjoint spans.
//!
//! A claim is the statement of one object: from when, until when, and how well each is known. The
//! spans are computed from all claims to an address, so only the times in the claims matter, not
//! the order in which they arrived.
//!
//! ```text
//!  claims of pods       A ├──────────┤known end     B ├───────▶       in order of start
//!  claims of services                  (below pods)
//!  host-network pods    any of them: ambiguous      (below services)
//!  the node itself      what is left                (below all)
//!  ─────────────────────────────────────────────────────────────────
//!  spans                A ├──────────┼ B ──────────────────────▶
//! ```
//!
//! - A known start cuts an earlier claim whose end is unknown: a delete event can be late, but a
//!   running container has its address.
//! - A known end delays a later start: an address is not reassigned while a container runs with it.
//! - An unknown start lies between two times. It equals the end of the earlier claim, if that lies
//!   between them too.

use tap53_records::encode::Owner;

/// UTC, microseconds since 1970.
pub(super) type Micros = i64;

/// The start of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The object reports since when it had the address.
    Known(Micros),
    /// After the first time, and not after the second, when it was seen with the address.
    Between(Micros, Micros),
}

/// The end of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The claim has not ended.
    Open,
    /// The object reports when its last container ended.
    Known(Micros),
    /// The object no longer existed at this time; it ended at an unknown time before.
    By(Micros),
}

/// The claim of one object to an address.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) owner: Owner,
    pub(super) start: Start,
    pub(super) end: End,
}

/// An owner's span of time, including the first microsecond and excluding the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Micros,
    pub(super) until: Micros,
    pub(super) owner: Owner,
}

impl Start {
    /// Returns the time that claims are sorted by.
    pub(super) const fn position(self) -> Micros {
        match self {
            Self::Known(at) | Self::Between(_, at) => at,
        }
    }

    /// Returns the more exact of two starts of the same object.
    pub(super) fn refined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => Self::Known(one.min(other)),
            (known @ Self::Known(_), Self::Between(..)) => known,
            (Self::Between(..), known @ Self::Known(_)) => known,
            (Self::Between(low, high), Self::Between(other_low, other_high)) => {
                Self::Between(low.max(other_low), high.min(other_high))
            }
        }
    }
}

impl End {
    /// Returns the more exact of two ends of the same object; an ended claim stays ended.
    pub(super) fn refined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Open, other) => other,
            (end, Self::Open) => end,
            (Self::Known(one), Self::Known(other)) => Self::Known(one.min(other)),
            (Self::Known(at), Self::By(_)) | (Self::By(_), Self::Known(at)) => Self::Known(at),
            (Self::By(one), Self::By(other)) => Self::By(one.min(other)),
        }
    }

    /// Returns the time of the end, or the maximum if it is open.
    pub(super) const fn at(self) -> Micros {
        match self {
            Self::Open => Micros::MAX,
            Self::Known(at) | Self::By(at) => at,
        }
    }
}

/// Computes the spans of claims of which one holds at a time, by the rules above.
pub(super) fn exclusive<'a>(claims: impl Iterator<Item = &'a Claim>) -> Vec<Span> {
    let mut claims: Vec<&Claim> = claims.collect();
    // Claims of one position are equal in all that decides; the owner makes the order total.
    claims.sort_by(|one, other| {
        let key = |claim: &Claim| (claim.start.position(), claim.end.at());
        key(one)
            .cmp(&key(other))
            .then_with(|| one.owner.identity().pod_uid.cmp(&other.owner.identity().pod_uid))
    });
    let mut spans: Vec<Span> = Vec::with_capacity(claims.len());
    let mut known_end = Micros::MIN;
    let mut previous: Option<&Claim> = None;
    for claim in claims {
        let start = match (claim.start, previous.map(|previous| previous.end)) {
            (Start::Known(at), _) => at,
            (Start::Between(earliest, _), None) => earliest,
            (Start::Between(earliest, latest), Some(end)) => end.at().min(latest).max(earliest),
        };
        let least = spans.last().map_or(Micros::MIN, |span| span.from);
        let from = start.max(known_end).max(least);
        if let Some(before) = spans.last_mut() {
            before.until = before.until.min(from);
        }
        if let End::Known(at) = claim.end {
            known_end = known_end.max(at);
        }
        spans.push(Span { from, until: claim.end.at().max(from), owner: claim.owner.clone() });
        previous = Some(claim);
    }
    spans.retain(|span| span.from < span.until);
    spans
}

/// Computes the spans in which at least one claim holds, with `owner` as their owner.
pub(super) fn any<'a>(claims: impl Iterator<Item = &'a Claim>, owner: &Owner) -> Vec<Span> {
    let mut times: Vec<(Micros, Micros)> = claims
        .map(|claim| {
            let (Start::Known(from) | Start::Between(from, _)) = claim.start;
            (from, claim.end.at())
        })
        .filter(|(from, until)| from < until)
        .collect();
    times.sort_unstable();
    let mut spans: Vec<Span> = Vec::new();
    for (from, until) in times {
        match spans.last_mut() {
            Some(span) if from <= span.until => span.until = span.until.max(until),
            _ => spans.push(Span { from, until, owner: owner.clone() }),
        }
    }
    spans
}

/// Computes the spans in which the claims of one owner can hold. While those of several can, the
/// owner is `several`.
pub(super) fn unique(claims: &[Claim], several: &Owner) -> Vec<Span> {
    let possible = |claim: &Claim| {
        let (Start::Known(from) | Start::Between(from, _)) = claim.start;
        (from, claim.end.at())
    };
    let mut times: Vec<Micros> =
        claims.iter().map(possible).flat_map(|(from, until)| [from, until]).collect();
    times.sort_unstable();
    times.dedup();
    let mut spans: Vec<Span> = Vec::new();
    for (from, until) in times.iter().zip(times.iter().skip(1)) {
        let holds = |claim: &&Claim| possible(claim).0 <= *from && *until <= possible(claim).1;
        let mut owners = claims.iter().filter(holds).map(|claim| &claim.owner);
        let Some(first) = owners.next() else { continue };
        let owner = if owners.all(|other| other == first) { first } else { several };
        match spans.last_mut() {
            Some(span) if span.until == *from && span.owner == *owner => span.until = *until,
            _ => spans.push(Span { from: *from, until: *until, owner: owner.clone() }),
        }
    }
    spans
}

/// Returns `upper`, with `lower` in its gaps.
pub(super) fn overlay(lower: Vec<Span>, upper: Vec<Span>) -> Vec<Span> {
    if lower.is_empty() {
        return upper;
    }
    let mut spans = Vec::with_capacity(lower.len() + upper.len());
    for span in lower {
        let mut from = span.from;
        let over = upper.iter().filter(|over| over.from < span.until && over.until > span.from);
        for over in over {
            if from < over.from {
                spans.push(Span { from, until: over.from, owner: span.owner.clone() });
            }
            from = from.max(over.until);
        }
        if from < span.until {
            spans.push(Span { from, ..span });
        }
    }
    spans.extend(upper);
    spans.sort_by_key(|span| span.from);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use tap53_records::encode::{Attribution, Identity};

    fn owner(uid: &str) -> Owner {
        Owner::new(Identity {
            attribution: Attribution::Pod,
            pod_uid: Some(uid.to_owned()),
            ..Default::default()
        })
    }

    fn claim(uid: &str, start: Start, end: End) -> Claim {
        Claim { owner: owner(uid), start, end }
    }

    fn shown(spans: &[Span]) -> Vec<(Micros, Micros, &str)> {
        spans
            .iter()
            .map(|span| {
                let uid = span.owner.identity().pod_uid.as_deref().unwrap_or("-");
                (span.from, span.until, uid)
            })
            .collect()
    }

    #[test]
    fn a_known_start_cuts_an_end_that_is_not_known() {
        let claims =
            [claim("a", Start::Known(10), End::By(90)), claim("b", Start::Known(50), End::Open)];
        let spans = exclusive(claims.iter());
        assert_eq!(shown(&spans), [(10, 50, "a"), (50, Micros::MAX, "b")]);
        assert_eq!(exclusive(claims.iter().rev()), spans);
    }

    #[test]
    fn a_known_end_pushes_a_start() {
        let claims =
            [claim("a", Start::Known(10), End::Known(60)), claim("b", Start::Known(50), End::Open)];
        assert_eq!(shown(&exclusive(claims.iter())), [(10, 60, "a"), (60, Micros::MAX, "b")]);
    }

    #[test]
    fn a_start_between_is_the_end_before_it_where_that_fits() {
        for (end, from) in [
            (End::By(40), 40),
            (End::Known(40), 40),
            (End::By(20), 30),
            (End::By(70), 60),
            (End::Open, 60),
        ] {
            let claims =
                [claim("a", Start::Known(10), end), claim("b", Start::Between(30, 60), End::Open)];
            let until = end.at().min(from);
            let expected = [(10, until, "a"), (from, Micros::MAX, "b")];
            assert_eq!(shown(&exclusive(claims.iter())), expected, "{end:?}");
        }
        let alone = [claim("b", Start::Between(30, 60), End::Open)];
        assert_eq!(shown(&exclusive(alone.iter())), [(30, Micros::MAX, "b")]);
    }

    #[test]
    fn a_claim_without_duration_has_no_span() {
        let claims = [
            claim("a", Start::Known(10), End::Known(100)),
            claim("b", Start::Known(20), End::Known(30)),
            claim("c", Start::Known(25), End::Open),
        ];
        assert_eq!(shown(&exclusive(claims.iter())), [(10, 100, "a"), (100, Micros::MAX, "c")]);
    }

    #[test]
    fn one_of_several_is_named_only_while_it_is_alone() {
        let several = owner("-several");
        let a = claim("a", Start::Known(10), End::By(50));
        // The same pod at its second address.
        let again = claim("a", Start::Known(10), End::By(50));
        let b = claim("b", Start::Between(40, 45), End::Known(60));
        let c = claim("c", Start::Known(60), End::Open);
        let spans = unique(&[c, a.clone(), again, b], &several);
        let expected = [(10, 40, "a"), (40, 50, "-several"), (50, 60, "b"), (60, Micros::MAX, "c")];
        assert_eq!(shown(&spans), expected);
        assert_eq!(shown(&unique(&[a], &several)), [(10, 50, "a")]);
        assert_eq!(unique(&[], &several), []);
    }

    #[test]
    fn any_of_several_makes_one_span() {
        let host = owner("host");
        let claims = [
            claim("a", Start::Known(10), End::Known(20)),
            claim("b", Start::Between(15, 18), End::By(30)),
            claim("c", Start::Known(40), End::Open),
        ];
        let spans = any(claims.iter(), &host);
        assert_eq!(shown(&spans), [(10, 30, "host"), (40, Micros::MAX, "host")]);
    }

    #[test]
    fn the_lower_history_fills_the_gaps() {
        let span = |from, until, uid: &str| Span { from, until, owner: owner(uid) };
        let node = vec![span(0, Micros::MAX, "node")];
        let pods = vec![span(10, 20, "a"), span(20, 30, "b"), span(40, 50, "c")];
        let spans = overlay(node, pods);
        assert_eq!(
            shown(&spans),
            [
                (0, 10, "node"),
                (10, 20, "a"),
                (20, 30, "b"),
                (30, 40, "node"),
                (40, 50, "c"),
                (50, Micros::MAX, "node"),
            ]
        );
    }
}
