//! The `interfaces` section: which interfaces to capture from.

use clap::ValueEnum;
use glob::Pattern;
use serde::{Deserialize, Serialize};
use tap53_base::settings::{Section, choice, pattern, patterns_as_text, shell_pattern};
use tap53_ebpf::settings::Direction;

/// Selects the interfaces to capture from. Exclusion takes precedence over inclusion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfacesConfig {
    /// Shell patterns of names to capture from; at least one.
    #[serde(serialize_with = "patterns_as_text")]
    pub include: Vec<Pattern>,
    /// Shell patterns of names to exclude.
    #[serde(serialize_with = "patterns_as_text")]
    pub exclude: Vec<Pattern>,
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
        let include = section.read_some("include", pattern);
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
            let mut patterns = Vec::with_capacity(flags.len());
            for text in flags {
                match shell_pattern(text) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(reason) => section.refuse_flag("--interface", text, reason),
                }
            }
            patterns
        };
        Self {
            include,
            exclude: section.read_list("exclude", pattern).unwrap_or_default(),
            directions: section.read("directions", choice).unwrap_or(Directions::Both),
        }
    }
}
