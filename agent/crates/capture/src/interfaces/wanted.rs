//! The desired state of each interface: combines the file, the annotation of the Node object and
//! the commands of operators, without querying the kernel.
//!
//! | source | syntax | applies |
//! |---|---|---|
//! | file | `interfaces.include`, `exclude`, `directions` | unless one below matches the name |
//! | annotation | `tap53.io/capture: "eth0=on,veth*=off,eth1=ingress"` | unless a command matches |
//! | command | `tap53 enable` and `disable`, the last one that matches | for its duration, or until the agent ends |
//!
//! An annotation is a comma-separated list of `PATTERN=STATE`. The pattern is a shell pattern of
//! names or a kind (`kind:pods`), the state is `on`, `both`, `ingress`, `egress` or `off`; `on` equals `both`. The last
//! entry that matches decides. Any other value changes nothing.
//!
//! Switching off by command or annotation only sets a flag, since it may be for moments; the
//! programs stay and ignore packets. An interface that the file no longer selects is detached.

use std::time::Instant;

use super::{Interface, Selector, selects};
use crate::{
    interfaces::config::{Directions, InterfacesConfig},
    interfaces::{Switch, SwitchTo, WantedBy},
};

/// Maximum number of active switches, one for each pattern. An operator uses a handful.
const MAX_SWITCHES: usize = 256;

/// Maximum length of an annotation in bytes; the limit of Kubernetes for all annotations together
/// is 64 times that.
const MAX_ANNOTATION: usize = 4_096;

/// The desired state of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Directions to capture; `None` for off.
    pub directions: Option<Directions>,
    /// True if no program may stay attached while it is off.
    pub detach: bool,
    /// Source of the desired state.
    pub by: WantedBy,
    /// Time when it expires.
    pub until: Option<Instant>,
}

/// Reasons to refuse an annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// It exceeds the maximum length.
    #[error("longer than {MAX_ANNOTATION} bytes")]
    TooLong,
    /// An entry is not `PATTERN=STATE`.
    #[error("{0:?} is not PATTERN=STATE")]
    NotAnEntry(String),
    /// A pattern is invalid.
    #[error("{text:?} {reason}")]
    NotAPattern {
        /// The pattern.
        text: String,
        /// The reason.
        reason: String,
    },
    /// A state is invalid.
    #[error("{0:?} is none of on, off, ingress, egress, both")]
    NotAState(String),
}

/// The maximum number of switches is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SWITCHES} patterns are switched already: reset some first")]
pub struct TooManySwitches;

/// The desired states from all sources.
#[derive(Clone, Debug)]
pub struct Wanted {
    file: InterfacesConfig,
    annotation: Vec<(Selector, Option<Directions>)>,
    /// Oldest first.
    switches: Vec<ActiveSwitch>,
}

/// An active switch.
#[derive(Clone, Debug)]
struct ActiveSwitch {
    selector: Selector,
    to: SwitchTo,
    until: Option<Instant>,
}

impl Wanted {
    /// Creates the desired states of the file.
    #[must_use]
    pub const fn new(file: InterfacesConfig) -> Self {
        Self { file, annotation: Vec::new(), switches: Vec::new() }
    }

    /// Replaces the configuration file.
    pub fn set_file(&mut self, file: InterfacesConfig) {
        self.file = file;
    }

    /// Returns the file's patterns of names to capture from.
    #[must_use]
    pub fn file(&self) -> &InterfacesConfig {
        &self.file
    }

    /// Applies the value of the annotation; `None` if there is no annotation.
    ///
    /// # Errors
    /// [`AnnotationError`]: the previous annotation stays in force.
    pub fn set_annotation(&mut self, value: Option<&str>) -> Result<(), AnnotationError> {
        self.annotation = parse_annotation(value.unwrap_or_default())?;
        Ok(())
    }

    /// Applies a command; returns true if it changes anything.
    ///
    /// # Errors
    /// [`TooManySwitches`].
    pub fn switch(&mut self, switch: &Switch, now: Instant) -> Result<bool, TooManySwitches> {
        let before = self.switches.len();
        if switch.to == SwitchTo::Reset {
            self.switches.retain(|other| !switch.selector.covers(&other.selector));
            return Ok(self.switches.len() != before);
        }
        self.switches.retain(|other| other.selector != switch.selector);
        if self.switches.len() >= MAX_SWITCHES {
            return Err(TooManySwitches);
        }
        self.switches.push(ActiveSwitch {
            selector: switch.selector.clone(),
            to: switch.to,
            // A time that the clock cannot represent means for ever.
            until: switch.lasts.and_then(|lasts| now.checked_add(lasts)),
        });
        Ok(true)
    }

