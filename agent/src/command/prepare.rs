//! `tap53 prepare`: a directory of the node becomes the agent's.
//!
//! The kubelet makes a `hostPath` that is missing, and makes it root's; the agent is not root. So a
//! container that is, with CAP_CHOWN and no other capability, runs this before the agent starts.

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

Nothing is changed where the directory is the user's already, and a directory of anybody else than
root is refused.

Exit status: 0 the directory is the user's; 1 it is not; 2 arguments refused.";

/// Not for everybody: what is in there says who asked what.
const MODE: u32 = 0o750;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory; made if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Whose it is to be, user and group by number
    #[arg(long, value_name = "UID")]
    user: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { directory, user } = arguments;
    let refused = || format!("cannot give {} to user {user}", directory.display());
    fs::DirBuilder::new().recursive(true).mode(MODE).create(directory).with_context(refused)?;
    // Without opening it, which root without further capabilities may not do to the user's.
    let found = fs::symlink_metadata(directory).with_context(refused)?;
    if found.is_dir() && found.uid() == *user {
        return Ok(ExitCode::SUCCESS);
    }
    if found.uid() != 0 {
        bail!("{}: it belongs to user {}", refused(), found.uid());
    }
    // What is a link could be one to elsewhere on the node.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(flags).open(directory).with_context(refused)?;
    // The mode first: who has given it away may not change it.
    opened.set_permissions(Permissions::from_mode(MODE)).with_context(refused)?;
    fchown(&opened, Some(*user), Some(*user)).with_context(refused)?;
    Ok(ExitCode::SUCCESS)
}
