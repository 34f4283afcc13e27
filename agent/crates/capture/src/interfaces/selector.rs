//! Selects interfaces by name (`eth*`) or by kind (`kind:pods`).
//!
//! The two are unambiguous: the kernel allows no colon in an interface's name.

use std::fmt;

use glob::Pattern;
use serde::{Serialize, Serializer};
use tap53_base::settings::{Value, label, shell_pattern, text};

use super::{Interface, Kind, Peer};

/// Prefix of a selector by kind.
const KIND_PREFIX: &str = "kind:";

/// An entry of a list that selects interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A shell pattern of names.
    Name(Pattern),
    /// The devices of a class.
    Class(Class),
}

/// A class of devices, as it is named after `kind:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ethernet devices with hardware, also that of a virtual machine.
    Physical,
    /// The node's ends of pairs into other network namespaces: veth, and netkit's primary end.
    Pods,
    /// Every end of a veth pair.
    Veths,
    /// Bridges.
    Bridges,
    /// Bonds and teams.
    Bonds,
    /// VLAN subinterfaces.
    Vlans,
    /// Tunnels, such as VXLAN and Geneve.
    Tunnels,
    /// `lo`.
    Loopback,
    /// Dummy devices.
    Dummies,
}

impl Class {
    /// Every class; the first one that contains an interface describes it best.
    pub const ALL: [Self; 9] = [
        Self::Physical,
        Self::Pods,
        Self::Veths,
        Self::Bridges,
        Self::Bonds,
        Self::Vlans,
        Self::Tunnels,
        Self::Loopback,
        Self::Dummies,
    ];

    /// Returns the class of an interface; `None` if it has none.
    #[must_use]
    pub fn of(interface: &Interface) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.contains(interface))
    }

    /// Returns true if the interface is in this class.
    #[must_use]
    pub fn contains(self, interface: &Interface) -> bool {
        match (self, &interface.kind) {
            (Self::Pods, Kind::Veth | Kind::NetkitPrimary) => {
                interface.peer == Some(Peer::OtherNamespace)
            }
            (Self::Physical, Kind::Physical)
            | (Self::Veths, Kind::Veth)
            | (Self::Bridges, Kind::Bridge)
            | (Self::Bonds, Kind::Bond)
            | (Self::Vlans, Kind::Vlan)
            | (Self::Tunnels, Kind::Tunnel(_))
            | (Self::Loopback, Kind::Loopback) => true,
            (Self::Dummies, Kind::Other(kind)) => kind == "dummy",
            _ => false,
        }
    }

    /// Returns the text that selects it.
    const fn selector(self) -> &'static str {
        match self {
            Self::Physical => "kind:physical",
            Self::Pods => "kind:pods",
            Self::Veths => "kind:veths",
            Self::Bridges => "kind:bridges",
            Self::Bonds => "kind:bonds",
            Self::Vlans => "kind:vlans",
            Self::Tunnels => "kind:tunnels",
            Self::Loopback => "kind:loopback",
            Self::Dummies => "kind:dummies",
        }
    }

    fn name(self) -> &'static str {
        &self.selector()[KIND_PREFIX.len()..]
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.selector())
    }
}

