//! Writes the fields of a row to JSON, and reads them back.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};
use tap53_dns::ParseStatus;
use tap53_transactions::pair::Nat;

use super::Text;

/// A time in microseconds since 1970 UTC; read also from a text as in RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moment(pub i64);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Microseconds(i64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Microseconds(us) => Ok(Self(us)),
            Form::Text(text) => {
                let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
                Ok(Self(time.as_microsecond()))
            }
        }
    }
}

/// The number of items of a list, which is read from the list or from the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Length(pub u64);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or the number of its items")
            }

            fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
                Ok(number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(count)
            }
        }
        deserializer.deserialize_any(Items).map(Self)
    }
}

/// Reads a list that may be null.
pub(super) fn or_empty<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Vec<Text<'static>>, D::Error> {
    let texts: Option<Vec<String>> = Deserialize::deserialize(value)?;
    Ok(texts.unwrap_or_default().into_iter().map(Cow::Owned).collect())
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn is_usual_transport(text: &str) -> bool {
    text == USUAL.transport
}

pub(super) fn is_usual_nat(text: &str) -> bool {
    text == USUAL.nat
}

pub(super) fn is_usual_opcode(text: &str) -> bool {
    text == USUAL.opcode
}

pub(super) fn is_usual_parse_status(text: &str) -> bool {
    text == USUAL.parse_status
}

/// Values that a row's own JSON leaves out.
pub(super) struct Usual {
    pub(super) transport: &'static str,
    pub(super) nat: &'static str,
    pub(super) opcode: &'static str,
    pub(super) parse_status: &'static str,
}

pub(super) const USUAL: Usual = Usual {
    transport: "UDP",
    nat: Nat::None.symbol(),
    opcode: "QUERY",
    parse_status: ParseStatus::Ok.name(),
};
