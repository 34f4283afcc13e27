//! Retries, with a clock of their own.

use glob::Pattern;
use tap53_capture::interfaces::{Switch, SwitchTo};

use super::*;
use crate::config::InterfacesConfig;

/// Interfaces of a machine on which every attempt to attach fails: nothing is loaded.
fn refusing() -> (Switching, CaptureThread) {
    let file = InterfacesConfig {
        include: vec![Pattern::new("eth0").unwrap()],
        exclude: Vec::new(),
        directions: Directions::Both,
    };
    let capture = CaptureThread::start().unwrap();
    let mut switching = Switching::new(Wanted::new(file));
    let interface = Interface {
        name: "eth0".to_owned(),
        ifindex: 7,
        mtu: 1_500,
        up: true,
        kind: Kind::Physical,
        ethernet: true,
    };
    switching.note_all(&capture, vec![interface]);
    (switching, capture)
}

#[test]
fn what_is_refused_is_tried_again_less_and_less_often() {
    let (mut switching, capture) = refusing();
    let mut now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(switching.reconcile(&capture, now), 0);
        let again_at = switching.next_retry().unwrap();
        waits.push((again_at - now).as_secs());
        // Not before its time.
        switching.reconcile(&capture, again_at - Duration::from_nanos(1));
        assert_eq!(switching.next_retry(), Some(again_at));
        now = again_at;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(switching.refusals(|name| name == "eth0").is_some());
    assert_eq!(switching.refusals(|name| name == "eth1"), None);
    // Somebody asks for it.
    switching.try_again(now, |name| name == "eth0");
    assert_eq!(switching.next_retry(), Some(now));
}

#[test]
fn what_is_not_wanted_any_more_is_not_tried_again() {
    let (mut switching, capture) = refusing();
    let now = Instant::now();
    switching.reconcile(&capture, now);
    assert!(switching.next_retry().is_some());
    let pattern = Pattern::new("eth0").unwrap();
    let off = Switch { pattern, to: SwitchTo::Off { detach: false }, lasts: None };
    switching.wanted.switch(&off, now).unwrap();
    switching.reconcile(&capture, now);
    assert_eq!(switching.next_retry(), None, "the loop would wake for it without end");
}
