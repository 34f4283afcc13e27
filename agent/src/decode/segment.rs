//! DNS messages in one TCP segment.
//!
//! Over TCP each message follows a two-byte length (RFC 1035 §4.2.2). Until streams are
//! reassembled, a segment counts when it holds whole messages and nothing else: that is how stub
//! resolvers and servers send the usual query and answer. Anything else is a counted reason.

use super::{message::Message, packet::PacketLoss};

/// The messages of a segment's payload, in order.
///
/// # Errors
/// [`PacketLoss::TcpWithoutPayload`] for an empty payload (handshake, acknowledgement),
/// [`PacketLoss::TcpPartialMessage`] when the payload does not end where a message ends, and
/// [`PacketLoss::ShorterThanHeader`] when a message in it is too short to be DNS.
pub fn messages(payload: &[u8]) -> Result<impl Iterator<Item = &[u8]>, PacketLoss> {
    if payload.is_empty() {
        return Err(PacketLoss::TcpWithoutPayload);
    }
    let mut rest = payload;
    while !rest.is_empty() {
        let message;
        (message, rest) = split_first(rest).ok_or(PacketLoss::TcpPartialMessage)?;
        if message.len() < Message::HEADER_SIZE {
            return Err(PacketLoss::ShorterThanHeader);
        }
    }
    let mut rest = payload;
    Ok(std::iter::from_fn(move || {
        let (message, after) = split_first(rest)?;
        rest = after;
        Some(message)
    }))
}

fn split_first(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stream.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut stream = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        stream.extend(message);
        stream
    }

    #[test]
    fn pipelined_messages_come_out_in_order() {
        let payload = [framed(&[1; 12]), framed(&[2; 300])].concat();
        let found: Vec<&[u8]> = messages(&payload).unwrap().collect();
        assert_eq!(found, [&[1; 12][..], &[2; 300][..]]);
    }

    #[test]
    fn what_is_not_whole_has_a_reason() {
        let reason = |payload: &[u8]| messages(payload).err();
        let whole = framed(&[1; 12]);
        assert_eq!(reason(&[]), Some(PacketLoss::TcpWithoutPayload));
        assert_eq!(reason(&[0]), Some(PacketLoss::TcpPartialMessage));
        assert_eq!(reason(&whole[..13]), Some(PacketLoss::TcpPartialMessage));
        assert_eq!(reason(&[&whole[..], &[7]].concat()), Some(PacketLoss::TcpPartialMessage));
        assert_eq!(reason(&framed(&[1; 11])), Some(PacketLoss::ShorterThanHeader));
    }
}
