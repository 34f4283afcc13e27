//! Target `replay_file`: capture files that are wrong.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use tap53::replay::{CaptureFile, Step};

use crate::path::Path;

/// Takes `bytes` for a capture file, plain or compressed: no panic, and frames in order up to
/// where it is wrong, each on its whole way.
///
/// # Panics
/// When a frame contradicts its header, or the ledger does not balance.
pub fn replay_file(bytes: &[u8]) {
    let path = written(bytes);
    let mut file =
        CaptureFile::open(&path, &Arc::new(AtomicBool::new(false)), &Arc::new(AtomicU64::new(0)))
            .expect("the file is there");
    // It stays open, and no file is left, even by an input that ends the process.
    fs::remove_file(&path).expect("our own file");
    let (mut way, mut number) = (Path::new(), 0);
    loop {
        match file.step() {
            Ok(Step::Frame(frame)) => {
                number += 1;
                assert_eq!(frame.number, number);
                way.take(&frame);
                assert!(file.steps() <= file.most_steps(), "{} steps", file.steps());
            }
            Ok(Step::Waiting) => unreachable!("a file's bytes are there"),
            Ok(Step::End) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    way.finish();
}

/// A file with `bytes` in memory: one of this process, written over by the next input.
fn written(bytes: &[u8]) -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let path = PathBuf::from(format!("/dev/shm/tap53-{}-fuzz-{thread}", process::id()));
    let mut file = fs::File::create(&path).expect("a file in memory");
    file.write_all(bytes).expect("room in memory");
    path
}
