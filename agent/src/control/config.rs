//! The `control` section: the socket that commands reach a running agent by.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tap53_base::settings::{Section, as_milliseconds, boolean, milliseconds, text, whole_number};

/// Where commands look for an agent, and where an agent listens, unless told otherwise.
pub const CONTROL_SOCKET: &str = "/run/tap53/control.sock";

/// The socket that commands reach a running agent by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Its path, absolute.
    pub socket: PathBuf,
    /// Users who may use it, besides root and the agent's own.
    pub allow_uids: Vec<u32>,
    /// How long a request may take to arrive, and its answer to be read.
    #[serde(rename = "request_timeout_ms", serialize_with = "as_milliseconds")]
    pub request_timeout: Duration,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: CONTROL_SOCKET.into(),
            allow_uids: Vec::new(),
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl ControlConfig {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(default.enabled),
            socket: section.read("socket", text(socket)).unwrap_or(default.socket),
            allow_uids: section
                .read_list("allow_uids", whole_number(0..=u32::MAX - 1))
                .unwrap_or_default(),
            request_timeout: section
                .read("request_timeout_ms", milliseconds(50..=60_000))
                .unwrap_or(default.request_timeout),
        }
    }
}

fn socket(text: &str) -> Result<PathBuf, String> {
    /// `sun_path` holds one more, for the zero that ends it (unix(7)).
    const MAX_BYTES: usize = 107;
    let path = Path::new(text);
    if !path.is_absolute() || path.file_name().is_none() {
        Err("must be an absolute path of a file".to_owned())
    } else if text.len() > MAX_BYTES {
        Err(format!("must not be longer than {MAX_BYTES} bytes: the kernel takes no more"))
    } else {
        Ok(path.to_owned())
    }
}
