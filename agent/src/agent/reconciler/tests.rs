//! Tests retries with a simulated clock.

use tap53_capture::interfaces::{Selector, Switch, SwitchTo};

use super::*;
use crate::config::InterfacesConfig;

/// Interfaces of a machine on which every attempt to attach fails: nothing is loaded.
fn reconciler_that_cannot_attach() -> (InterfaceReconciler, CaptureThread) {
    let file = InterfacesConfig {
        include: vec![Selector::parse("eth0").unwrap()],
        exclude: Vec::new(),
        directions: Directions::Both,
    };
    let capture = CaptureThread::start().unwrap();
    let mut reconciler = InterfaceReconciler::new(Wanted::new(file));
    let interface = Interface {
        name: "eth0".to_owned(),
        ifindex: 7,
        mtu: 1_500,
        up: true,
        kind: Kind::Physical,
        ethernet: true,
        peer: None,
    };
    reconciler.note_all(&capture, vec![interface]);
    (reconciler, capture)
}

const fn no_news() -> News {
    News::NONE
}

#[test]
fn failed_attempts_are_retried_with_backoff() {
    let (mut reconciler, capture) = reconciler_that_cannot_attach();
    let mut now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(reconciler.reconcile(&capture, now, &mut no_news), 0);
        let retry_at = reconciler.next_due().unwrap();
        waits.push((retry_at - now).as_secs());
        // Not before its time.
        reconciler.reconcile(&capture, retry_at - Duration::from_nanos(1), &mut no_news);
        assert_eq!(reconciler.next_due(), Some(retry_at));
        now = retry_at;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(reconciler.attach_errors(|interface| interface.name == "eth0").is_some());
    assert_eq!(reconciler.attach_errors(|interface| interface.name == "eth1"), None);
    // A command requests it.
    reconciler.retry_now(now, |interface| interface.name == "eth0");
    assert_eq!(reconciler.next_due(), Some(now));
}

#[test]
fn interfaces_no_longer_desired_are_not_retried() {
    let (mut reconciler, capture) = reconciler_that_cannot_attach();
    let now = Instant::now();
    reconciler.reconcile(&capture, now, &mut no_news);
    assert!(reconciler.next_due().is_some());
    let selector = Selector::parse("eth0").unwrap();
    let off = Switch { selector, to: SwitchTo::Off { detach: false }, lasts: None };
    reconciler.wanted.switch(&off, now).unwrap();
    reconciler.reconcile(&capture, now, &mut no_news);
    assert_eq!(reconciler.next_due(), None, "the loop would wake for it without end");
}
