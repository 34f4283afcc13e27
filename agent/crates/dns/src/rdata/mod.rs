//! RDATA in presentation format.
//!
//! ```text
//!  type, class ─▶ form: the fields as its RFC lists them ─▶ field by field ─▶ "10 mail.test"
//!                  │ none: type unknown                        │ RDATA of another form
//!                  └─────────────────────────────────────▶ "\# 4 c0000201" (RFC 3597 §5)
//! ```
//!
//! The text is what dnspython's `to_text()` writes, long Base64 and hexadecimal values in words
//! included, but for these deliberate differences:
//! - Names are in lower case and without the trailing dot.
//! - A value that is empty at the end leaves no space behind.
//! - MB, MD, MF, MG, MINFO and MR are written as RFC 1035 §3.3 has them: their names may be
//!   compressed, and the bytes of such a name mean nothing outside of its message.
//! - Compressed names are read in every type, though only those of RFC 1035 may have them
//!   (RFC 3597 §4); dnspython refuses the others.
//! - Values whose form is right and whose content is not are written: a digest whose length is
//!   not that of its algorithm, a SVCB parameter that is mandatory and missing. dnspython refuses
//!   the record.
//! - Types that dnspython has no mnemonic for (EID, DOA, …) have theirs in type bitmaps.
//! - OPT outside of its place takes the generic form: no RFC gives it another. So do NULL, which is
//!   anything (RFC 1035 §3.3.10), NXNAME and the types that only queries have, UINFO, UID, GID and
//!   UNSPEC, of which no description is left, and CLA and IPN, of which the registry does not say
//!   whether they are text or numbers.
//! - NXT, A6, EID, NIMLOC, ATMA, SINK, RKEY, TALINK, DOA and TA, which dnspython does not know, are
//!   what BIND 9.18 writes, in the words, the letters and the type mnemonics that are used here.

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

/// Appends the RDATA that `rdata` is a cursor on, of the form that [`form`](form()) gives its type.
/// Types whose form is not known take the generic form of RFC 3597 §5, `\# <length> <hex>`; so does
/// RDATA that has not the form of its type, for which the result is false.
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

/// RFC 3597 §5.
fn generic(rdata: &mut Cursor<'_>, text: &mut Text) {
    let octets = rdata.rest();
    text.string("\\# ");
    text.decimal(octets.len() as u64);
    if !octets.is_empty() {
        text.ascii(b' ');
        text.hex_words(octets);
    }
}
