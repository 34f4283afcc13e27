//! Checks capabilities, and security features that may deny bpf(2) in spite of them.

use std::{env, fs};

use tap53_capture::capture::privilege::{
    Capability, Lockdown, NEEDED, Privileges, in_user_namespace,
};

use super::{Check, Home};

const CAPABILITIES: &str = "capabilities";
const SECURITY: &str = "security";

pub(super) fn look(home: Home) -> Vec<Check> {
    let mut checks = match Privileges::of_this_thread() {
        Some(privileges) => capabilities(&privileges, home),
        None => vec![Check::warn(
            CAPABILITIES,
            "not checked",
            "/proc/thread-self/status cannot be read",
            "mount -t proc proc /proc",
        )],
    };
    checks.extend(security());
    checks
}

fn capabilities(privileges: &Privileges, home: Home) -> Vec<Check> {
    let missing = privileges.missing();
    if missing.is_empty() {
        let names = NEEDED.map(|capability| capability.name).join(", ");
        return vec![Check::ok(CAPABILITIES, format!("{names} in force"))];
    }
    let check = |capability: Capability| {
        let Capability { name, purpose, .. } = capability;
        let (cause, fix) = cause(privileges, capability, home);
        Check::fail(CAPABILITIES, name, format!("missing, {purpose}: {cause}"), fix)
    };
    missing.into_iter().map(check).collect()
}

/// Returns why a capability is missing, and how to add it.
fn cause(privileges: &Privileges, capability: Capability, home: Home) -> (&'static str, String) {
    let pod = "securityContext: {capabilities: {add: [BPF, NET_ADMIN, PERFMON]}}".to_owned();
    if privileges.permits(capability) {
        return ("permitted but not in force", restart());
    }
    if !privileges.can_get(capability) {
        let fix = match home {
            Home::Kubernetes => pod,
            Home::Host => "systemd-run --property='AmbientCapabilities=CAP_BPF CAP_NET_ADMIN \
                           CAP_PERFMON' --pty tap53 doctor"
                .to_owned(),
        };
        return ("dropped from the bounding set by the process that started this one", fix);
    }
    if privileges.no_new_privileges {
        let fix = match home {
            Home::Kubernetes => "securityContext: {allowPrivilegeEscalation: true}".to_owned(),
            Home::Host => restart(),
        };
        return ("not permitted, and no_new_privs disables file capabilities", fix);
    }
    let fix = match home {
        // In Kubernetes, a user other than root gets capabilities only from the file.
        Home::Kubernetes => format!("RUN {}   # in the image", setcap()),
        Home::Host => format!("sudo {}   # or: sudo tap53 …", setcap()),
    };
    ("not permitted to this user", fix)
}

fn restart() -> String {
    "sudo tap53 doctor".to_owned()
}

fn setcap() -> String {
    let binary = env::current_exe().map_or("tap53".to_owned(), |path| path.display().to_string());
    format!("setcap cap_bpf,cap_net_admin,cap_perfmon=ep {binary}")
}

fn security() -> Vec<Check> {
    let mut checks = vec![lockdown(Lockdown::in_force())];
    if in_user_namespace() {
        checks.push(Check::fail(
            SECURITY,
            "user namespace",
            "capabilities are valid only inside of it, and bpf(2) needs those of the host",
            "hostUsers: true   # in the pod's spec; a container: --userns=host",
        ));
    }
    // Set by an administrator; with CAP_BPF each value is fine.
    if let Ok(text) = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled") {
        let what = format!("unprivileged_bpf_disabled={}: irrelevant with CAP_BPF", text.trim());
        checks.push(Check::ok(SECURITY, what));
    }
    // Only root can read it.
    if let Ok("0") =
        fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim)
    {
        checks.push(Check::warn(
            SECURITY,
            "bpf_jit_enable=0",
            "the kernel interprets BPF programs, at several times the cost for each packet",
            "sysctl -w net.core.bpf_jit_enable=1",
        ));
    }
    checks
}

fn lockdown(in_force: Option<Lockdown>) -> Check {
    match in_force {
        None => Check::ok(SECURITY, "no lockdown"),
        Some(Lockdown::None) => Check::ok(SECURITY, "lockdown=none"),
        Some(Lockdown::Integrity) => Check::ok(SECURITY, "lockdown=integrity: BPF is allowed"),
        Some(Lockdown::Confidentiality) => Check::warn(
            SECURITY,
            "lockdown=confidentiality",
            "the kernel protects its memory from root, and may deny bpf(2)",
            "lockdown=integrity   # on the kernel's command line",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    fn look_at(effective: &str, permitted: &str, bounding: &str, more: &str) -> Vec<Check> {
        look_from(Home::Kubernetes, effective, permitted, bounding, more)
    }

    fn look_from(
        home: Home,
        effective: &str,
        permitted: &str,
        bounding: &str,
        more: &str,
    ) -> Vec<Check> {
        let status =
            format!("CapPrm:\t{permitted}\nCapEff:\t{effective}\nCapBnd:\t{bounding}\n{more}");
        capabilities(&Privileges::parse(&status).unwrap(), home)
    }

    const ALL: &str = "000001ffffffffff";

    #[test]
    fn each_missing_capability_is_named_with_its_fix() {
        assert_eq!(look_at(ALL, ALL, ALL, "")[0].verdict, Verdict::Ok);
        // Only CAP_NET_ADMIN, and no way to get another one.
        let checks = look_at("1000", "1000", "1000", "");
        let names: Vec<_> = checks.iter().map(|check| check.what.as_str()).collect();
        assert_eq!(names, ["CAP_BPF", "CAP_PERFMON"]);
        assert!(checks[0].wrong.as_deref().unwrap().contains("bounding set"));
        assert!(checks[0].fix.as_deref().unwrap().contains("add: [BPF, NET_ADMIN, PERFMON]"));

        let fix = |checks: Vec<Check>| checks[0].fix.clone().unwrap();
        assert!(fix(look_at("0", "0", ALL, "")).starts_with("RUN setcap"));
        let escalation = "securityContext: {allowPrivilegeEscalation: true}";
        assert_eq!(fix(look_at("0", "0", ALL, "NoNewPrivs:\t1\n")), escalation);
        assert!(fix(look_from(Home::Host, "0", "0", ALL, "")).starts_with("sudo setcap"));
        assert_eq!(fix(look_from(Home::Host, "0", ALL, ALL, "")), "sudo tap53 doctor");
        assert!(fix(look_from(Home::Host, "0", "0", "0", "")).contains("AmbientCapabilities"));
    }

    #[test]
    fn only_the_strictest_lockdown_is_a_warning() {
        for level in [None, Some(Lockdown::None), Some(Lockdown::Integrity)] {
            assert_eq!(lockdown(level).verdict, Verdict::Ok);
        }
        let strictest = lockdown(Some(Lockdown::Confidentiality));
        assert_eq!(strictest.verdict, Verdict::Warn);
        assert!(strictest.fix.unwrap().starts_with("lockdown=integrity"));
    }
}
