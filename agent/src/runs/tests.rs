use std::{fs, path::Path};

use tap53_capture::interfaces::PacketCounts;
use tap53_ledger::Since;

use super::*;

const BOTH: [(u32, Directions); 1] = [(7, Directions::Both)];

fn counts(packets: [u64; 2]) -> Vec<PacketCounts> {
    vec![
        PacketCounts { name: "other".to_owned(), ifindex: 6, is_pair: false, packets: [9_999; 2] },
        PacketCounts { name: "eth0".to_owned(), ifindex: 7, is_pair: true, packets },
    ]
}

/// A run that stopped at 100 packets received and 50 sent, and at 104 and 53 was detached.
fn stopped() -> Saved {
    let now = Moment::now();
    let mut saved = Saved::new(now);
    saved.stage = Stage::Ended;
    saved.positions = positions(&counts([100, 50]), &BOTH);
    saved.positions[0].packets_after = Some([104, 53]);
    saved
}

fn gap_after(previous: &Saved, captured: &[(u32, Directions)]) -> Gap {
    let mut now = previous.positions_at;
    now.boot_us += 1_500_000;
    now.utc_us -= 3_600_000_000;
    gap::between(previous, &counts([110, 60]), &counts([113, 61]), captured, now)
}

fn of(at_least: u64, at_most: u64) -> Option<Bounds> {
    Some(Bounds { at_least, at_most })
}

#[test]
fn a_gap_without_packets_is_no_reason_for_a_warning() {
    let gap = |at_most| {
        let packets = Bounds { at_least: 0, at_most };
        Gap { seconds: 0.2, since: Since::Stop, packets, interfaces: Vec::new() }
    };
    let previous = |ended, packets_in_rings| PreviousRun {
        ended,
        last_written_at: String::new(),
        gap: None,
        standing: Standing { packets_in_rings, ..Standing::default() },
    };
    for (ended, in_rings, packets, expected) in [
        (End::InGoodOrder, 0, 0, true),
        (End::InGoodOrder, 0, 1, false),
        (End::StillRunning, 0, 0, true),
        (End::Killed, 0, 0, true),
        (End::Killed, 1, 0, false),
        (End::Killed, 0, 1, false),
    ] {
        let found = missed_nothing(&previous(ended, in_rings), &gap(packets));
        assert_eq!(found, expected, "{ended:?} {in_rings} {packets}");
    }
}

#[test]
fn a_gap_is_counted_by_the_device_and_timed_without_the_wall_clock() {
    let gap = gap_after(&stopped(), &BOTH);
    assert_eq!((gap.seconds, gap.since), (1.5, Since::Stop));
    assert_eq!(gap.interfaces.len(), 1);
    assert_eq!(gap.interfaces[0].ingress, of(6, 13));
    assert_eq!(gap.interfaces[0].egress, of(7, 11));
    assert_eq!(gap.packets, Bounds { at_least: 13, at_most: 24 });
}

#[test]
fn a_gap_has_only_directions_that_both_runs_captured() {
    let mut previous = stopped();
    let gap = gap_after(&previous, &[(7, Directions::Ingress)]);
    assert_eq!((gap.interfaces[0].ingress, gap.interfaces[0].egress), (of(6, 13), None));
    previous.positions[0].captured = [false, true];
    let gap = gap_after(&previous, &[(7, Directions::Ingress)]);
    assert_eq!((gap.interfaces[0].ingress, gap.interfaces[0].egress), (None, None));
    assert_eq!(gap_after(&previous, &[(6, Directions::Both)]).interfaces, []);
}

#[test]
fn after_a_kill_the_gap_starts_at_the_last_save() {
    let mut previous = stopped();
    previous.stage = Stage::Running;
    previous.positions[0].packets_after = None;
    let gap = gap_after(&previous, &BOTH);
    assert_eq!(gap.since, Since::LastWritten);
    assert_eq!(gap.packets, Bounds { at_least: 0, at_most: 24 });
}

#[test]
fn another_device_or_boot_counts_from_zero() {
    let mut previous = stopped();
    previous.positions[0].packets = [1_000, 1_000];
    assert_eq!(gap_after(&previous, &BOTH).interfaces[0].ingress, of(110, 113));
    let mut previous = stopped();
    previous.boot_id = "another".to_owned();
    // Numbers are given out anew.
    previous.positions[0].ifindex = 3;
    let mut now = previous.positions_at;
    now.utc_us += 60_000_000;
    now.boot_us = 5;
    let gap = gap::between(&previous, &counts([110, 60]), &counts([113, 61]), &BOTH, now);
    assert_eq!((gap.seconds, gap.since), (60.0, Since::Boot));
    assert_eq!(gap.interfaces[0].egress, of(60, 61));
}

