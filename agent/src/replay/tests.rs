//! Reads files of both formats, built byte by byte: complete, cut and damaged.

use std::{
    fs,
    io::Write,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use build::{
    Order, SECOND, block, enhanced, interface, option, pcap, pcap_frame, pcap_header, pcapng,
    section,
};

mod build;

/// Fields of a frame that tests compare.
type Seen = (u64, u64, u32, Vec<u8>, u32, Option<Direction>);

fn pcapng_frames() -> Vec<Seen> {
    let (ingress, egress) = (Some(Direction::Ingress), Some(Direction::Egress));
    vec![
        (1, 7 * SECOND + 1, 5, b"first".to_vec(), 1, ingress),
        (2, 18 * SECOND + 1_000, 8, b"second..".to_vec(), 276, None),
        (3, 15 * SECOND, 2, b"ob".to_vec(), 276, egress),
        // Frame 4 is a custom block.
        (5, 3 * SECOND + SECOND / 2, 1, b"f".to_vec(), 101, None),
        (6, 3 * SECOND + SECOND / 2, 6, b"simp".to_vec(), 101, None),
    ]
}

/// Reads a file to its end or to an error.
fn read(bytes: &[u8]) -> (Vec<Seen>, Option<Error>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut seen = Vec::new();
    let read_bytes = Arc::default();
    let mut file = match CaptureFile::open(file.path(), &Arc::default(), &read_bytes) {
        Ok(file) => file,
        Err(error) => return (seen, Some(error)),
    };
    loop {
        match file.step() {
            Ok(Step::Frame(frame)) => seen.push((
                frame.number,
                frame.at_ns,
                frame.original_length,
                frame.bytes.to_vec(),
                frame.link_type,
                frame.direction,
            )),
            Ok(Step::Waiting) => panic!("nobody waits for a regular file"),
            Ok(Step::End) => {
                assert_eq!(read_bytes.load(Ordering::Relaxed), bytes.len() as u64);
                return (seen, None);
            }
            Err(error) => return (seen, Some(error)),
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn message(bytes: &[u8]) -> String {
    read(bytes).1.map_or_else(String::new, |error| {
        // Without the path, which differs each time.
        error.to_string().split_once(": ").unwrap().1.to_owned()
    })
}

#[test]
fn pcap_of_either_order_and_either_clock_is_read() {
    for (order, magic, unit) in [
        (Order::Little, 0xa1b2_c3d4, 1_000),
        (Order::Big, 0xa1b2_c3d4, 1_000),
        (Order::Little, 0xa1b2_3c4d, 1),
        (Order::Big, 0xa1b2_3c4d, 1),
    ] {
        let (seen, error) = read(&pcap(order, magic));
        assert!(error.is_none(), "{error:?}");
        let expected: [Seen; 3] = [
            (1, 1_700_000_000 * SECOND + 123_456 * unit, 3, b"abc".to_vec(), 1, None),
            (2, 1_700_000_001 * SECOND, 900, b"defgh".to_vec(), 1, None),
            (3, 1_699_999_999 * SECOND + 7 * unit, 0, Vec::new(), 1, None),
        ];
        assert_eq!(seen, expected);
    }
}

#[test]
fn the_upper_bits_of_a_pcap_link_type_are_not_part_of_it() {
    let mut file = pcap_header(Order::Little, 0xa1b2_c3d4, 0x2400_0071);
    file.extend(pcap_frame(Order::Little, 0, 0, 1, b"a"));
    assert_eq!(read(&file).0[0].4, 113);
}

#[test]
fn pcapng_of_several_sections_interfaces_and_clocks_is_read() {
    let (seen, error) = read(&pcapng());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(seen, pcapng_frames());
}

#[test]
fn interfaces_have_names_and_numbers_of_their_section() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    fs::write(&path, pcapng()).unwrap();
    let mut file = CaptureFile::open(&path, &Arc::default(), &Arc::default()).unwrap();
    let mut interfaces = Vec::new();
    while let Step::Frame(Frame { interface, .. }) = file.step().unwrap() {
        let name = interface.name.map(str::to_owned);
        interfaces.push((interface.section, interface.number, name));
    }
    let eth0 = Some("eth0".to_owned());
    assert_eq!(interfaces, [(1, 0, eth0), (1, 1, None), (1, 1, None), (2, 0, None), (2, 0, None)]);
}

#[test]
fn compression_is_detected_by_the_first_bytes() {
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"???"].concat();
    for compressed in [
        gzip(&pcapng()),
        zstd(&pcapng()),
        // Members and frames one after the other, as rotating writers and pigz make them.
        [gzip(&pcapng()[..100]), gzip(&pcapng()[100..])].concat(),
        [zstd(&pcapng()[..100]), zstd(&pcapng()[100..])].concat(),
        [&skippable[..], &zstd(&pcapng()), &skippable].concat(),
        xz(&pcapng()),
        [xz(&pcapng()[..100]), xz(&pcapng()[100..])].concat(),
    ] {
        let (seen, error) = read(&compressed);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(seen, pcapng_frames());
    }
}

/// Returns how many frames have ended at an offset, given the offsets of their ends.
fn frames_before(offset: usize, ends: &[usize]) -> usize {
    ends.iter().filter(|end| **end <= offset).count()
}

#[test]
fn a_cut_file_gives_its_complete_frames_and_an_error() {
    let little = pcap(Order::Little, 0xa1b2_c3d4);
    let pcap_ends = [24 + 16 + 3, 24 + 16 + 3 + 16 + 5, little.len()];
    let whole = pcapng();
    // Frames end where their blocks end; the blocks from the last packet backwards.
    let mut ends = Vec::new();
    let mut at = 0;
    while at < whole.len() {
        let big = at < 28 || u32::from_be_bytes(whole[at..at + 4].try_into().unwrap()) < 100;
        let field = |at: usize| {
            let bytes: [u8; 4] = whole[at..at + 4].try_into().unwrap();
            if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let kind = field(at);
        let length = field(at + 4);
        // The second section header reads the same in both orders, its length does not.
        let length = if length > 1_000 { length.swap_bytes() } else { length };
        at += length as usize;
        if matches!(kind, 2 | 3 | 6) {
            ends.push(at);
        }
    }
    assert_eq!(ends.len(), 5);
    for (file, ends) in [(&little, &pcap_ends[..]), (&whole, &ends[..])] {
        let all = read(file).0;
        for cut in 0..file.len() {
            let (seen, error) = read(&file[..cut]);
            assert_eq!(seen, all[..frames_before(cut, ends)], "cut at {cut}");
            // Between two frames or blocks a cut cannot be distinguished from the end.
            if let Some(Error::Damaged { offset, frames, .. }) = &error {
                assert!(*offset <= cut as u64);
                assert_eq!(*frames, seen.last().map_or(0, |seen| seen.0));
            }
            let mid_frame = !ends.contains(&cut) && std::ptr::eq(file, &little);
            assert!(!mid_frame || cut == 24 || error.is_some(), "cut at {cut}");
        }
        for compress in [gzip, zstd, xz] {
            let compressed = compress(file);
            for cut in 0..compressed.len() {
                let (seen, error) = read(&compressed[..cut]);
                assert_eq!(seen, all[..seen.len()], "cut at {cut}");
                assert!(error.is_some(), "cut at {cut}");
            }
        }
    }
}

#[test]
fn a_cut_compressed_file_gives_the_frames_that_were_written_out_before() {
    let file = pcap(Order::Little, 0xa1b2_c3d4);
    let second = 24 + 16 + 3 + 16 + 5;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&file[..second]).unwrap();
    gzip.flush().unwrap();
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.write_all(&file[..second]).unwrap();
    zstd.flush().unwrap();
    for cut in [gzip.get_ref().clone(), zstd.get_ref().clone()] {
        let (seen, error) = read(&cut);
        assert_eq!(seen.len(), 2);
        let error = error.unwrap().to_string();
        assert!(error.contains("the compressed stream is cut"), "{error}");
        assert!(error.contains("the 2 frames before it were replayed"), "{error}");
    }
}

#[test]
fn a_file_with_any_byte_changed_ends_without_a_panic() {
    let compressed = [gzip(&pcapng()), zstd(&pcapng()), xz(&pcapng())];
    for file in [pcap(Order::Big, 0xa1b2_3c4d), pcapng()].into_iter().chain(compressed) {
        for at in 0..file.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, file[at] ^ 0x55] {
                let mut file = file.clone();
                file[at] = byte;
                read(&file);
            }
        }
    }
}

