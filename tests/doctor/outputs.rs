//! Directories that cannot be written to.

use super::*;

#[test]
fn a_directory_that_cannot_be_written_to_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let out = machine.path("out");
    let out_text = text(&out)?;
    let config =
        machine.configure(&format!("sinks:\n  - {{type: file, directory: {out_text}}}\n"))?;
    let doctor = |before: &str, privileges: &[&str]| {
        let arguments = &["--config", &config];
        machine.doctor(&Start { before, privileges, arguments, ..Start::default() })
    };

    let found = doctor("", &[])?;
    found.require(
        "fail",
        "config",
        &["tap53.yaml", "sinks[0].directory", "No such file"],
        &[&format!("install -d -m 0750 {out_text}")],
    )?;
    found.check("warn", "config", &["not checked"])?;

    fs::create_dir(&out)?;
    let found = doctor(&format!("mount -t tmpfs -o ro none {out_text}"), &[])?;
    found.require("fail", "outputs", &["sinks[0]", "Read-only"], &["remount,rw", &out_text])?;

    let full = format!(
        "mount -t tmpfs -o size=64k none {out_text}\n\
         dd if=/dev/zero of={out_text}/filler bs=4k count=16 status=none"
    );
    let found = doctor(&full, &[])?;
    found.require("fail", "outputs", &["sinks[0]", "No space left"], &["df -h", &out_text])?;

    let found = doctor(&format!("mount -t tmpfs -o size=1m none {out_text}"), &[])?;
    found.require("warn", "outputs", &["less than one file"], &["rotate_bytes"])?;
    assert_eq!(found.code, FINE, "{found}");

    fs::set_permissions(&out, fs::Permissions::from_mode(0o755))?;
    let needed = "-all,+bpf,+net_admin,+perfmon";
    let privileges = [
        &format!("--reuid={NOBODY}"),
        "--clear-groups",
        &format!("--inh-caps={needed}"),
        &format!("--ambient-caps={needed}"),
    ];
    let found = doctor("", &privileges)?;
    let chown = format!("chown {NOBODY} {out_text}");
    found.require("fail", "outputs", &["sinks[0]", "Permission denied"], &[&chown])
}

#[test]
fn directories_that_the_start_creates_are_checked_at_their_parents() -> Result<()> {
    let machine = Machine::new()?;
    let kept = machine.path("kept");
    let kept_text = text(&kept)?;
    let config = machine.configure(&format!(
        "sinks: [{{type: kafka, brokers: [\"127.0.0.1:9\"], topic: dns, spool: {{directory: \
         {kept_text}/spool, max_bytes: 8388608}}}}]\nstate: {{directory: {kept_text}/state}}\n"
    ))?;
    let doctor = |before: &str, privileges: &[&str]| {
        let arguments = &["--config", &config];
        machine.doctor(&Start { before, privileges, arguments, ..Start::default() })
    };
    let found = doctor("", &[])?;
    found.check("ok", "outputs", &["sinks[0].spool", "writable"])?;
    found.check("ok", "outputs", &["state", "kept/state"])?;
    assert!(!kept.exists(), "nothing is made");

    let needed = "-all,+bpf,+net_admin,+perfmon";
    let nobody = [
        &format!("--reuid={NOBODY}"),
        &format!("--regid={NOBODY}"),
        "--clear-groups",
        &format!("--inh-caps={needed}"),
        &format!("--ambient-caps={needed}"),
    ];
    let found = doctor("", &nobody)?;
    let install = format!("install -d -o {NOBODY} -g {NOBODY} -m 0750 {kept_text}/state");
    found.require("fail", "outputs", &["state", "cannot be created", "Permission"], &[&install])?;
    // Root looks for the user that the agent becomes.
    let becomes = format!("{}privileges: {{user: {NOBODY}}}\n", fs::read_to_string(&config)?);
    fs::write(&config, becomes)?;
    let arguments = &["--config", &config];
    let found = machine.doctor(&Start { arguments, ..Start::default() })?;
    found.require("fail", "outputs", &["state", "cannot be created", "Permission"], &[&install])?;
    // The container beside the agent's does the same.
    let status = std::process::Command::new(agent::binary()?)
        .args(["prepare", &kept_text, "--user", NOBODY])
        .status()?;
    assert!(status.success());
    let found = doctor("", &nobody)?;
    found.check("ok", "outputs", &["state", "kept/state"])?;

    let small = format!("mount -t tmpfs -o size=2m none {kept_text}");
    let found = doctor(&small, &[])?;
    found.require("warn", "outputs", &["sinks[0].spool", "may use 8 MiB"], &["max_bytes"])
}