fn open(directory: &Path) -> Runs {
    Runs::open(&StateConfig { directory: Some(directory.to_owned()) })
}

fn standing(reason: &str, count: u64) -> Standing {
    let mut standing = Standing { messages_pending: 3, ..Standing::default() };
    standing.lost.stages.entry("messages".to_owned()).or_default().insert(reason.to_owned(), count);
    standing
}

fn previous(runs: &Runs) -> &PreviousRun {
    runs.previous().unwrap().previous_run.as_ref().unwrap()
}

#[test]
fn a_run_reports_the_end_of_the_previous_one_and_the_losses_of_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut first = open(&path);
    first.attached(&first.before_attaching(), &[]);
    assert_eq!(first.previous().unwrap().previous_run, None);
    first.save(&[], &|| standing("copy", 2));
    // The same happens after a kill: the lock ends with the process.
    drop(first);
    let mut second = open(&path);
    second.attached(&second.before_attaching(), &[]);
    assert_eq!(previous(&second).ended, End::Killed);
    assert_eq!(previous(&second).standing, standing("copy", 2));
    second.stopping(&[], &|| standing("copy", 5));
    second.detached();
    second.ended(standing("copy", 7));
    drop(second);
    let mut third = open(&path);
    third.attached(&third.before_attaching(), &[]);
    assert_eq!(previous(&third).ended, End::InGoodOrder);
    let earlier = &third.previous().unwrap().earlier_runs;
    assert_eq!((earlier.runs, earlier.killed), (2, 1));
    assert_eq!(earlier.lost.stages["messages"]["copy"], 9);
}

#[test]
fn an_overlapping_run_saves_only_after_the_other_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = open(directory.path());
    old.attached(&old.before_attaching(), &[]);
    old.save(&[], &|| standing("copy", 1));
    let mut new = open(directory.path());
    new.attached(&new.before_attaching(), &[]);
    assert_eq!(previous(&new).ended, End::StillRunning);
    assert_eq!(previous(&new).gap, None);
    let file = directory.path().join("run.json");
    let text = fs::read(&file).unwrap();
    new.save(&[], &Standing::default);
    assert_eq!(fs::read(&file).unwrap(), text);
    old.stopping(&[], &|| standing("copy", 1));
    old.detached();
    old.ended(standing("copy", 4));
    drop(old);
    new.save(&[], &Standing::default);
    assert_eq!((previous(&new).ended, &previous(&new).gap), (End::InGoodOrder, &None));
    assert_eq!(new.previous().unwrap().earlier_runs.lost.stages["messages"]["copy"], 4);
    assert_ne!(fs::read(&file).unwrap(), text);
}

#[test]
fn a_run_that_starts_while_the_other_delivers_has_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = open(directory.path());
    old.attached(&old.before_attaching(), &[]);
    old.stopping(&[], &Standing::default);
    old.detached();
    let mut new = open(directory.path());
    new.attached(&new.before_attaching(), &[]);
    assert_eq!(previous(&new).ended, End::StillRunning);
    assert_eq!(previous(&new).gap.as_ref().unwrap().since, Since::Stop);
}

#[test]
fn an_unreadable_state_does_not_prevent_capture() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.json");
    for text in ["", "{", "{\"version\": 2}"] {
        fs::write(&file, text).unwrap();
        let mut runs = open(directory.path());
        runs.attached(&runs.before_attaching(), &[]);
        assert_eq!(runs.previous().unwrap().previous_run, None, "{text}");
        assert!(StateDirectory::open(directory.path()).unwrap().0.read().is_some());
    }
    let blocked = directory.path().join("file");
    fs::write(&blocked, "").unwrap();
    assert_eq!(open(&blocked).previous(), None);
    assert_eq!(Runs::open(&StateConfig::default()).previous(), None);
}

#[test]
fn a_directory_writable_by_others_is_refused_and_links_are_not_followed() {
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let set_mode = |mode| {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o777);
    assert!(StateDirectory::open(directory.path()).is_err());
    set_mode(0o700);
    let (state, _lock) = StateDirectory::open(directory.path()).unwrap();
    // A pipe would be waited for.
    mkfifo(&directory.path().join("run.json"), Mode::S_IRWXU).unwrap();
    assert!(state.read().is_none());
    let precious = directory.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, directory.path().join("run.json.new")).unwrap();
    assert!(state.write(&Saved::new(Moment::now())).is_err());
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}