#[test]
fn claimed_lengths_cost_no_memory() {
    let order = Order::Little;
    let mut huge = pcap_header(order, 0xa1b2_c3d4, 1);
    huge.extend(order.words(&[0, 0, u32::MAX, u32::MAX]));
    assert_eq!(
        message(&huge),
        "damaged at byte 24: a frame claims 4294967295 bytes, more than 262144 (no frame before it)"
    );
    let mut huge = section(order);
    huge.extend(order.words(&[6, 0xffff_fff0, 0, 0, 0, 0]));
    assert!(message(&huge).contains("damaged at byte 28: a block of type 6 claims 4294967280"));
    // A block that is skipped may have any length up to the end of the file.
    let mut huge = section(order);
    huge.extend(order.words(&[4, 0xffff_fff0, 0, 0, 0, 0]));
    assert!(message(&huge).contains("the file ends within a block"));
}

#[test]
fn errors_of_a_pcapng_file_are_described() {
    let order = Order::Big;
    let with = |blocks: &[u8]| [&section(order)[..], blocks].concat();
    let described =
        |blocks: &[u8]| [&section(order)[..], &interface(order, 1, 0, &[]), blocks].concat();
    let frame = enhanced(order, 0, 0, b"abc", &[]);
    let mut unequal = frame.clone();
    let end = unequal.len() - 1;
    unequal[end] ^= 4;
    let mut overlong = frame.clone();
    overlong[23] = 99;
    let mut version = section(order);
    version[13] = 9;
    let mut magic = section(order);
    magic[8] = 0;
    for (file, what) in [
        (with(&frame), "frame 1 is of interface 0, of which there is no description"),
        (described(&unequal), "a block begins with length 36 and does not end with it"),
        (described(&overlong), "frame 1 claims 99 bytes, and its block has room for 4"),
        (described(&block(order, 6, &[0; 8])), "frame 1 is too short for its fields"),
        (with(&block(order, 1, &[0; 4])), "an interface description too short for its fields"),
        (with(&order.words(&[7, 8])), "the file ends within a block"),
        (with(&order.words(&[7, 8, 8])), "a block claims 8 bytes"),
        (with(&order.words(&[7, 14, 8])), "a block claims 14 bytes"),
        (version, "pcapng version 9.0"),
        (magic, "a section header without its byte-order magic"),
    ] {
        assert!(message(&file).contains(what), "{what:?} is not in {:?}", message(&file));
    }
}

