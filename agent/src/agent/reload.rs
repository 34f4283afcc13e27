//! Reloads the configuration file when it changes: as a whole or not at all.
//!
//! The directory is watched, not the file: editors write another file and rename it, and a
//! ConfigMap's files are links into a directory `..data`, which is itself a link that is exchanged.
//! If the file is a link, the directory of its target is watched too.
//!
//! `interfaces`, `filter`, `record.keep`, `privacy` and `log.level` can change while the agent runs. Other keys that
//! differ need a restart, and are named. Flags override the file as they did at the start.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use serde_json::Value;
use tap53_base::vitals::AUDIT;

use crate::{
    config::{Config, Overrides},
    control::ConfigStatus,
};

/// The configuration file, its last content, and the configuration in force.
pub struct ConfigFile {
    path: Option<PathBuf>,
    overrides: Overrides,
    in_force: Config,
    status: ConfigStatus,
}

/// Sections that a reload has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) interfaces: bool,
    pub(super) rules: bool,
    pub(super) log_level: bool,
}

impl ConfigFile {
    /// Reads and checks the configuration at the start.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, crate::config::Error> {
        let in_force = Config::load(path, &overrides)?;
        let status = ConfigStatus {
            // For commands with another working directory.
            file: path
                .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
                .map(|path| path.display().to_string()),
            loaded_at: now_text(),
            ..ConfigStatus::default()
        };
        Ok(Self { path: path.map(Path::to_owned), overrides, in_force, status })
    }

    /// Returns the configuration in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.in_force
    }

    /// Returns true if there is a file.
    pub(super) const fn is_there(&self) -> bool {
        self.path.is_some()
    }

    pub(super) const fn status(&self) -> &ConfigStatus {
        &self.status
    }

    /// Watches the file for changes; `None` if there is none or it cannot be watched.
    pub(super) fn watch(&self) -> Option<FileWatch> {
        let path = self.path.as_deref()?;
        FileWatch::open(path)
            .inspect_err(|error| {
                let path = path.display();
                tracing::warn!(
                    event = "config_watch_failed",
                    %path,
                    %error,
                    "cannot watch the configuration file: send SIGHUP after a change"
                );
            })
            .ok()
    }

    /// Reads the file again. An invalid file changes nothing, and is logged once.
    pub(super) fn reload(&mut self) -> Changed {
        let Some(path) = self.path.clone() else { return Changed::default() };
        let read = match Config::load(Some(&path), &self.overrides) {
            Ok(read) => read,
            Err(error) => {
                let error = error.to_string();
                if self.status.error.as_deref() != Some(&error) {
                    // One line, however many mistakes.
                    tracing::error!(
                        event = "config_invalid",
                        "configuration not changed: {}",
                        error.replace('\n', "; ")
                    );
                    self.status.reloads_refused += 1;
                }
                self.status.error = Some(error);
                return Changed::default();
            }
        };
        let recovered = self.status.error.take().is_some();
        let changed = self.apply(&read);
        let restart_needed = differences(&self.in_force, &read);
        if changed != Changed::default()
            || recovered
            || restart_needed != self.status.restart_needed
        {
            self.status.loaded_at = now_text();
            self.status.reloads += 1;
            tracing::info!(
                target: AUDIT,
                event = "config_reloaded",
                file = %path.display(),
                interfaces = changed.interfaces,
                filter_and_privacy = changed.rules,
                log_level = changed.log_level,
                "audit: configuration file reloaded"
            );
            if !restart_needed.is_empty() {
                let keys = restart_needed.join(", ");
                tracing::warn!(
                    event = "restart_needed",
                    keys,
                    "changed keys take effect after a restart"
                );
            }
        }
        self.status.restart_needed = restart_needed;
        changed
    }

    /// Puts those sections in force that can change while the agent runs.
    fn apply(&mut self, read: &Config) -> Changed {
        let force = &mut self.in_force;
        let interfaces = force.interfaces != read.interfaces;
        let log_level = force.log.level != read.log.level;
        // Messages as sent would show what the new rules hide, until a restart ends them too.
        let shows_all = force.record.wire_bytes && !read.privacy.keeps_everything();
        let privacy = force.privacy != read.privacy && !shows_all;
        let selection = (force.filter != read.filter || force.record.keep != read.record.keep)
            && knows_pods_of(force, read);
        let rules = selection || privacy;
        force.interfaces.clone_from(&read.interfaces);
        force.log.level = read.log.level;
        if selection {
            force.filter.clone_from(&read.filter);
            force.record.keep.clone_from(&read.record.keep);
        }
        if privacy {
            force.privacy.clone_from(&read.privacy);
        }
        Changed { interfaces, rules, log_level }
    }
}

