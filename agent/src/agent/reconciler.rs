//! Reconciles the interfaces' observed state with the desired one.
//!
//! Switching off for a while clears a flag in the programs' settings. The programs are detached where
//! the file does not include the interface, or a command requests it. Switching on attaches only what
//! is missing, so it is idempotent. What the kernel refuses is retried with backoff.

mod changes;
mod status;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tap53_capture::{
    capture::{self, Attachment, CaptureThread, State},
    interfaces::{Interface, Kind, Verdict, Wanted},
};
use tap53_ebpf::settings::Direction;

use super::links::News;
use crate::{config::Directions, telemetry::CHANGE};

pub(super) use status::is_of_interest;

/// Backoff after the first failure to attach, and its maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Reconciles the interfaces of this network namespace with what is desired of them.
pub(super) struct InterfaceReconciler {
    pub(super) wanted: Wanted,
    interfaces: BTreeMap<u32, Tracked>,
    /// Interfaces that are gone, and whose programs are still to be detached. Pods that come are more
    /// urgent than those that go.
    gone: Vec<u32>,
    /// Time of the last pass if changes were read meanwhile, so that another one is due.
    unfinished: Option<Instant>,
}

/// An interface that is present.
struct Tracked {
    interface: Interface,
    hooked: Option<Hooked>,
    failure: Option<AttachFailure>,
    stage: Stage,
}

/// How far capture has come on an interface that has appeared while the agent runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was tried.
    New,
    /// Arriving packets are captured, and the other direction is about to follow.
    Half,
    /// Like any other interface.
    Usual,
}

/// Programs that are attached to an interface.
#[derive(Clone, PartialEq)]
struct Hooked {
    attachment: Attachment,
    /// Directions that the settings enable; `None` for off.
    directions: Option<Directions>,
}

/// The last failure to attach.
struct AttachFailure {
    error: String,
    /// Time of the next attempt; `None` if it would fail for ever.
    retry_at: Option<Instant>,
    backoff: Duration,
}

/// A step that brings an interface to its desired state.
enum Step {
    Nothing,
    Attach(Directions),
    SwitchOff,
    Detach,
}

impl InterfaceReconciler {
    pub(super) const fn new(wanted: Wanted) -> Self {
        Self { wanted, interfaces: BTreeMap::new(), gone: Vec::new(), unfinished: None }
    }