#[test]
fn other_files_are_described() {
    for (file, what) in [
        (&b""[..], "is empty"),
        (b"ab", "is too short for a capture file: 2 bytes"),
        (b"TIME (UTC)", "is neither pcap nor pcapng: it begins with 54 49 4d 45 (TIME)"),
        (
            b"\x04\x22\x4d\x18\0\0\0",
            "is compressed with lz4, which is not supported; gzip, zstd and xz are",
        ),
        (b"\xa1\xb2\xcd\x34....", "is modified pcap, of old patches to libpcap"),
        (
            b"\xa1\xe2\xcb\x12....",
            "of Nokia's, which is not supported; `editcap -F pcap` converts it",
        ),
        (b"\xa1\xb2\xc3\xd4\0\x03\0\0................", "pcap version 3.0, known is 2.4"),
        (
            &pcap_header(Order::Big, 0xa1b2_c3d4, 105),
            "holds frames of link type 105 (IEEE 802.11), which is not supported; Ethernet, ",
        ),
        (b"\xa1\xb2\xc3\xd4\0\x02", "damaged at byte 0: the file ends within its header"),
    ] {
        assert!(message(file).contains(what), "{what:?} is not in {:?}", message(file));
    }
    let directory = tempfile::tempdir().unwrap();
    for (path, what) in [
        (directory.path().to_owned(), "is a directory"),
        (directory.path().join("missing.pcap"), "missing.pcap: cannot be opened: No such file"),
    ] {
        let error = CaptureFile::open(&path, &Arc::default(), &Arc::default()).err().unwrap();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_pipe_is_read_as_it_fills_and_can_be_stopped() {
    let (end, mut writer) = io::pipe().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", end.as_raw_fd()));
    let file = pcap(Order::Little, 0xa1b2_c3d4);
    let stop = Arc::new(AtomicBool::new(false));
    writer.write_all(&file[..10]).unwrap();
    let mut reader = CaptureFile::open(&path, &stop, &Arc::default()).unwrap();
    assert!(matches!(reader.step(), Ok(Step::Waiting)));
    writer.write_all(&file[10..50]).unwrap();
    assert!(matches!(reader.step(), Ok(Step::Frame(Frame { number: 1, .. }))));
    assert!(matches!(reader.step(), Ok(Step::Waiting)));
    writer.write_all(&file[50..]).unwrap();
    assert!(matches!(reader.step(), Ok(Step::Frame(Frame { number: 2, .. }))));
    assert!(matches!(reader.step(), Ok(Step::Frame(Frame { number: 3, .. }))));
    stop.store(true, Ordering::Release);
    assert!(matches!(reader.step(), Err(Error::Read { .. })));
}

#[test]
fn times_out_of_range_are_clamped() {
    let order = Order::Little;
    let at = |resolution: u8, offset_s: i64, time: u64| {
        let options =
            [option(order, 9, &[resolution]), option(order, 14, &offset_s.to_le_bytes())].concat();
        let file = [section(order), interface(order, 1, 0, &options)].concat();
        read(&[file, enhanced(order, 0, time, b"", &[])].concat()).0[0].1
    };
    assert_eq!(at(0, 0, u64::MAX), u64::MAX);
    assert_eq!(at(0, i64::MAX, u64::MAX), u64::MAX);
    assert_eq!(at(6, -10, 3_000_000), 0);
    assert_eq!(at(6, -1, 3_000_000), 2 * SECOND);
    assert_eq!(at(127, 0, u64::MAX), 0);
    assert_eq!(at(0xff, 0, u64::MAX), 0);
    assert_eq!(at(0x80 | 32, 0, 3 << 31), SECOND + SECOND / 2);
    assert_eq!(at(12, 0, 1_500), 1);
}

/// A frame with a DNS query of this identifier.
fn query(id: u64) -> Vec<u8> {
    let rest = b"\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
    let dns = [&u16::try_from(id).unwrap().to_be_bytes()[..], rest].concat();
    let (ip, udp) = (20 + 8 + dns.len(), 8 + dns.len());
    let mut frame = [&[0; 12][..], &[8, 0, 0x45, 0, 0], &[u8::try_from(ip).unwrap()]].concat();
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 53]);
    frame.extend([0x9c, 0x40, 0, 53, 0, u8::try_from(udp).unwrap(), 0, 0]);
    frame.extend(dns);
    frame
}

