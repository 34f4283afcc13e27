//! Field values that differ between Avro and JSON.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Serialize, Serializer};
use tap53_dns::ClientSubnet;
use tap53_transactions::{
    pair::RecordId,
    privacy::{ExchangeId, ShownAddress},
};

use super::{
    address::{AddressText, push_ipv4_string},
    binary::{Binary, Buffer},
    fields::{Fields, Value},
    flat::{Hex, Millis, companion},
};

/// Microseconds since 1970 UTC: a number in Avro, RFC 3339 in JSON.
pub(super) struct Time(pub(super) i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_i64(self.0);
        }
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => serializer.collect_str(&format_args!("{timestamp:.6}")),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

impl Value for Time {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.long(self.0);
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Millis::of(self.0))?;
        f.field(companion(name), self.0)
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        let us = value.map(|time| time.0);
        f.field(name, us.map(Millis::of))?;
        f.field(companion(name), us)
    }
}

/// Bytes: unchanged in Avro, hexadecimal in JSON.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        let mut text = String::with_capacity(self.0.len() * 2);
        for octet in self.0 {
            for digit in [octet >> 4, octet & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        serializer.serialize_str(&text)
    }
}

impl Value for Bytes<'_> {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.bytes(self.0);
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Hex(self.0))
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.map(|bytes| Hex(bytes.0)))
    }
}

impl Value for ExchangeId {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block(self.0, self.0.len());
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.as_ref().map(|id| Hex(&id.0)))
    }
}

impl Value for RecordId {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block(self.0, self.0.len());
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Hex(&self.0))
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.as_ref().map(|id| Hex(&id.0)))
    }
}

/// An address as text, with a prefix length if it has one.
pub(super) enum Address {
    /// The most frequent kind, which needs no buffer.
    V4(Ipv4Addr),
    /// The text of any other.
    Text(AddressText),
}

impl From<ShownAddress> for Address {
    #[inline(always)]
    fn from(address: ShownAddress) -> Self {
        match address {
            ShownAddress::Address(IpAddr::V4(address)) => Self::V4(address),
            other => Self::Text(AddressText::shown(&other)),
        }
    }
}

impl From<ClientSubnet> for Address {
    fn from(subnet: ClientSubnet) -> Self {
        Self::Text(AddressText::with_prefix(subnet.address, subnet.source_prefix))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::V4(address) => serializer.collect_str(address),
            Self::Text(text) => serializer.serialize_str(text.as_str()),
        }
    }
}

impl Value for Address {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        match self {
            Self::V4(address) => push_ipv4_string(*address, out),
            Self::Text(text) => out.bytes(text.as_bytes()),
        }
    }
}