impl Selector {
    /// Parses a shell pattern of names, or `kind:` and a class.
    ///
    /// # Errors
    /// Returns the reason why the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        label(text)?;
        if let Some(name) = text.strip_prefix(KIND_PREFIX) {
            let class = Class::ALL.into_iter().find(|class| class.name() == name);
            return class.map(Self::Class).ok_or_else(|| {
                let names = Class::ALL.map(Class::name).join(", ");
                format!("is no kind of interface: after \"kind:\" comes one of {names}")
            });
        }
        if text.contains(':') {
            let reason = "matches nothing: names of interfaces have no colon; a kind is selected \
                          with \"kind:\", such as kind:pods";
            return Err(reason.to_owned());
        }
        shell_pattern(text).map(Self::Name)
    }

    /// Reads it from a value of the configuration.
    ///
    /// # Errors
    /// Fails if the value is not text, or not a selector.
    pub fn read(value: &Value) -> Result<Self, String> {
        text(Self::parse)(value)
    }

    /// Returns its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(pattern) => pattern.as_str(),
            Self::Class(class) => class.selector(),
        }
    }

    /// Returns true if it matches the interface.
    #[must_use]
    pub fn matches(&self, interface: &Interface) -> bool {
        match self {
            Self::Name(pattern) => pattern.matches(&interface.name),
            Self::Class(class) => class.contains(interface),
        }
    }

    /// Returns true if it selects the interface for capture. A kind selects only devices whose
    /// packets can be read: tun or WireGuard devices are not requested, and so not an error.
    #[must_use]
    pub fn includes(&self, interface: &Interface) -> bool {
        self.matches(interface) && (interface.ethernet || matches!(self, Self::Name(_)))
    }

    /// Returns true if a reset of this selector also resets the other one: `*` resets all.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self == other || matches!(self, Self::Name(pattern) if pattern.matches(other.as_str()))
    }

    /// Returns the name if it is one, and neither a pattern nor a kind; such an interface need not
    /// exist.
    #[must_use]
    pub fn literal_name(&self) -> Option<&str> {
        match self {
            Self::Name(pattern) => {
                Some(pattern.as_str()).filter(|text| !text.contains(['*', '?', '[']))
            }
            Self::Class(_) => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(kind: Kind, peer: Option<Peer>) -> Interface {
        Interface { kind, peer, ..Interface::named("x0") }
    }

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    #[test]
    fn each_class_selects_its_devices_and_no_others() {
        let (elsewhere, here) = (Some(Peer::OtherNamespace), Some(Peer::Ifindex(7)));
        let tunnel = Kind::Tunnel("vxlan".to_owned());
        for (kind, peer, expected) in [
            (Kind::Physical, None, &["physical"][..]),
            (Kind::Veth, elsewhere, &["pods", "veths"]),
            (Kind::Veth, here, &["veths"]),
            (Kind::Veth, None, &["veths"]),
            (Kind::NetkitPrimary, elsewhere, &["pods"]),
            (Kind::NetkitPrimary, here, &[]),
            (Kind::Bridge, None, &["bridges"]),
            (Kind::Bond, None, &["bonds"]),
            (Kind::Vlan, None, &["vlans"]),
            (tunnel, None, &["tunnels"]),
            (Kind::Loopback, None, &["loopback"]),
            (Kind::Other("dummy".to_owned()), None, &["dummies"]),
            (Kind::Other("netkit".to_owned()), elsewhere, &[]),
        ] {
            let interface = interface(kind, peer);
            let found = Class::ALL
                .into_iter()
                .filter(|class| selector(&class.to_string()).matches(&interface));
            let found: Vec<_> = found.map(Class::name).collect();
            assert_eq!(found, expected, "{interface:?}");
        }
    }

    #[test]
    fn names_and_kinds_are_not_confused() {
        assert_eq!(selector("kind*"), Selector::Name(Pattern::new("kind*").unwrap()));
        assert_eq!(selector("kind:pods").as_str(), "kind:pods");
        for (text, reason) in [
            ("kind:pod", "one of physical, pods, veths, bridges"),
            ("kind:", "one of physical"),
            ("kind:*", "one of physical"),
            ("Kind:pods", "no colon"),
            ("eth0:1", "no colon"),
            ("", "empty"),
            ("eth[", "shell pattern"),
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_kind_includes_only_devices_with_ethernet_headers() {
        let mut wireguard = interface(Kind::Tunnel("wireguard".to_owned()), None);
        wireguard.ethernet = false;
        assert!(selector("kind:tunnels").matches(&wireguard));
        assert!(!selector("kind:tunnels").includes(&wireguard));
        assert!(selector("x*").includes(&wireguard), "by name it is requested, and refused");
    }

    #[test]
    fn a_reset_covers_what_its_pattern_matches() {
        assert!(selector("*").covers(&selector("kind:pods")));
        assert!(selector("kind:pods").covers(&selector("kind:pods")));
        assert!(!selector("kind:pods").covers(&selector("*")));
        assert!(!selector("kind:pods").covers(&selector("eth0")));
    }
}