/// Replays a file of sections that have a named interface and one frame each, with times that alternate
/// by an hour. Returns the number of records, and the number of steps in addition to the frames.
fn replay_sections(sections: u64) -> (u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let (path, config) = (directory.path().join("a.pcapng"), directory.path().join("c.yaml"));
    let order = Order::Little;
    let mut file = Vec::new();
    for number in 0..sections {
        let name = option(order, 2, format!("veth{number}").as_bytes());
        let at_us = 1_700_000_000_000_000 + (number % 2) * 3_600_000_000 + number;
        file.extend(section(order));
        file.extend(interface(order, 1, 0, &[name, option(order, 0, &[])].concat()));
        file.extend(enhanced(order, 0, at_us, &query(number), &[]));
    }
    fs::write(&path, file).unwrap();
    fs::create_dir(directory.path().join("out")).unwrap();
    let out = directory.path().display();
    fs::write(&config, format!("sinks: [{{type: file, directory: {out}/out}}]\n")).unwrap();
    let overrides = crate::config::Overrides {
        interfaces: vec!["*".to_owned()],
        ..crate::config::Overrides::default()
    };
    let config = crate::config::Config::load(Some(&config), &overrides).unwrap();
    let plan = Plan {
        files: vec![path],
        speed: Speed::default(),
        messages: false,
        selection: Default::default(),
    };
    let ended = Arc::new(tokio::sync::Notify::new());
    let replay = Replay::start(&config, &plan, &ended).unwrap();
    let control = replay.control();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ended.notified());
    let outcome = replay.finish(std::time::Duration::from_secs(60), Ending::Ended).unwrap();
    assert!(outcome.ledger.balanced() && outcome.errors.is_empty(), "{}", outcome.ledger);
    let ledger = serde_json::to_value(&outcome.ledger).unwrap();
    let created = ledger["agent"]["records"]["created"].as_u64().unwrap();
    (created, control.steps.load(Ordering::Relaxed))
}

#[test]
fn sections_whose_times_alternate_cost_no_more_than_their_frames() {
    for sections in [20, 2_000] {
        let (records, steps) = replay_sections(sections);
        assert_eq!(records, sections);
        // A name each; epochs at first for each, and then one for a thousand frames.
        assert!(steps <= sections + 64 + 1 + sections / 1_000, "{steps} for {sections} sections");
    }
}

#[test]
fn endless_blocks_options_and_names_are_read_once() {
    let order = Order::Little;
    let options: Vec<u8> =
        (0..200_000).flat_map(|_| option(order, 2, b"")).chain(option(order, 0, &[])).collect();
    let names: Vec<u8> = (0..2_000).flat_map(|_| option(order, 2, &[b'a'; 300])).collect();
    let descriptions = interface(order, 1, 0, &[]).repeat(60_000);
    let many = [
        section(order),
        interface(order, 1, 0, &options),
        interface(order, 1, 0, &names),
        descriptions,
        enhanced(order, 0, 1, &query(1), &options),
        block(order, 4, &[0; 40]).repeat(10_000),
    ]
    .concat();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&many).unwrap();
    let mut file = CaptureFile::open(file.path(), &Arc::default(), &Arc::default()).unwrap();
    let mut frames = 0;
    while let Step::Frame(_) = file.step().unwrap() {
        frames += 1;
    }
    assert_eq!(frames, 1);
    assert!(file.steps() <= file.most_steps(), "{} of {}", file.steps(), file.most_steps());
}
