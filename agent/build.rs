//! Passes the revision of the sources to the compiler, as `TAP53_REVISION`.
//!
//! Packagers that build outside of a git checkout set that environment variable. Without it, and
//! without git, the revision is `unknown`, and nothing fails.

use std::{env, path::Path, process::Command};

const VARIABLE: &str = "TAP53_REVISION";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let given = env::var(VARIABLE).ok().filter(|revision| is_revision(revision));
    let revision = given.or_else(of_checkout).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={VARIABLE}={revision}");
}

/// Returns the commit that is checked out, and has the build repeated after the next one.
fn of_checkout() -> Option<String> {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // Another project's repository may contain a copy of these sources without tracking them.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|text| is_revision(text))
}

fn is_revision(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain)
}

/// Returns the output of a git command; `None` if there is no git, or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
