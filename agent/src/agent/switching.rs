//! Makes what is captured what is wanted: the interfaces there are, what is wanted of each, and what
//! was done about it.
//!
//! Off is a flag in the settings of the programs where it may be for moments, and no program at all
//! where the file does not ask for the interface or a command says so. On attaches what is missing
//! and nothing else, so that asking twice changes nothing. What the kernel refuses is tried again,
//! first after a second and then less often.

mod status;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tap53_capture::{
    capture::{self, Attachment, CaptureThread, State},
    interfaces::{self, Change, Interface, Kind, Verdict, Wanted},
};
use tap53_ebpf::settings::Direction;

use crate::{config::Directions, telemetry::CHANGE};

pub(super) use status::is_of_interest;

/// Wait after the first refusal, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The interfaces there are, and what is wanted of them.
pub(super) struct Switching {
    pub(super) wanted: Wanted,
    interfaces: BTreeMap<u32, Tracked>,
}

/// An interface that is there.
struct Tracked {
    interface: Interface,
    hooked: Option<Hooked>,
    refused: Option<Refused>,
}

/// What was done at an interface.
#[derive(Clone, PartialEq)]
struct Hooked {
    attachment: Attachment,
    /// Directions that the settings enable; `None` for off.
    directions: Option<Directions>,
}

/// The kernel's last refusal.
struct Refused {
    error: String,
    /// When to try again; `None` for never, since it would be refused for ever.
    again_at: Option<Instant>,
    wait: Duration,
}

/// What there is to do at an interface.
enum Step {
    Nothing,
    Attach(Directions),
    SwitchOff,
    Detach,
}

impl Switching {
    pub(super) const fn new(wanted: Wanted) -> Self {
        Self { wanted, interfaces: BTreeMap::new() }
    }