    /// Returns the interfaces that are present.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.values().map(|tracked| &tracked.interface)
    }

    /// Returns the names of the interfaces that are present.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.interfaces().map(|interface| interface.name.as_str())
    }

    /// Returns how many interfaces are attached to, and how many are desired.
    pub(super) fn counts(&self) -> (usize, usize) {
        let of = |is: fn(&Self, &Tracked) -> bool| {
            self.interfaces.values().filter(|tracked| is(self, tracked)).count()
        };
        (
            of(|_, tracked| tracked.hooked.is_some()),
            of(|this, tracked| this.verdict(tracked).directions.is_some()),
        )
    }

    /// Returns the interfaces that are captured from, by number, with their directions.
    pub(super) fn captured(&self) -> Vec<(u32, Directions)> {
        let captured = self.interfaces.iter().filter_map(|(ifindex, tracked)| {
            Some((*ifindex, tracked.hooked.as_ref()?.directions?))
        });
        captured.collect()
    }

    /// Brings each interface to its desired state. Returns how many interfaces were changed.
    ///
    /// It calls `read` for changes first, and again after each interface that it attaches to: that
    /// takes some 30 ms, in which pods may appear.
    pub(super) fn reconcile(
        &mut self,
        capture: &CaptureThread,
        now: Instant,
        read: &mut dyn FnMut() -> News,
    ) -> usize {
        self.attach_new(capture, now, read);
        // All that was read until now is part of this pass.
        self.unfinished = None;
        self.detach_gone(capture);
        let mut changed = 0;
        let mut to_detach = Vec::new();
        let all: Vec<u32> = self.interfaces.keys().copied().collect();
        for ifindex in all {
            let Some(tracked) = self.interfaces.get_mut(&ifindex) else { continue };
            let verdict = verdict(&self.wanted, &tracked.interface);
            tracked.clear_stale_failure(&verdict);
            let mut takes_long = false;
            let done = match tracked.step(&verdict, now) {
                Step::Nothing => false,
                Step::Attach(directions) => {
                    takes_long = true;
                    tracked.attach(capture, directions, &verdict, now)
                }
                Step::SwitchOff => tracked.switch_off(capture, &verdict),
                Step::Detach => {
                    to_detach.push(ifindex);
                    tracked.hooked = None;
                    tracked.log_detached(&verdict);
                    true
                }
            };
            changed += usize::from(done);
            if takes_long {
                // Before another interface may get the number of one that is gone.
                detach(capture, &std::mem::take(&mut to_detach));
                self.attach_new(capture, now, read);
            }
        }
        detach(capture, &to_detach);
        self.detach_gone(capture);
        changed
    }

    /// Starts to capture arriving packets on new interfaces, so that the first query of a new pod is
    /// seen. Each attachment holds a lock of the kernel for some 15 ms (see `Capture::apply`): the
    /// other direction follows when all new interfaces have this one. A query whose response was
    /// missed in between has `capture_gap`.
    fn attach_new(
        &mut self,
        capture: &CaptureThread,
        now: Instant,
        read: &mut dyn FnMut() -> News,
    ) {
        loop {
            let news = read();
            if !news.is_none() {
                self.note(capture, news);
                self.unfinished = Some(now);
            }
            let new = self.interfaces.values_mut().filter(|tracked| tracked.stage == Stage::New);
            // One that is down gets no packets yet; else in the order in which they were created.
            let Some(tracked) = new.min_by_key(|t| (!t.interface.up, t.interface.ifindex)) else {
                return;
            };
            let verdict = verdict(&self.wanted, &tracked.interface);
            tracked.attach_half(capture, &verdict);
        }
    }

    /// Makes failed attempts at the interfaces that `is_meant` due now.
    pub(super) fn retry_now(&mut self, now: Instant, is_meant: impl Fn(&Interface) -> bool) {
        for tracked in self.interfaces.values_mut().filter(|t| is_meant(&t.interface)) {
            tracked.retry_now(now);
        }
    }

    /// Returns the time at which [`Self::reconcile`] is due again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let failures = self.interfaces.values().filter_map(|tracked| tracked.failure.as_ref());
        failures.filter_map(|failure| failure.retry_at).chain(self.unfinished).min()
    }

    /// Returns the errors of the interfaces that `is_meant`; `None` if at least one of them is
    /// captured from, or none was tried.
    pub(super) fn attach_errors(&self, is_meant: impl Fn(&Interface) -> bool) -> Option<String> {
        let mut errors = Vec::new();
        for tracked in self.interfaces.values() {
            if !is_meant(&tracked.interface) || self.verdict(tracked).directions.is_none() {
                continue;
            }
            match &tracked.failure {
                None => return None,
                Some(failure) => errors.push(failure.error.as_str()),
            }
        }
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    fn verdict(&self, tracked: &Tracked) -> Verdict {
        verdict(&self.wanted, &tracked.interface)
    }
}

impl Tracked {
    fn retry_now(&mut self, now: Instant) {
        if let Some(AttachFailure { retry_at: Some(at), .. }) = &mut self.failure {
            *at = now;
        }
    }

    /// Drops the failure of an interface that is no longer desired, or is in its desired state.
    fn clear_stale_failure(&mut self, verdict: &Verdict) {
        let enabled = self.hooked.as_ref().and_then(|hooked| hooked.directions);
        if verdict.directions.is_none() || verdict.directions == enabled {
            self.failure = None;
        }
    }

    fn step(&self, verdict: &Verdict, now: Instant) -> Step {
        match (&self.hooked, verdict.directions) {
            (None, None) => Step::Nothing,
            (Some(_), None) if verdict.detach => Step::Detach,
            (Some(hooked), None) if hooked.directions.is_none() => Step::Nothing,
            (Some(_), None) => Step::SwitchOff,
            (Some(hooked), Some(wanted)) if hooked.directions == Some(wanted) => Step::Nothing,
            (_, Some(wanted)) => match &self.failure {
                Some(failure) if failure.retry_at.is_none_or(|at| at > now) => Step::Nothing,
                _ => Step::Attach(wanted),
            },
        }
    }

    /// Captures arriving packets of a new interface, if both directions are desired.
    fn attach_half(&mut self, capture: &CaptureThread, verdict: &Verdict) {
        self.stage = Stage::Usual;
        let directions = Directions::Ingress;
        if verdict.directions != Some(Directions::Both) || self.hooked.is_some() {
            return;
        }
        // An error is reported by the attempt to attach both directions, which follows.
        if let Ok(attachment) = capture.attach(&self.interface, directions) {
            self.hooked = Some(Hooked { attachment, directions: Some(directions) });
            self.stage = Stage::Half;
        }
    }

