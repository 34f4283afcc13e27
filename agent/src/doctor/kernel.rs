//! Checks kernel features by trying them.

use std::{io, path::Path};

use nix::sys::utsname::uname;
use tap53_capture::capture::{
    Error,
    privilege::{Privileges, limits_locked_memory},
    probe::{has_tcx, load_programs, wait_for_running_programs},
};

use super::{Check, Home};
use crate::config::{CaptureConfig, Config, HookChoice, Overrides, TcChoice};

const AREA: &str = "kernel";

/// The command for a newer kernel.
const NEWER_KERNEL: &str = if cfg!(target_arch = "aarch64") {
    "apt install linux-image-arm64   # 5.10 or newer; then report this line"
} else {
    "apt install linux-image-amd64   # 5.10 or newer; then report this line"
};

/// The kernel's type information.
const BTF: &str = "/sys/kernel/btf/vmlinux";

pub(super) fn look(config: Option<&Config>, home: Home) -> Vec<Check> {
    let default = || {
        let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
        Config::load(None, &overrides).ok().map(|config| config.capture)
    };
    let mut checks = Vec::new();
    if let Some(capture) = config.map(|config| config.capture.clone()).or_else(default) {
        checks.push(programs(&load_programs(&capture), capture.hook, home));
        checks.push(tcx(&has_tcx(), &capture));
    }
    checks.push(btf(Path::new(BTF)));
    checks.push(waiting(&wait_for_running_programs()));
    checks
}

fn release() -> String {
    uname().map_or("unknown".to_owned(), |name| name.release().to_string_lossy().into_owned())
}

/// Checks everything that the programs need: ring buffers, maps in maps, the helpers, the verifier.
///
/// The `hook` is that of the configuration; loading returns whether the kernel accepts XDP programs.
fn programs(tried: &Result<bool, Error>, hook: HookChoice, home: Home) -> Check {
    let release = release();
    let what = "programs and ring buffers".to_owned();
    match tried {
        Ok(false) if hook != HookChoice::Tc => Check::ok(
            AREA,
            format!("{release}: {what} load, for TC alone: it accepts no XDP program"),
        ),
        Ok(_) => Check::ok(AREA, format!("{release}: {what} load")),
        Err(error @ Error::NoXdp { .. }) => {
            Check::fail(AREA, what, format!("kernel {release}: {error}"), "capture: {hook: tc}")
        }
        Err(error @ Error::NotPermitted { .. }) => {
            let privileges = Privileges::of_this_thread();
            if privileges.is_none_or(|found| !found.missing().is_empty()) {
                let fix = "sudo tap53 doctor   # add the capabilities above first";
                return Check::warn(AREA, what, format!("could not be tried: {error}"), fix);
            }
            let filtered = privileges.is_some_and(|found| found.seccomp_filter);
            let (why, fix) = match (filtered, home) {
                (true, Home::Kubernetes) => (
                    "a seccomp filter is in force, which may deny bpf(2)",
                    "securityContext: {seccompProfile: {type: RuntimeDefault}}   # or Unconfined",
                ),
                (true, Home::Host) => (
                    "a seccomp filter is in force, which may deny bpf(2)",
                    "SystemCallFilter=bpf   # in the unit; a container: --security-opt seccomp=unconfined",
                ),
                (false, _) if limits_locked_memory() => (
                    "no seccomp filter is in force: a security module (LSM) denies it, or, before \
                     kernel 5.11, the limit of locked memory",
                    "LimitMEMLOCK=infinity   # in the unit; or as root: ulimit -l unlimited",
                ),
                (false, _) => (
                    "no seccomp filter is in force: a security module (LSM) denies it",
                    "dmesg | grep -iE 'avc|apparmor|bpf'",
                ),
            };
            Check::fail(AREA, what, format!("{error}; {why}"), fix)
        }
        Err(error) => Check::fail(AREA, what, format!("kernel {release}: {error}"), NEWER_KERNEL),
    }
}

fn tcx(tried: &io::Result<bool>, capture: &CaptureConfig) -> Check {
    match (tried, capture.tc) {
        (Ok(true), _) => Check::ok(AREA, "TCX"),
        (Ok(false), TcChoice::Tcx) => Check::fail(
            AREA,
            "TCX",
            "this kernel has none (6.6 has), and capture.tc requires it",
            "capture: {tc: auto}",
        ),
        (Ok(false), _) => Check::ok(AREA, "no TCX (6.6 has it): clsact filters are used"),
        (Err(error), _) => Check::warn(
            AREA,
            "TCX",
            format!("could not be tried: {error}"),
            "sudo tap53 doctor   # this needs CAP_NET_ADMIN",
        ),
    }
}

fn btf(path: &Path) -> Check {
    if path.exists() {
        return Check::ok(AREA, "BTF");
    }
    Check::warn(
        AREA,
        "BTF",
        format!(
            "no {}: tap53 does not need it, but bpftool and other agents lack types",
            path.display()
        ),
        "mount -t sysfs sysfs /sys   # or a kernel with CONFIG_DEBUG_INFO_BTF=y",
    )
}

fn waiting(tried: &io::Result<()>) -> Check {
    match tried {
        Ok(()) => Check::ok(AREA, "membarrier: the last counts are exact"),
        Err(error) => Check::warn(
            AREA,
            "membarrier",
            format!(
                "refused: {error}; the last packets before the stop may be missing from the ledger"
            ),
            "a kernel without nohz_full CPUs, and a seccomp profile that allows membarrier",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    fn capture(tc: TcChoice) -> CaptureConfig {
        let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
        let config = Config::load(None, &overrides).unwrap();
        CaptureConfig { tc, ..config.capture }
    }

    #[test]
    fn a_kernel_without_tcx_fails_only_if_it_is_required() {
        let verdict = |tried: io::Result<bool>, tc| tcx(&tried, &capture(tc)).verdict;
        assert_eq!(verdict(Ok(true), TcChoice::Tcx), Verdict::Ok);
        assert_eq!(verdict(Ok(false), TcChoice::Auto), Verdict::Ok);
        assert_eq!(verdict(Ok(false), TcChoice::Tcx), Verdict::Fail);
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(verdict(Err(denied), TcChoice::Auto), Verdict::Warn);
    }

    #[test]
    fn a_program_that_the_verifier_rejects_is_a_failure() {
        let refused = Error::Verifier {
            program: "tap53_xdp".to_owned(),
            reason: "R2 invalid mem access".to_owned(),
            cause: io::Error::from_raw_os_error(libc::EACCES),
        };
        let check = programs(&Err(refused), HookChoice::Auto, Home::Host);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.wrong.unwrap().contains("R2 invalid mem access"));
        assert_eq!(btf(Path::new("/nonexistent")).verdict, Verdict::Warn);
    }

    #[test]
    fn a_kernel_that_accepts_no_xdp_program_fails_only_if_xdp_is_asked_for() {
        let refused = || Err(Error::NoXdp { reason: "unknown func".to_owned() });
        let check = programs(&refused(), HookChoice::Xdp, Home::Host);
        assert_eq!(check.verdict, Verdict::Fail);
        assert_eq!(check.fix.unwrap(), "capture: {hook: tc}");
        for (loads, hook, is_named) in [
            (false, HookChoice::Auto, true),
            (false, HookChoice::Tc, false),
            (true, HookChoice::Auto, false),
        ] {
            let check = programs(&Ok(loads), hook, Home::Host);
            assert_eq!(check.verdict, Verdict::Ok);
            assert_eq!(check.what.contains("no XDP program"), is_named, "{}", check.what);
        }
    }
}