    /// Names of the interfaces there are.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.interfaces.values().map(|tracked| tracked.interface.name.as_str())
    }

    /// Interfaces that are attached to, and those that something wants to be.
    pub(super) fn counts(&self) -> (usize, usize) {
        let of = |is: fn(&Self, &Tracked) -> bool| {
            self.interfaces.values().filter(|tracked| is(self, tracked)).count()
        };
        (
            of(|_, tracked| tracked.hooked.is_some()),
            of(|this, tracked| this.verdict(tracked).directions.is_some()),
        )
    }

    /// Interfaces that are captured from, by number, and in which directions.
    pub(super) fn captured(&self) -> Vec<(u32, Directions)> {
        let captured = self.interfaces.iter().filter_map(|(ifindex, tracked)| {
            Some((*ifindex, tracked.hooked.as_ref()?.directions?))
        });
        captured.collect()
    }

    /// Takes note of what happened to the interfaces.
    pub(super) fn note(&mut self, capture: &CaptureThread, changes: Vec<Change>) {
        // Together, since detaching from many takes little longer than from one; but before another
        // interface has the number.
        let mut gone = Vec::new();
        for change in changes {
            match change {
                Change::Present(interface) => {
                    if gone.contains(&interface.ifindex) {
                        self.gone(capture, &std::mem::take(&mut gone));
                    }
                    self.present(capture, interface);
                }
                Change::Gone(ifindex) => gone.push(ifindex),
                // The caller lists, and says so by `note_all`.
                Change::Lost => {}
            }
        }
        self.gone(capture, &gone);
    }

    /// Takes note of all interfaces there are, after news of them have been lost. Hooks that are no
    /// longer in place were on an interface that is gone, though another may have its number.
    pub(super) fn note_all(&mut self, capture: &CaptureThread, all: Vec<Interface>) {
        let is_there = |ifindex: &u32| all.iter().any(|interface| interface.ifindex == *ifindex);
        let gone: Vec<u32> =
            self.interfaces.keys().copied().filter(|ifindex| !is_there(ifindex)).collect();
        self.gone(capture, &gone);
        self.drop_lost_hooks(capture);
        for interface in all {
            self.present(capture, interface);
        }
    }

    fn present(&mut self, capture: &CaptureThread, interface: Interface) {
        let ifindex = interface.ifindex;
        let Some(tracked) = self.interfaces.get_mut(&ifindex) else {
            let tracked = Tracked { interface, hooked: None, refused: None };
            self.interfaces.insert(ifindex, tracked);
            return;
        };
        if tracked.interface == interface {
            return;
        }
        let before = std::mem::replace(&mut tracked.interface, interface);
        // What was refused may be taken now: the interface is up, or has another MTU.
        tracked.try_again(Instant::now());
        if let Some(hooked) = &mut tracked.hooked {
            hooked.attachment.interface = tracked.interface.clone();
            report(capture.update(&tracked.interface));
        }
        if before.name != tracked.interface.name {
            // Once records have the new name.
            tracing::info!(
                target: CHANGE,
                ifindex,
                from = before.name,
                to = tracked.interface.name,
                "interface renamed"
            );
        }
    }

    fn gone(&mut self, capture: &CaptureThread, ifindexes: &[u32]) {
        let mut hooked = Vec::new();
        for ifindex in ifindexes {
            let Some(tracked) = self.interfaces.remove(ifindex) else { continue };
            if tracked.hooked.is_some() {
                hooked.push(*ifindex);
                let name = tracked.interface.name;
                tracing::info!(target: CHANGE, interface = name, ifindex, "interface is gone: capture there ends");
            }
        }
        // Also of one that has only moved to another namespace, where its programs still run.
        detach(capture, &hooked);
    }

    /// Forgets hooks that somebody else has taken away, so that they are attached anew.
    pub(super) fn drop_lost_hooks(&mut self, capture: &CaptureThread) {
        let states = capture.states().unwrap_or_default();
        let mut lost: Vec<u32> = states.iter().filter(|s| is_lost(s)).map(ifindex_of).collect();
        if lost.is_empty() {
            return;
        }
        // Of an interface that is gone the news are on their way.
        let Ok(there) = interfaces::list() else { return };
        lost.retain(|ifindex| there.iter().any(|interface| interface.ifindex == *ifindex));
        for ifindex in &lost {
            if let Some(tracked) = self.interfaces.get_mut(ifindex)
                && tracked.hooked.take().is_some()
            {
                let name = &tracked.interface.name;
                tracing::warn!(target: CHANGE, interface = name, ifindex, "somebody has detached our programs");
            }
        }
        detach(capture, &lost);
    }

    /// Does what is to be done for actual and wanted to be the same. Returns how many interfaces
    /// were changed.
    pub(super) fn reconcile(&mut self, capture: &CaptureThread, now: Instant) -> usize {
        let mut changed = 0;
        let mut to_detach = Vec::new();
        for tracked in self.interfaces.values_mut() {
            let verdict = verdict(&self.wanted, &tracked.interface);
            tracked.forget_needless_refusal(&verdict);
            let done = match tracked.step(&verdict, now) {
                Step::Nothing => false,
                Step::Attach(directions) => tracked.attach(capture, directions, &verdict, now),
                Step::SwitchOff => tracked.switch_off(capture, &verdict),
                Step::Detach => {
                    to_detach.push(tracked.interface.ifindex);
                    tracked.hooked = None;
                    tracked.say("capture ended, programs detached", &verdict);
                    true
                }
            };
            changed += usize::from(done);
        }
        detach(capture, &to_detach);
        changed
    }

    /// Has what was refused tried again at once, where it may be taken now.
    pub(super) fn try_again(&mut self, now: Instant, is_meant: impl Fn(&str) -> bool) {
        for tracked in self.interfaces.values_mut().filter(|t| is_meant(&t.interface.name)) {
            tracked.try_again(now);
        }
    }

    /// When something is to be tried again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let refused = self.interfaces.values().filter_map(|tracked| tracked.refused.as_ref());
        refused.filter_map(|refused| refused.again_at).min()
    }

    /// Why the interfaces that `is_meant` are not captured from, of those that could not be attached
    /// to; `None` if at least one is, or none was tried.
    pub(super) fn refusals(&self, is_meant: impl Fn(&str) -> bool) -> Option<String> {
        let mut errors = Vec::new();
        for tracked in self.interfaces.values() {
            if !is_meant(&tracked.interface.name) || self.verdict(tracked).directions.is_none() {
                continue;
            }
            match &tracked.refused {
                None => return None,
                Some(refused) => errors.push(refused.error.as_str()),
            }
        }
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    fn verdict(&self, tracked: &Tracked) -> Verdict {
        verdict(&self.wanted, &tracked.interface)
    }
}