    /// Attaches, or enables other directions; returns true if the interface is captured from as
    /// desired.
    fn attach(
        &mut self,
        capture: &CaptureThread,
        directions: Directions,
        verdict: &Verdict,
        now: Instant,
    ) -> bool {
        let is_half = std::mem::replace(&mut self.stage, Stage::Usual) == Stage::Half;
        match capture.attach(&self.interface, directions) {
            Ok(attachment) => {
                self.failure = None;
                self.hooked = Some(Hooked { attachment, directions: Some(directions) });
                self.log_capturing(verdict);
                true
            }
            Err(error) => {
                if is_half {
                    // Queries alone would look unanswered.
                    self.hooked = None;
                    detach(capture, &[self.interface.ifindex]);
                }
                // The netlink message about an interface that is gone is still to come.
                let is_gone = matches!(error, capture::Error::NoSuchInterface { .. });
                if !is_gone && self.is_new_error(&error) {
                    tracing::error!(event = "attach_failed", "{error}");
                }
                let doubled = |failure: &AttachFailure| (failure.backoff * 2).min(BACKOFF.1);
                let backoff = self.failure.as_ref().map_or(BACKOFF.0, doubled);
                let for_ever = matches!(error, capture::Error::NotEthernet { .. });
                let retry_at = (!for_ever).then(|| now + backoff);
                self.failure = Some(AttachFailure { error: error.to_string(), retry_at, backoff });
                false
            }
        }
    }

    /// Returns false for the same error as last time.
    fn is_new_error(&self, error: &capture::Error) -> bool {
        self.failure.as_ref().is_none_or(|failure| failure.error != error.to_string())
    }

    fn switch_off(&mut self, capture: &CaptureThread, verdict: &Verdict) -> bool {
        if let Err(error) = capture.switch_off(self.interface.ifindex) {
            tracing::error!(event = "switch_off_failed", "{error}");
            return false;
        }
        if let Some(hooked) = &mut self.hooked {
            hooked.directions = None;
        }
        tracing::info!(
            target: CHANGE,
            event = "capture_switched_off",
            interface = self.interface.name,
            ifindex = self.interface.ifindex,
            wanted_by = verdict.by.name(),
            "capture switched off, programs stay attached"
        );
        true
    }

    fn log_detached(&self, verdict: &Verdict) {
        tracing::info!(
            target: CHANGE,
            event = "capture_ended",
            interface = self.interface.name,
            ifindex = self.interface.ifindex,
            wanted_by = verdict.by.name(),
            "capture ended, programs detached"
        );
    }

    fn log_capturing(&self, verdict: &Verdict) {
        let describe = |direction| {
            self.hooked
                .as_ref()
                .map_or_else(|| "off".to_owned(), |hooked| hooked.attachment.describe(direction))
        };
        tracing::info!(
            target: CHANGE,
            interface = self.interface.name,
            ifindex = self.interface.ifindex,
            ingress = describe(Direction::Ingress),
            egress = describe(Direction::Egress),
            directions = verdict.directions.map(Directions::name),
            wanted_by = verdict.by.name(),
            why = self.hooked.as_ref().map(|hooked| hooked.attachment.why.as_str()),
            event = "capturing",
            "capturing"
        );
    }
}

/// Returns what is desired of an interface. A packet on `lo` leaves and arrives at the same
/// interface, so either direction has all of them, and both would see each message twice.
fn verdict(wanted: &Wanted, interface: &Interface) -> Verdict {
    let mut verdict = wanted.of(interface);
    if interface.kind == Kind::Loopback && verdict.directions == Some(Directions::Both) {
        verdict.directions = Some(Directions::Ingress);
    }
    verdict
}

/// Returns true if a hook of ours is no longer in place.
fn is_lost(state: &State) -> bool {
    Direction::ALL.iter().any(|direction| {
        state.attachment.hook(*direction).is_some() && !state.in_place[*direction as usize]
    })
}

const fn ifindex_of(state: &State) -> u32 {
    state.attachment.interface.ifindex
}

fn detach(capture: &CaptureThread, ifindexes: &[u32]) {
    if ifindexes.is_empty() {
        return;
    }
    match capture.detach(ifindexes) {
        Ok(errors) => errors.iter().for_each(log_detach_error),
        Err(error) => log_detach_error(&error),
    }
}

fn log_detach_error(error: &capture::Error) {
    tracing::error!(event = "detach_failed", "{error}");
}

#[cfg(test)]
mod tests;