    /// Removes the switches that have expired, and returns their selectors.
    pub fn expire(&mut self, now: Instant) -> Vec<Selector> {
        let over = |switch: &ActiveSwitch| switch.until.is_some_and(|until| until <= now);
        let expired = self.switches.iter().filter(|switch| over(switch));
        let expired = expired.map(|switch| switch.selector.clone()).collect();
        self.switches.retain(|switch| !over(switch));
        expired
    }

    /// Returns the time when the next switch expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.switches.iter().filter_map(|switch| switch.until).min()
    }

    /// Returns the desired state of an interface. Call [`Self::expire`] first.
    #[must_use]
    pub fn of(&self, interface: &Interface) -> Verdict {
        let mut switches = self.switches.iter().rev();
        if let Some(switch) = switches.find(|switch| switch.applies(interface)) {
            let (directions, detach) = match switch.to {
                SwitchTo::On(directions) => (Some(directions), false),
                SwitchTo::Off { detach } => (None, detach),
                // A reset is never stored.
                SwitchTo::Reset => (None, false),
            };
            return Verdict { directions, detach, by: WantedBy::Command, until: switch.until };
        }
        let rule = self.annotation.iter().rev().find(|(selector, directions)| match directions {
            Some(_) => selector.includes(interface),
            None => selector.matches(interface),
        });
        if let Some((_, directions)) = rule {
            let by = WantedBy::Annotation;
            return Verdict { directions: *directions, detach: false, by, until: None };
        }
        let directions = selects(&self.file, interface).then_some(self.file.directions);
        Verdict { directions, detach: true, by: WantedBy::File, until: None }
    }

    /// Returns the names that a source contains literally, and not as a pattern; such interfaces
    /// need not exist.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let switched_on = |switch: &&ActiveSwitch| matches!(switch.to, SwitchTo::On(_));
        let switches = self.switches.iter().filter(switched_on).map(|switch| &switch.selector);
        let annotated = self.annotation.iter().filter(|(_, directions)| directions.is_some());
        let annotated = annotated.map(|(selector, _)| selector);
        let selectors = self.file.include.iter().chain(annotated).chain(switches);
        selectors.filter_map(Selector::literal_name)
    }
}

impl ActiveSwitch {
    fn applies(&self, interface: &Interface) -> bool {
        match self.to {
            SwitchTo::On(_) => self.selector.includes(interface),
            SwitchTo::Off { .. } | SwitchTo::Reset => self.selector.matches(interface),
        }
    }
}

fn parse_annotation(value: &str) -> Result<Vec<(Selector, Option<Directions>)>, AnnotationError> {
    if value.len() > MAX_ANNOTATION {
        return Err(AnnotationError::TooLong);
    }
    if value.trim().is_empty() {
        return Ok(Vec::new());
    }
    value.split(',').map(|entry| parse_entry(entry.trim())).collect()
}

