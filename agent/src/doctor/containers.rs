//! Checks that the cgroups of containers can be followed.

use tap53_attribution::{Hierarchy, find_tree};

use super::{Check, Home};
use crate::config::Config;

const AREA: &str = "containers";

pub(super) fn look(config: &Config, home: Home) -> Check {
    let containers = &config.containers;
    if !containers.enabled {
        return Check::ok(AREA, "disabled; records do not name containers");
    }
    let what = format!("cgroups in {}", containers.cgroup_root.display());
    match find_tree(&containers.cgroup_root) {
        Ok((tree, hierarchy)) => {
            let what = format!("cgroups in {}", tree.display());
            match (hierarchy, home) {
                (Hierarchy::Unified, _) => Check::ok(AREA, what),
                // Nothing says whether containers on such a host are in version 2.
                (Hierarchy::Hybrid, Home::Host) => {
                    Check::ok(AREA, format!("{what}, beside version 1"))
                }
                (Hierarchy::Hybrid, Home::Kubernetes) => Check::warn(
                    AREA,
                    what,
                    "this node also has cgroups of version 1: pods are named by address alone if the \
                     kubelet manages them there",
                    "systemd.unified_cgroup_hierarchy=1   # on the kernel's command line",
                ),
            }
        }
        Err(wrong) => Check::warn(AREA, what, wrong, fix(home)),
    }
}

fn fix(home: Home) -> &'static str {
    match home {
        Home::Kubernetes => {
            "containers: {cgroup_root: /host/sys/fs/cgroup}   # with the host's /sys/fs/cgroup \
             mounted there"
        }
        Home::Host => "containers: {enabled: false}   # or cgroup_root: where cgroup2 is mounted",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{config::Overrides, verdict::Verdict};

    #[test]
    fn a_directory_without_the_hosts_tree_is_a_warning_with_its_remedy() {
        let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
        let mut config = Config::load(None, &overrides).unwrap();
        let directory = tempfile::tempdir().unwrap();
        config.containers.cgroup_root = directory.path().to_owned();
        let missing = look(&config, Home::Kubernetes);
        assert_eq!(missing.verdict, Verdict::Warn);
        assert!(missing.fix.unwrap().contains("/host/sys/fs/cgroup"));
        assert!(look(&config, Home::Host).fix.unwrap().contains("enabled: false"));

        fs::write(directory.path().join("cgroup.controllers"), "").unwrap();
        let found = look(&config, Home::Host);
        assert_eq!(found.verdict, Verdict::Ok);
        assert!(found.what.contains(directory.path().to_str().unwrap()), "{found}");
        config.containers.enabled = false;
        assert_eq!(look(&config, Home::Host).verdict, Verdict::Ok);
    }
}
