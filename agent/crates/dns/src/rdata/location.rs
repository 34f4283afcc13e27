//! LOC (RFC 1876).

use super::super::{cursor::Cursor, text::Text};

/// The equator and the prime meridian, in thousandths of an arc second (RFC 1876 §2).
const ORIGIN: u32 = 1 << 31;
/// Thousandths of an arc second in a degree.
const DEGREE: u32 = 3_600_000;
/// Offset of the altitude in centimetres: it counts from 100 km below the reference spheroid.
const DEEPEST: i64 = 10_000_000;
/// Size 1 m, horizontal precision 10 km, vertical precision 10 m (RFC 1876 §3), in centimetres.
const DEFAULTS: [u64; 3] = [100, 1_000_000, 1_000];

/// Writes `42 21 54.000 N 71 6 18.000 W -24.00m 30.00m`: latitude, longitude and altitude, then
/// size, horizontal and vertical precision, unless all three are the defaults.
pub(super) fn write(rdata: &mut Cursor<'_>, text: &mut Text) -> Option<()> {
    // RFC 1876 §2 forbids assumptions about the format of other versions.
    if rdata.u8()? != 0 {
        return None;
    }
    let [size, horizontal, vertical] = rdata.octets()?;
    let lengths = [centimetres(size)?, centimetres(horizontal)?, centimetres(vertical)?];
    write_angle(rdata.u32()?, 90, [b'N', b'S'], text)?;
    write_angle(rdata.u32()?, 180, [b'E', b'W'], text)?;
    let altitude = i64::from(rdata.u32()?) - DEEPEST;
    if altitude < 0 {
        text.ascii(b'-');
    }
    write_metres(altitude.unsigned_abs(), text);
    if lengths != DEFAULTS {
        for length in lengths {
            text.ascii(b' ');
            write_metres(length, text);
        }
    }
    Some(())
}

/// Decodes a length of one byte: a digit, and the power of ten that multiplies it.
fn centimetres(length: u8) -> Option<u64> {
    let (digit, power) = (length >> 4, length & 0x0f);
    (digit <= 9 && power <= 9).then(|| u64::from(digit) * 10_u64.pow(power.into()))
}

fn write_angle(angle: u32, degrees: u32, hemispheres: [u8; 2], text: &mut Text) -> Option<()> {
    let distance = angle.abs_diff(ORIGIN);
    if distance > degrees * DEGREE {
        return None;
    }
    text.decimal(distance / DEGREE);
    text.ascii(b' ');
    text.decimal(distance / 60_000 % 60);
    text.ascii(b' ');
    text.decimal(distance / 1_000 % 60);
    text.ascii(b'.');
    text.padded(distance % 1_000, 3);
    text.ascii(b' ');
    text.ascii(hemispheres[usize::from(angle < ORIGIN)]);
    text.ascii(b' ');
    Some(())
}

fn write_metres(centimetres: u64, text: &mut Text) {
    text.decimal(centimetres / 100);
    text.ascii(b'.');
    // Two digits.
    text.padded(u32::try_from(centimetres % 100).unwrap_or_default(), 2);
    text.ascii(b'm');
}
