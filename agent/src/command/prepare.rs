//! `tap53 prepare`: makes the agent's user the owner of a directory on the node.
//!
//! The kubelet creates a missing `hostPath` as root; the agent is not root. So an init container that
//! is root, with CAP_CHOWN and no other capability, runs this command before the agent starts.

use std::{
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;

pub(crate) const EXAMPLES: &str = "\
Examples:
  sudo tap53 prepare /var/lib/tap53 --user 65532

Nothing is changed if the user owns the directory already. A directory that neither root nor the
user owns is refused.

Exit status: 0 the user owns the directory; 1 failed; 2 invalid arguments.";

/// Mode of the directory: others cannot read the records in it.
const MODE: u32 = 0o750;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory; created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Number of the user and group that own the directory then
    #[arg(long, value_name = "UID")]
    user: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { directory, user } = arguments;
    let refused = || format!("cannot change the owner of {} to {user}", directory.display());
    fs::DirBuilder::new().recursive(true).mode(MODE).create(directory).with_context(refused)?;
    // Without opening it, which root without further capabilities may not do if the user owns it.
    let found = fs::symlink_metadata(directory).with_context(refused)?;
    if found.is_dir() && found.uid() == *user {
        return Ok(ExitCode::SUCCESS);
    }
    if found.uid() != 0 {
        bail!("{}: its owner is user {}", refused(), found.uid());
    }
    // A link could lead to any other directory of the node.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(flags).open(directory).with_context(refused)?;
    // The mode first: only the owner may change it.
    opened.set_permissions(Permissions::from_mode(MODE)).with_context(refused)?;
    fchown(&opened, Some(*user), Some(*user)).with_context(refused)?;
    Ok(ExitCode::SUCCESS)
}
