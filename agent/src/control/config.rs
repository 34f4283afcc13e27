//! The `control` section: the socket at which commands reach a running agent.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, milliseconds, text, whole_number};
use tap53_records::encode::Profile;

/// Default path of the control socket.
pub const CONTROL_SOCKET: &str = "/run/tap53/control.sock";

/// The socket at which commands reach a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlConfig {
    /// Set if the agent opens the socket.
    pub enabled: bool,
    /// Absolute path of the socket.
    pub socket: PathBuf,
    /// Users who may use the socket, besides root and the agent's own.
    pub allow_uids: Vec<u32>,
    /// Time for a request to arrive, and for its answer to be read.
    #[serde(rename = "request_timeout_ms", serialize_with = "as_milliseconds")]
    pub request_timeout: Duration,
    /// Memory for recent records in bytes, from which followers can begin in the past; 0 for none. They are
    /// kept in the full profile: with the flat one, each would be encoded once more, so 0 is the default.
    pub recent_bytes: usize,
}

/// Default of `control.recent_bytes`: some 6,000 records.
const RECENT_BYTES: usize = 4 << 20;

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: CONTROL_SOCKET.into(),
            allow_uids: Vec::new(),
            request_timeout: Duration::from_secs(5),
            recent_bytes: RECENT_BYTES,
        }
    }
}

impl ControlConfig {
    pub(crate) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
        let mut default = Self::default();
        if profile == Profile::Flat {
            default.recent_bytes = 0;
        }
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(default.enabled),
            socket: section.read("socket", text(socket)).unwrap_or(default.socket),
            allow_uids: section
                .read_list("allow_uids", whole_number(0..=u32::MAX - 1))
                .unwrap_or_default(),
            request_timeout: section
                .read("request_timeout_ms", milliseconds(50..=60_000))
                .unwrap_or(default.request_timeout),
            recent_bytes: section
                .read("recent_bytes", whole_number(0..=1 << 30))
                .unwrap_or(default.recent_bytes),
        }
    }
}

fn socket(text: &str) -> Result<PathBuf, String> {
    /// `sun_path` has one byte more, for the final zero (unix(7)).
    const MAX_BYTES: usize = 107;
    let path = Path::new(text);
    if !path.is_absolute() || path.file_name().is_none() {
        Err("must be an absolute path of a file".to_owned())
    } else if text.len() > MAX_BYTES {
        Err(format!("must not be longer than {MAX_BYTES} bytes, the kernel's limit"))
    } else {
        Ok(path.to_owned())
    }
}
