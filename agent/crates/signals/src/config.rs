//! The `signals` section.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tap53_base::settings::{Section, as_seconds, boolean, seconds, text, whole_number};

/// Name of the state file in the state directory.
const STATE_FILE: &str = "domains";

/// Services whose protocol sends data in names by design, by the documentation of their vendors.
const LOOKUP_SERVICES: [&str; 4] = ["avqs.mcafee.com", "avts.mcafee.com", "e5.sk", "sophosxl.net"];

/// Zones whose public names have private addresses by design: databases, clusters and private endpoints
/// of clouds, and media servers.
const PRIVATE_ZONES: [&str; 5] =
    ["amazonaws.com", "azmk8s.io", "azure.com", "plex.direct", "windows.net"];

/// Configures the signals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignalsConfig {
    /// True if the agent looks for signals, and records contain them.
    pub enabled: bool,
    /// True if domains that are seen first are marked.
    pub new_domains: bool,
    /// True if tunnels are marked.
    pub tunnels: bool,
    /// True if bursts of domains that do not exist are marked.
    pub dga: bool,
    /// True if private addresses of public names are marked.
    pub rebinding: bool,
    /// Time from the creation of the state in which every domain is new, and none is marked.
    #[serde(rename = "learning_seconds", serialize_with = "as_seconds")]
    pub learning: Duration,
    /// Suffixes of your own names, such as search domains: they may have private addresses, and long
    /// names below them are no tunnel.
    pub internal_suffixes: Vec<String>,
    /// Suffixes of services that send data in names by design: no tunnels.
    pub lookup_services: Vec<String>,
    /// Suffixes of public names that may have private addresses.
    pub private_zones: Vec<String>,
    /// Maximum memory of all signals and workers, in MiB.
    pub max_memory_mib: u32,
    /// The file in which domains survive the end of the agent; `None` if they do not.
    #[serde(skip)]
    pub state: Option<PathBuf>,
}

impl Default for SignalsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            new_domains: true,
            tunnels: true,
            dga: true,
            rebinding: true,
            learning: Duration::from_secs(86_400),
            internal_suffixes: Vec::new(),
            lookup_services: LOOKUP_SERVICES.map(str::to_owned).to_vec(),
            private_zones: PRIVATE_ZONES.map(str::to_owned).to_vec(),
            max_memory_mib: 16,
            state: None,
        }
    }
}

impl SignalsConfig {
    /// Reads the section. The state is a file in the state directory, if there is one.
    pub fn read(section: &mut Section<'_>, state_directory: Option<&std::path::Path>) -> Self {
        let usual = Self::default();
        let mut flag = |key, usual| section.read(key, boolean).unwrap_or(usual);
        let [enabled, new_domains, tunnels, dga, rebinding] = [
            flag("enabled", usual.enabled),
            flag("new_domains", usual.new_domains),
            flag("tunnels", usual.tunnels),
            flag("dga", usual.dga),
            flag("rebinding", usual.rebinding),
        ];
        let mut suffixes = |key, usual| section.read_list(key, text(suffix)).unwrap_or(usual);
        let [internal_suffixes, lookup_services, private_zones] = [
            suffixes("internal_suffixes", usual.internal_suffixes),
            suffixes("lookup_services", usual.lookup_services),
            suffixes("private_zones", usual.private_zones),
        ];
        Self {
            enabled,
            new_domains,
            tunnels,
            dga,
            rebinding,
            learning: section
                .read("learning_seconds", seconds(0..=31_536_000))
                .unwrap_or(usual.learning),
            internal_suffixes,
            lookup_services,
            private_zones,
            max_memory_mib: section
                .read("max_memory_mib", whole_number(4..=256))
                .unwrap_or(usual.max_memory_mib),
            state: state_directory.map(|directory| directory.join(STATE_FILE)),
        }
    }
}

/// Accepts a suffix of names, and returns it as names are in records: in lower case, without dots at its
/// ends.
fn suffix(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    if name.starts_with("*.") || name.starts_with('.') {
        Err("must begin with a label: names below are meant anyway".to_owned())
    } else if !name.is_ascii() {
        Err("must be ASCII: write internationalized labels as xn--…".to_owned())
    } else if name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_plain)) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err("must be a domain name, such as corp.example.com".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::suffix;

    #[test]
    fn suffixes_are_names_in_lower_case() {
        assert_eq!(suffix("Corp.Example.COM."), Ok("corp.example.com".to_owned()));
        for (text, reason) in [
            ("*.example.com", "names below"),
            (".example.com", "names below"),
            ("a..b", "domain name"),
            ("", "domain name"),
            ("a b", "domain name"),
            ("bücher.example", "xn--"),
        ] {
            assert!(suffix(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
