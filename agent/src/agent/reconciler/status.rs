//! The interfaces' status: the desired state, the observed one, and why they differ.

use std::time::Instant;

use tap53_capture::{
    capture::{CaptureThread, State},
    interfaces::{Actual, Interface, InterfaceStatus, Kind, Verdict, WantedBy},
};
use tap53_ebpf::settings::Direction;

use super::{InterfaceReconciler, Tracked, ifindex_of, is_lost};

impl InterfaceReconciler {
    /// Returns the status of the interfaces that `is_meant`, as the kernel reports it now.
    pub(in crate::agent) fn status(
        &self,
        capture: &CaptureThread,
        now: Instant,
        is_meant: impl Fn(&Interface, &InterfaceStatus) -> bool,
    ) -> Vec<InterfaceStatus> {
        let states = capture.states().unwrap_or_default();
        let mut list: Vec<InterfaceStatus> = self
            .interfaces
            .values()
            .filter_map(|tracked| {
                let ifindex = tracked.interface.ifindex;
                let state = states.iter().find(|state| ifindex_of(state) == ifindex);
                let status = tracked.status(&self.verdict(tracked), state, now);
                is_meant(&tracked.interface, &status).then_some(status)
            })
            .collect();
        let mut absent: Vec<&str> = self.wanted.named().collect();
        absent.sort_unstable();
        absent.dedup();
        for name in absent {
            if self.names().any(|present| present == name) {
                continue;
            }
            let absent = Interface::named(name);
            let status = absent_status(name, &self.wanted.of(&absent), now);
            list.extend(is_meant(&absent, &status).then_some(status));
        }
        list
    }
}

impl Tracked {
    fn status(&self, verdict: &Verdict, state: Option<&State>, now: Instant) -> InterfaceStatus {
        let actual = |direction: Direction| {
            let hook = state.and_then(|state| state.attachment.hook(direction));
            let is =
                |of: fn(&State) -> &[bool; 2]| state.is_some_and(|s| of(s)[direction as usize]);
            let in_place = is(|state| &state.in_place);
            Actual {
                capturing: in_place && is(|state| &state.enabled),
                hook: hook.filter(|_| in_place).map(|hook| hook.to_string()),
                shadowed: state.and_then(|state| state.shadowed[direction as usize].clone()),
            }
        };
        InterfaceStatus {
            name: self.interface.name.clone(),
            ifindex: self.interface.ifindex,
            kind: self.interface.kind.to_string(),
            wanted: verdict.directions,
            wanted_by: verdict.by,
            wanted_for_s: seconds_left(verdict, now),
            ingress: actual(Direction::Ingress),
            egress: actual(Direction::Egress),
            why: self.why(verdict, state, now),
        }
    }

    fn why(&self, verdict: &Verdict, state: Option<&State>, now: Instant) -> String {
        let mut reasons = Vec::new();
        if let Some(state) = state {
            if is_lost(state) {
                reasons.push("our programs are no longer attached".to_owned());
            } else if verdict.directions.is_none() {
                reasons.push("switched off, programs stay attached".to_owned());
            } else {
                reasons.push(state.attachment.why.clone());
                if self.interface.kind == Kind::Loopback {
                    reasons.push("either direction has every packet".to_owned());
                }
            }
        }
        if let Some(failure) = self.failure.as_ref().filter(|_| verdict.directions.is_some()) {
            reasons.push(match failure.retry_at {
                Some(at) => {
                    let seconds = at.saturating_duration_since(now).as_secs();
                    format!("{}; retry in {seconds} s", failure.error)
                }
                None => failure.error.clone(),
            });
        }
        reasons.join("; ")
    }
}

/// Returns true if the status shows an interface: it is captured from, or something selects it.
pub(in crate::agent) fn is_of_interest(status: &InterfaceStatus) -> bool {
    status.wanted.is_some()
        || status.wanted_by != WantedBy::File
        || status.ingress.hook.is_some()
        || status.egress.hook.is_some()
}

fn seconds_left(verdict: &Verdict, now: Instant) -> Option<u64> {
    verdict.until.map(|until| until.saturating_duration_since(now).as_secs())
}

fn absent_status(name: &str, verdict: &Verdict, now: Instant) -> InterfaceStatus {
    let nothing = || Actual { capturing: false, hook: None, shadowed: None };
    InterfaceStatus {
        name: name.to_owned(),
        ifindex: 0,
        kind: "absent".to_owned(),
        wanted: verdict.directions,
        wanted_by: verdict.by,
        wanted_for_s: seconds_left(verdict, now),
        ingress: nothing(),
        egress: nothing(),
        why: "no such interface".to_owned(),
    }
}
