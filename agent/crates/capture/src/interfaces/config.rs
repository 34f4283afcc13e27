//! The `interfaces` section: which interfaces to capture from.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tap53_base::settings::{Section, choice};
use tap53_ebpf::settings::Direction;

use super::Selector;

/// Selects the interfaces to capture from. Exclusion takes precedence over inclusion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfacesConfig {
    /// Names and kinds to capture from; at least one.
    pub include: Vec<Selector>,
    /// Names and kinds to exclude.
    pub exclude: Vec<Selector>,
    /// Directions to capture.
    pub directions: Directions,
}

/// Directions to capture on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Directions {
    /// Arriving packets.
    Ingress,
    /// Departing packets.
    Egress,
    /// Both directions.
    Both,
}

impl Directions {
    /// Returns the name, the same in the configuration, in JSON and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Both => "both",
        }
    }

    /// Returns true if `direction` is included.
    #[must_use]
    pub const fn contains(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (Self::Both, _)
                | (Self::Ingress, Direction::Ingress)
                | (Self::Egress, Direction::Egress)
        )
    }

    /// Returns bits for [`InterfaceSettings::directions`](tap53_ebpf::settings::InterfaceSettings).
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Ingress => 1 << Direction::Ingress as u32,
            Self::Egress => 1 << Direction::Egress as u32,
            Self::Both => 1 << Direction::Ingress as u32 | 1 << Direction::Egress as u32,
        }
    }
}

impl InterfacesConfig {
    /// Reads the section; `flags` are the values of `--interface`, which replace `include`.
    pub fn read(section: &mut Section<'_>, flags: &[String]) -> Self {
        let has_include = section.has("include");
        let include = section.read_some("include", Selector::read);
        let include = if flags.is_empty() {
            if !has_include {
                section.refuse(
                    "include",
                    None,
                    "missing: name the interfaces to capture from, here or with --interface",
                );
            }
            include.unwrap_or_default()
        } else {
            let mut selectors = Vec::with_capacity(flags.len());
            for text in flags {
                match Selector::parse(text) {
                    Ok(selector) => selectors.push(selector),
                    Err(reason) => section.refuse_flag("--interface", text, reason),
                }
            }
            selectors
        };
        Self {
            include,
            exclude: section.read_list("exclude", Selector::read).unwrap_or_default(),
            directions: section.read("directions", choice).unwrap_or(Directions::Both),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_has_one_name_everywhere() {
        for directions in Directions::value_variants() {
            let json = serde_json::to_value(directions).unwrap();
            assert_eq!(json, directions.name());
            assert_eq!(Directions::from_str(directions.name(), false), Ok(*directions));
        }
    }
}
