//! RDATA in presentation format.

use std::fmt::{self, Write};

use hickory_proto::{
    rr::{Name, RData},
    serialize::binary::{BinEncodable, BinEncoder},
};

use super::name::{push_character_string, push_presentation};

/// RDATA as a zone file writes it, names without the trailing dot. Types whose form is not known
/// here take the generic form of RFC 3597 §5, `\# <length> <hex>`.
pub(super) fn presentation(rdata: &RData) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_rdata(&mut out, rdata);
    out
}

fn write_rdata(out: &mut String, rdata: &RData) -> fmt::Result {
    match rdata {
        RData::A(address) => write!(out, "{address}")?,
        RData::AAAA(address) => write!(out, "{address}")?,
        RData::CNAME(name) => push_name(out, name),
        RData::NS(name) => push_name(out, name),
        RData::PTR(name) => push_name(out, name),
        RData::MX(mx) => {
            write!(out, "{} ", mx.preference)?;
            push_name(out, &mx.exchange);
        }
        RData::SOA(soa) => {
            push_name(out, &soa.mname);
            out.push(' ');
            push_name(out, &soa.rname);
            // REFRESH, RETRY and EXPIRE are unsigned on the wire (RFC 1035 §3.3.13); hickory
            // holds them signed.
            write!(
                out,
                " {} {} {} {} {}",
                soa.serial,
                soa.refresh.cast_unsigned(),
                soa.retry.cast_unsigned(),
                soa.expire.cast_unsigned(),
                soa.minimum
            )?;
        }
        RData::SRV(srv) => {
            write!(out, "{} {} {} ", srv.priority, srv.weight, srv.port)?;
            push_name(out, &srv.target);
        }
        RData::TXT(txt) => push_strings(out, &txt.txt_data),
        RData::CAA(caa) => {
            write!(out, "{} {} ", caa.flags(), caa.tag)?;
            push_character_string(out, &caa.value);
        }
        // hickory's text of these has no names in it, so its octal escapes do not matter.
        RData::SSHFP(sshfp) => write!(out, "{sshfp}")?,
        RData::TLSA(tlsa) => write!(out, "{tlsa}")?,
        RData::Unknown { rdata, .. } => push_generic(out, &rdata.anything)?,
        RData::NULL(null) => push_generic(out, &null.anything)?,
        other => push_generic(out, &wire(other))?,
    }
    Ok(())
}

fn push_name(out: &mut String, name: &Name) {
    push_presentation(out, name.iter(), true);
}

fn push_strings(out: &mut String, strings: &[Box<[u8]>]) {
    for (position, string) in strings.iter().enumerate() {
        if position > 0 {
            out.push(' ');
        }
        push_character_string(out, string);
    }
}

/// RFC 3597 §5.
fn push_generic(out: &mut String, rdata: &[u8]) -> fmt::Result {
    write!(out, "\\# {}", rdata.len())?;
    for (position, octet) in rdata.iter().enumerate() {
        write!(out, "{}{octet:02x}", if position == 0 { " " } else { "" })?;
    }
    Ok(())
}

/// The RDATA's bytes again, names uncompressed; empty where hickory cannot write what it read.
fn wire(rdata: &RData) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_canonical_form(true);
    if rdata.emit(&mut encoder).is_err() {
        bytes.clear();
    }
    bytes
}
