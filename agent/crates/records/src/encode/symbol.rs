//! Symbols of Avro enums.

use serde::{Serialize, Serializer};
use tap53_dns::{ParseStatus, Transport};
use tap53_ebpf::settings::Direction;
use tap53_transactions::pair::{Nat, Outcome, Relation};

use super::{
    Attribution, NodeRole, OwnerSource,
    binary::{Binary, Buffer, SOME},
    fields::{Fields, Value},
};

/// A symbol of an Avro enum: its position in the schema, and its text.
pub(super) struct Symbol {
    enumeration: &'static str,
    position: u8,
    text: &'static str,
}

impl Symbol {
    const fn new(enumeration: &'static str, position: u8, text: &'static str) -> Self {
        Self { enumeration, position, text }
    }

    pub(super) const fn of_direction(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::new("Direction", direction as u8, "INGRESS"),
            Direction::Egress => Self::new("Direction", direction as u8, "EGRESS"),
        }
    }

    pub(super) const fn of_transport(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::new("Transport", transport as u8, "UDP"),
            Transport::Tcp => Self::new("Transport", transport as u8, "TCP"),
        }
    }

    pub(super) const fn of_outcome(outcome: Outcome) -> Self {
        Self::new("Outcome", outcome as u8, outcome.symbol())
    }

    pub(super) const fn of_relation(relation: Relation) -> Self {
        Self::new("Relation", relation as u8, relation.symbol())
    }

    pub(super) const fn of_nat(nat: Nat) -> Self {
        Self::new("Nat", nat as u8, nat.symbol())
    }

    pub(super) const fn of_node_role(role: NodeRole) -> Self {
        Self::new("Observation", role as u8, role.symbol())
    }

    pub(super) const fn of_parse_status(status: ParseStatus) -> Self {
        Self::new("ParseStatus", status as u8, status.name())
    }

    pub(super) const fn of_attribution(attribution: Attribution) -> Self {
        Self::new("Attribution", attribution as u8, attribution.symbol())
    }

    pub(super) const fn of_owner_source(source: OwnerSource) -> Self {
        Self { enumeration: "OwnerSource", position: source as u8, text: source.symbol() }
    }
}

impl Serialize for Symbol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant(self.enumeration, self.position.into(), self.text)
    }
}

impl Value for Symbol {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        // An Avro int; no enum here has more than 63 symbols.
        out.block([self.position << 1], 1);
    }

    #[inline(always)]
    fn push_some<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block([SOME, self.position << 1], 2);
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, self.text)
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.map(|symbol| symbol.text))
    }
}