fn parse_entry(entry: &str) -> Result<(Selector, Option<Directions>), AnnotationError> {
    let (pattern, state) =
        entry.split_once('=').ok_or_else(|| AnnotationError::NotAnEntry(entry.to_owned()))?;
    let (text, state) = (pattern.trim(), state.trim());
    let invalid = |reason| AnnotationError::NotAPattern { text: text.to_owned(), reason };
    if text.contains(char::is_whitespace) {
        return Err(invalid("is not a shell pattern: it has white space".to_owned()));
    }
    let selector = Selector::parse(text).map_err(invalid)?;
    let directions = match state {
        "on" | "both" => Some(Directions::Both),
        "ingress" => Some(Directions::Ingress),
        "egress" => Some(Directions::Egress),
        "off" => None,
        _ => return Err(AnnotationError::NotAState(state.to_owned())),
    };
    Ok((selector, directions))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::interfaces::{Kind, Peer};

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    fn wanted() -> Wanted {
        Wanted::new(InterfacesConfig {
            include: vec![selector("eth*"), selector("br0")],
            exclude: vec![selector("eth9")],
            directions: Directions::Ingress,
        })
    }

    fn switch(text: &str, to: SwitchTo, lasts: Option<u64>) -> Switch {
        Switch { selector: selector(text), to, lasts: lasts.map(Duration::from_secs) }
    }

    fn of(wanted: &Wanted, name: &str) -> (Option<Directions>, WantedBy) {
        let verdict = wanted.of(&Interface::named(name));
        (verdict.directions, verdict.by)
    }

    const OFF: SwitchTo = SwitchTo::Off { detach: false };
    const ON: SwitchTo = SwitchTo::On(Directions::Both);

    #[test]
    fn a_command_wins_over_the_annotation_and_the_annotation_over_the_file() {
        let (mut wanted, now) = (wanted(), Instant::now());
        assert_eq!(of(&wanted, "eth0"), (Some(Directions::Ingress), WantedBy::File));
        assert_eq!(of(&wanted, "eth9"), (None, WantedBy::File));
        wanted.set_annotation(Some("eth*=off, eth1=egress")).unwrap();
        assert_eq!(of(&wanted, "eth0"), (None, WantedBy::Annotation));
        assert_eq!(of(&wanted, "eth1"), (Some(Directions::Egress), WantedBy::Annotation));
        assert_eq!(of(&wanted, "br0"), (Some(Directions::Ingress), WantedBy::File));
        wanted.switch(&switch("eth0", ON, None), now).unwrap();
        assert_eq!(of(&wanted, "eth0"), (Some(Directions::Both), WantedBy::Command));
        assert_eq!(of(&wanted, "eth2"), (None, WantedBy::Annotation));
        wanted.set_annotation(None).unwrap();
        assert_eq!(of(&wanted, "eth2"), (Some(Directions::Ingress), WantedBy::File));
    }

    #[test]
    fn the_last_command_that_fits_decides() {
        let (mut wanted, now) = (wanted(), Instant::now());
        wanted.switch(&switch("eth0", ON, None), now).unwrap();
        wanted.switch(&switch("*", OFF, None), now).unwrap();
        assert_eq!(wanted.of(&Interface::named("eth0")).directions, None);
        wanted.switch(&switch("eth0", ON, None), now).unwrap();
        assert_eq!(wanted.of(&Interface::named("eth0")).directions, Some(Directions::Both));
        assert_eq!(wanted.of(&Interface::named("eth1")).directions, None);
        wanted.switch(&switch("eth0", SwitchTo::Off { detach: true }, None), now).unwrap();
        assert!(wanted.of(&Interface::named("eth0")).detach);
    }

    #[test]
    fn a_command_ends_with_its_time_and_not_before() {
        let (mut wanted, now) = (wanted(), Instant::now());
        wanted.switch(&switch("eth0", OFF, Some(600)), now).unwrap();
        wanted.switch(&switch("br0", OFF, None), now).unwrap();
        let end = now + Duration::from_secs(600);
        assert_eq!(wanted.next_expiry(), Some(end));
        assert_eq!(wanted.of(&Interface::named("eth0")).until, Some(end));
        assert_eq!(wanted.expire(end - Duration::from_nanos(1)), []);
        assert_eq!(of(&wanted, "eth0"), (None, WantedBy::Command));
        assert_eq!(wanted.expire(end), [selector("eth0")]);
        assert_eq!(of(&wanted, "eth0"), (Some(Directions::Ingress), WantedBy::File));
        assert_eq!(wanted.of(&Interface::named("br0")).by, WantedBy::Command, "without an end");
        assert_eq!(wanted.next_expiry(), None);
        // A later switch of the same pattern also replaces the first one's end.
        wanted.switch(&switch("eth0", OFF, Some(1)), now).unwrap();
        wanted.switch(&switch("eth0", ON, None), now).unwrap();
        assert_eq!(wanted.expire(end), []);
    }

    #[test]
    fn a_reset_gives_the_decision_back() {
        let (mut wanted, now) = (wanted(), Instant::now());
        for text in ["eth0", "eth*", "br0"] {
            wanted.switch(&switch(text, OFF, None), now).unwrap();
        }
        assert!(wanted.switch(&switch("eth0", SwitchTo::Reset, None), now).unwrap());
        assert_eq!(
            wanted.of(&Interface::named("eth0")).by,
            WantedBy::Command,
            "eth* is still there"
        );
        assert!(wanted.switch(&switch("eth*", SwitchTo::Reset, None), now).unwrap());
        assert_eq!(wanted.of(&Interface::named("eth0")).by, WantedBy::File);
        assert!(wanted.switch(&switch("*", SwitchTo::Reset, None), now).unwrap());
        assert_eq!(wanted.of(&Interface::named("br0")).by, WantedBy::File);
        assert!(!wanted.switch(&switch("*", SwitchTo::Reset, None), now).unwrap());
    }

    #[test]
    fn switches_are_bounded_and_one_of_the_same_pattern_takes_no_room() {
        let (mut wanted, now) = (wanted(), Instant::now());
        for number in 0..MAX_SWITCHES {
            wanted.switch(&switch(&format!("v{number}"), ON, None), now).unwrap();
        }
        assert_eq!(wanted.switch(&switch("one_more", ON, None), now), Err(TooManySwitches));
        assert_eq!(wanted.switch(&switch("v7", OFF, None), now), Ok(true));
        assert_eq!(wanted.of(&Interface::named("v7")).directions, None);
    }

    #[test]
    fn an_invalid_annotation_changes_nothing_and_is_explained() {
        let mut wanted = wanted();
        wanted.set_annotation(Some("eth0=egress")).unwrap();
        for (value, why) in [
            ("eth0", "\"eth0\" is not PATTERN=STATE"),
            ("eth0=on,", "\"\" is not PATTERN=STATE"),
            ("eth0=on;eth1=off", "\"on;eth1=off\" is none of on, off, ingress, egress, both"),
            ("=on", "\"\" must not be empty"),
            ("kind:pod=on", "\"kind:pod\" is no kind of interface: after \"kind:\" comes one of"),
            ("eth[=on", "\"eth[\" is not a shell pattern"),
            ("eth 0=on", "\"eth 0\" is not a shell pattern"),
            ("eth0=ON", "\"ON\" is none of on, off, ingress, egress, both"),
            (&"a=on,".repeat(2_000), "longer than 4096 bytes"),
        ] {
            let error = wanted.set_annotation(Some(value)).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
            assert_eq!(of(&wanted, "eth0"), (Some(Directions::Egress), WantedBy::Annotation));
        }
        wanted.set_annotation(Some(" eth0 = on , veth* = off ")).unwrap();
        assert_eq!(of(&wanted, "eth0"), (Some(Directions::Both), WantedBy::Annotation));
        wanted.set_annotation(Some("")).unwrap();
        assert_eq!(of(&wanted, "eth0").1, WantedBy::File);
    }

    #[test]
    fn every_source_selects_by_kind() {
        let pod = Interface {
            kind: Kind::Veth,
            peer: Some(Peer::OtherNamespace),
            ..Interface::named("lxc1")
        };
        let wireguard = Interface {
            kind: Kind::Tunnel("wireguard".to_owned()),
            ethernet: false,
            ..Interface::named("wg0")
        };
        let (mut wanted, now) = (wanted(), Instant::now());
        let of = |wanted: &Wanted, of| (wanted.of(of).directions, wanted.of(of).by);
        wanted.set_annotation(Some("kind:pods=egress,kind:tunnels=on")).unwrap();
        assert_eq!(of(&wanted, &pod), (Some(Directions::Egress), WantedBy::Annotation));
        assert_eq!(of(&wanted, &wireguard), (None, WantedBy::File), "it cannot be read");
        wanted.switch(&switch("kind:tunnels", ON, None), now).unwrap();
        assert_eq!(of(&wanted, &wireguard), (None, WantedBy::File));
        wanted.switch(&switch("kind:tunnels", OFF, None), now).unwrap();
        assert_eq!(of(&wanted, &wireguard), (None, WantedBy::Command));
        wanted.switch(&switch("kind:pods", OFF, None), now).unwrap();
        assert_eq!(of(&wanted, &pod), (None, WantedBy::Command));
        assert!(wanted.switch(&switch("*", SwitchTo::Reset, None), now).unwrap());
        assert_eq!(of(&wanted, &pod).1, WantedBy::Annotation);
        assert_eq!(wanted.named().collect::<Vec<_>>(), ["br0"], "a kind is no name");
    }

    #[test]
    fn literal_names_are_distinguished_from_patterns() {
        let (mut wanted, now) = (wanted(), Instant::now());
        wanted.set_annotation(Some("wan0=on,wan1=off,v*=on")).unwrap();
        wanted.switch(&switch("tun0", ON, None), now).unwrap();
        wanted.switch(&switch("tun1", OFF, None), now).unwrap();
        assert_eq!(wanted.named().collect::<Vec<_>>(), ["br0", "wan0", "tun0"]);
    }
}
