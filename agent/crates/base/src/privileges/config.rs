//! The `privileges` section.

use serde::{Serialize, Serializer};

use crate::settings::{Section, Value, boolean, label};

/// Configures the privileges that the agent drops once it has started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PrivilegesConfig {
    /// User to become if the agent is started as root; unset, it stays the user that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<RunAs>,
    /// True if every thread keeps all privileges.
    pub keep: bool,
}

/// The user and groups to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// A user name, with its groups in the system's user database.
    Name(String),
    /// Numbers, which need no user database.
    Number {
        /// User ID.
        uid: u32,
        /// Group ID, the only group; equals the user ID unless configured.
        gid: u32,
    },
}

impl Serialize for RunAs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number { uid, gid } => serializer.collect_str(&format_args!("{uid}:{gid}")),
        }
    }
}

impl PrivilegesConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            user: section.read("user", run_as),
            keep: section.read("keep", boolean).unwrap_or(false),
        }
    }
}

fn run_as(value: &Value) -> Result<RunAs, String> {
    const EXPECTED: &str = "must be a user's name, its number, or \"USER:GROUP\" in numbers";
    let number = |text: &str| text.parse::<u32>().map_err(|_| EXPECTED.to_owned());
    match value {
        Value::Integer(uid) => {
            let uid = u32::try_from(*uid).map_err(|_| EXPECTED.to_owned())?;
            Ok(RunAs::Number { uid, gid: uid })
        }
        Value::Text(text) => match text.split_once(':') {
            Some((uid, gid)) => Ok(RunAs::Number { uid: number(uid)?, gid: number(gid)? }),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
                let uid = number(text)?;
                Ok(RunAs::Number { uid, gid: uid })
            }
            None => label(text).map(RunAs::Name),
        },
        _ => Err(EXPECTED.to_owned()),
    }
}