/// Returns true if pods are known, with the labels that they will be known with after a restart, or if the new
/// rules do not depend on pods. A rule that denies a label that is not known would let all pods pass.
fn knows_pods_of(force: &Config, read: &Config) -> bool {
    let selects_pods = !read.filter.pods.is_empty() || !read.record.keep.rules.is_empty();
    let (known, wanted) = (&force.kubernetes, &read.kubernetes);
    !selects_pods || known.enabled == wanted.enabled && known.labels == wanted.labels
}

/// Returns the keys whose values differ, with the sections before them; a list is one value.
fn differences(one: &Config, other: &Config) -> Vec<String> {
    let mut keys = BTreeSet::new();
    match (serde_json::to_value(one), serde_json::to_value(other)) {
        (Ok(one), Ok(other)) => differ("", &one, &other, &mut keys),
        // Unreachable: a configuration is always valid JSON.
        _ => drop(keys.insert("?".to_owned())),
    }
    keys.into_iter().collect()
}

fn differ(path: &str, one: &Value, other: &Value, keys: &mut BTreeSet<String>) {
    let (Value::Object(ones), Value::Object(others)) = (one, other) else {
        if one != other {
            keys.insert(path.to_owned());
        }
        return;
    };
    for key in ones.keys().chain(others.keys()) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        differ(&path, &of(ones), &of(others), keys);
    }
}

fn now_text() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// Watches the directories of a file; its descriptor is readable when one of them has changed.
#[derive(Debug)]
pub(super) struct FileWatch {
    inotify: Inotify,
    path: PathBuf,
}

impl FileWatch {
    fn open(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let watch = Self { inotify, path: path.to_owned() };
        watch.add(directory_of(path))?;
        watch.follow_links();
        Ok(watch)
    }

    /// Discards the events so far, and watches also the directory that links lead to now.
    pub(super) fn clear(&self) {
        while let Ok(_) | Err(Errno::EINTR) = self.inotify.read_events() {}
        self.follow_links();
    }

    /// Watches the directory of the file that links lead to. inotify watches a directory once.
    fn follow_links(&self) {
        if let Ok(path) = fs::canonicalize(&self.path)
            && let Err(error) = self.add(directory_of(&path))
        {
            tracing::debug!(
                event = "config_link_not_watched",
                %error,
                path = %path.display(),
                "cannot watch the directory that a link leads to"
            );
        }
    }

    fn add(&self, directory: &Path) -> Result<(), Errno> {
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        self.inotify.add_watch(directory, events).map(drop)
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl AsRawFd for FileWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "interfaces: {include: [eth0]}\n";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf, ConfigFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tap53.yaml");
        fs::write(&path, text).unwrap();
        let file = ConfigFile::load(Some(&path), Overrides::default()).unwrap();
        (directory, path, file)
    }