impl Tracked {
    fn try_again(&mut self, now: Instant) {
        if let Some(Refused { again_at: Some(at), .. }) = &mut self.refused {
            *at = now;
        }
    }

    /// What is not wanted any more, or is as it is wanted, is not to be tried again.
    fn forget_needless_refusal(&mut self, verdict: &Verdict) {
        let enabled = self.hooked.as_ref().and_then(|hooked| hooked.directions);
        if verdict.directions.is_none() || verdict.directions == enabled {
            self.refused = None;
        }
    }

    fn step(&self, verdict: &Verdict, now: Instant) -> Step {
        match (&self.hooked, verdict.directions) {
            (None, None) => Step::Nothing,
            (Some(_), None) if verdict.detach => Step::Detach,
            (Some(hooked), None) if hooked.directions.is_none() => Step::Nothing,
            (Some(_), None) => Step::SwitchOff,
            (Some(hooked), Some(wanted)) if hooked.directions == Some(wanted) => Step::Nothing,
            (_, Some(wanted)) => match &self.refused {
                Some(refused) if refused.again_at.is_none_or(|at| at > now) => Step::Nothing,
                _ => Step::Attach(wanted),
            },
        }
    }

    /// True if it captures now as it is wanted.
    fn attach(
        &mut self,
        capture: &CaptureThread,
        directions: Directions,
        verdict: &Verdict,
        now: Instant,
    ) -> bool {
        match capture.attach(&self.interface, directions) {
            Ok(attachment) => {
                self.refused = None;
                self.hooked = Some(Hooked { attachment, directions: Some(directions) });
                self.say("capturing", verdict);
                true
            }
            Err(error) => {
                // For an interface that is gone, the news are on their way.
                if !matches!(error, capture::Error::NoSuchInterface { .. }) && self.is_news(&error)
                {
                    tracing::error!("{error}");
                }
                let wait = self.refused.as_ref().map_or(WAITS.0, |r| (r.wait * 2).min(WAITS.1));
                let for_ever = matches!(error, capture::Error::NotEthernet { .. });
                let again_at = (!for_ever).then(|| now + wait);
                self.refused = Some(Refused { error: error.to_string(), again_at, wait });
                false
            }
        }
    }

    /// Not the same error again.
    fn is_news(&self, error: &capture::Error) -> bool {
        self.refused.as_ref().is_none_or(|refused| refused.error != error.to_string())
    }

    fn switch_off(&mut self, capture: &CaptureThread, verdict: &Verdict) -> bool {
        if let Err(error) = capture.switch_off(self.interface.ifindex) {
            tracing::error!("{error}");
            return false;
        }
        if let Some(hooked) = &mut self.hooked {
            hooked.directions = None;
        }
        self.say("capture switched off, programs stay attached", verdict);
        true
    }

    fn say(&self, what: &str, verdict: &Verdict) {
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
            directions = verdict.directions.map(tracing::field::debug),
            wanted_by = ?verdict.by,
            why = self.hooked.as_ref().map(|hooked| hooked.attachment.why.as_str()),
            "{what}"
        );
    }
}

/// What is wanted of an interface. A packet on `lo` leaves and arrives at the same interface, so
/// either direction has all of them, and both would make each message two.
fn verdict(wanted: &Wanted, interface: &Interface) -> Verdict {
    let mut verdict = wanted.of(&interface.name);
    if interface.kind == Kind::Loopback && verdict.directions == Some(Directions::Both) {
        verdict.directions = Some(Directions::Ingress);
    }
    verdict
}

/// True of an interface on which a hook of ours is no longer in place.
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
        Ok(errors) => errors.iter().for_each(|error| tracing::error!("{error}")),
        Err(error) => tracing::error!("{error}"),
    }
}

fn report(outcome: Result<(), capture::Error>) {
    if let Err(error) = outcome {
        tracing::error!("{error}");
    }
}

#[cfg(test)]
mod tests;
