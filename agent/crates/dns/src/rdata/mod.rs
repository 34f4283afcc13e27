//! Converts RDATA to presentation format.
//!
//! ```text
//!  type, class ─▶ form: the fields in the RFC ─▶ field by field ─────────▶ "10 mail.test"
//!                  │ none: type unknown                        │ malformed RDATA
//!                  └─────────────────────────────────────▶ "\# 4 c0000201" (RFC 3597 §5)
//! ```
//!
//! The text equals that of dnspython's `to_text()`, including the words of long Base64 and
//! hexadecimal values, except for these deliberate differences:
//! - Names are in lower case and without the trailing dot.
//! - An empty value at the end leaves no trailing space.
//! - MB, MD, MF, MG, MINFO and MR are written in the format of RFC 1035 §3.3: their names may be
//!   compressed, and the bytes of such a name have no meaning outside of its message.
//! - Compressed names are accepted in every type, although only those of RFC 1035 may have them
//!   (RFC 3597 §4); dnspython refuses the others.
//! - Well-formed values with invalid content are written: a digest whose length is not that of its
//!   algorithm, a mandatory SVCB parameter that is missing. dnspython refuses the record.
//! - Types for which dnspython has no mnemonic (EID, DOA, …) have theirs in type bitmaps.
//! - OPT in other sections takes the generic form, since no RFC defines another. So do NULL, which
//!   is opaque (RFC 1035 §3.3.10), NXNAME and the types that only queries have, UINFO, UID, GID and
//!   UNSPEC, for which no description exists any more, and CLA and IPN, for which the registry does
//!   not state whether they are text or numbers.
//! - NXT, A6, EID, NIMLOC, ATMA, SINK, RKEY, TALINK, DOA and TA, which dnspython does not know, are
//!   written as BIND 9.18 does, with the words, letter case and type mnemonics used here.

mod address;
mod bitmap;
mod field;
mod form;
mod historic;
mod key;
mod location;
mod svcb;
#[cfg(test)]
mod tests;

use super::{cursor::Cursor, text::Text};
pub(super) use form::{Form, of as form};

/// Appends the RDATA at the cursor `rdata`, in the form that [`form`](form()) returns for its type.
/// RDATA of types without a known form takes the generic form of RFC 3597 §5, `\# <length> <hex>`;
/// so does malformed RDATA, for which the result is false.
///
/// The text is incomplete once it is full.
pub(super) fn write(mut rdata: Cursor<'_>, form: Option<Form>, text: &mut Text) -> bool {
    let Some(form) = form else {
        generic(&mut rdata, text);
        return true;
    };
    let (start, mut whole) = (text.len(), rdata);
    if form.write(&mut rdata, text).is_some() && rdata.is_empty() || text.is_full() {
        return true;
    }
    text.truncate(start);
    generic(&mut whole, text);
    false
}

/// Appends the generic form of RFC 3597 §5.
fn generic(rdata: &mut Cursor<'_>, text: &mut Text) {
    let octets = rdata.rest();
    text.string("\\# ");
    text.decimal(octets.len() as u64);
    if !octets.is_empty() {
        text.ascii(b' ');
        text.hex_words(octets);
    }
}