    #[test]
    fn reloadable_sections_are_applied_and_the_other_keys_are_named() {
        let (_directory, path, mut file) = file(BASE);
        assert_eq!(file.reload(), Changed::default(), "nothing changed");
        let text = "interfaces: {include: [eth1]}\nlog: {level: debug}\n\
                    filter: {qtypes: {deny: [ANY]}}\ncapture: {ports: [53, 5353], workers: 3}\n\
                    pair: {timeout_ms: 1}\nsinks: [{type: stdout, format: json}]\n";
        fs::write(&path, text).unwrap();
        let changed = file.reload();
        assert_eq!(changed, Changed { interfaces: true, rules: true, log_level: true });
        assert_eq!(file.config().interfaces.include[0].as_str(), "eth1");
        assert_eq!(file.config().capture.ports, [53], "still");
        let keys = ["capture.ports", "capture.workers", "pair.timeout_ms", "sinks"];
        assert_eq!(file.status().restart_needed, keys);
        fs::write(&path, BASE).unwrap();
        assert!(file.reload().interfaces);
        assert_eq!(file.status().restart_needed, [""; 0], "it is as it was");
    }

    #[test]
    fn an_invalid_file_changes_nothing_and_is_reported_until_it_is_corrected() {
        let (_directory, path, mut file) = file(BASE);
        let before = file.config().clone();
        for text in ["interfaces: {include: [eth1]}\nlog: {level: loud}\n", "interfaces: [eth1\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.reload(), Changed::default());
            assert_eq!(file.config(), &before);
            assert!(file.status().error.is_some());
        }
        fs::remove_file(&path).unwrap();
        file.reload();
        file.reload();
        assert!(file.status().error.as_ref().unwrap().contains("cannot be read"));
        fs::write(&path, BASE).unwrap();
        assert_eq!(file.reload(), Changed::default());
        assert_eq!(file.status().error, None);
        file.reload();
        // Each change once, however often it was looked at: three refused, and the return.
        assert_eq!((file.status().reloads_refused, file.status().reloads), (3, 1));
    }

    #[test]
    fn what_is_kept_changes_at_once_unless_it_needs_labels_that_are_not_known() {
        let pods = |labels: &str| format!("{BASE}kubernetes: {{labels: [{labels}]}}\n");
        let (_directory, path, mut file) = file(&pods("app"));
        let keep = |share: &str, label: &str| {
            format!(
                "filter: {{pod_labels: {{deny: [{label}]}}}}\nrecord: {{keep: {{share: {share}}}}}\n"
            )
        };
        fs::write(&path, pods("app") + &keep("0.5", "app")).unwrap();
        assert!(file.reload().rules);
        assert!(!file.config().record.keep.keeps_everything());
        assert_eq!(file.status().restart_needed, [""; 0]);
        // A label that the agent does not keep would match no pod.
        fs::write(&path, pods("app, tier") + &keep("1", "tier")).unwrap();
        assert!(!file.reload().rules);
        assert!(!file.config().record.keep.keeps_everything());
        let needed = &file.status().restart_needed;
        for key in ["filter.pod_labels.deny", "kubernetes.labels", "record.keep.share"] {
            assert!(needed.iter().any(|needed| needed == key), "{key}: {needed:?}");
        }
    }

    #[test]
    fn privacy_rules_wait_for_a_restart_while_wire_bytes_would_reveal_hidden_values() {
        let (_directory, path, mut file) = file(&format!("{BASE}record: {{wire_bytes: true}}\n"));
        fs::write(&path, format!("{BASE}privacy: {{client_address: drop}}\n")).unwrap();
        assert!(!file.reload().rules);
        assert!(file.config().privacy.keeps_everything());
        let needed = &file.status().restart_needed;
        for key in ["privacy.client_address", "record.wire_bytes"] {
            assert!(needed.iter().any(|needed| needed == key), "{key}: {needed:?}");
        }
    }

    #[test]
    fn flags_override_every_version_of_the_file() {
        let (_directory, path, _) = file(BASE);
        let overrides = Overrides { interfaces: vec!["lo".to_owned()], ..Overrides::default() };
        let mut file = ConfigFile::load(Some(&path), overrides).unwrap();
        fs::write(&path, "interfaces: {include: [eth1], exclude: [lo0]}\n").unwrap();
        assert!(file.reload().interfaces);
        assert_eq!(file.config().interfaces.include[0].as_str(), "lo");
        assert_eq!(file.config().interfaces.exclude[0].as_str(), "lo0");
    }
}
