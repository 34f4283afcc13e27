//! Processor architectures, by the names that each tool has for them.

use std::env;

use anyhow::{Result, bail};

/// An architecture that tap53 is packaged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Returns the machine's own.
    ///
    /// # Errors
    /// When the machine has another one.
    pub fn of_this_machine() -> Result<Self> {
        let name = env::consts::ARCH;
        match Self::ALL.into_iter().find(|architecture| architecture.rust() == name) {
            Some(architecture) => Ok(architecture),
            None => bail!("packages are for x86_64 and aarch64, not for {name}"),
        }
    }

    /// Returns true if the machine runs its programs.
    #[must_use]
    pub fn is_native(self) -> bool {
        self.rust() == env::consts::ARCH
    }

    /// Returns the name in Rust's target triples, in RPM packages, and of QEMU's programs.
    #[must_use]
    pub const fn rust(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Returns the name in Debian packages and in OCI images, which is Go's too.
    #[must_use]
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Returns Rust's target.
    #[must_use]
    pub fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust())
    }

    /// Returns the name in Debian's directories of libraries, which is that of the GNU tools too.
    #[must_use]
    pub fn gnu(self) -> String {
        format!("{}-linux-gnu", self.rust())
    }

    /// Returns the name of a GNU tool such as `strip` that reads programs of this architecture.
    #[must_use]
    pub fn tool(self, name: &str) -> String {
        if self.is_native() { name.to_owned() } else { format!("{}-{name}", self.gnu()) }
    }
}
