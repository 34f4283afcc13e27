//! The agent in its container: image, privileges, directories and probes.

use super::*;

#[test]
fn the_image_has_no_executable_but_the_agent_and_its_libraries() -> Result<()> {
    let image = Image::of(&agent::binary()?)?;
    let mut command = std::process::Command::new("find");
    command.arg(image.path("/")).args(["-type", "f", "-printf", "%P\n"]);
    for file in run(&mut command)?.lines() {
        let is_library =
            file.contains(".so") && (file.starts_with("lib") || file.starts_with("usr/lib"));
        let is_text = ["etc/passwd", "etc/group", "etc/nsswitch.conf"].contains(&file);
        assert!(is_library || is_text || file == "usr/bin/tap53", "{file}");
    }
    Ok(())
}

#[test]
fn the_agent_captures_in_its_container_and_no_thread_exceeds_its_privileges() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let pod = Pod::installed(&lab, &api, &[])?;
    let privileges = &pod.privileges;
    assert!(privileges.no_new_privileges && privileges.read_only_root, "{privileges:?}");
    assert_ne!(privileges.user, 0);

    let mut process = pod.run()?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    process.stdout().wait_for_line("www.tap53.test", 0, DEADLINE)?;
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", process.pid()))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
        };
        let user = privileges.user;
        for ids in ["Uid", "Gid"] {
            assert_eq!(field(ids), format!("{user}\t{user}\t{user}\t{user}"), "{status}");
        }
        assert_eq!(field("NoNewPrivs"), "1", "{status}");
        for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
            let has = u64::from_str_radix(&field(set), 16)?;
            assert_eq!(has & !privileges.capabilities, 0, "{set} in {status}");
        }
        threads += 1;
    }
    assert!(threads > 1, "the workers are threads");
    process.signal(Signal::SIGTERM)?;
    let status = process.wait(DEADLINE)?;
    assert_eq!(status.code(), Some(0), "{}", process.stderr().text());
    let (_, state) =
        pod.volumes.iter().find(|(path, _)| path == "/var/lib/tap53").context("stateVolume")?;
    let files = fs::read_dir(state.path())?.collect::<Result<Vec<_>, _>>()?;
    let files: Vec<PathBuf> = files.into_iter().map(|file| file.path()).collect();
    let files: Vec<PathBuf> =
        files.into_iter().filter(|file| file.extension().is_some_and(|of| of == "avro")).collect();
    assert_eq!(fastavro::read_containers(&files)?.len(), 1, "{files:?}");
    Ok(())
}

#[test]
fn a_host_path_is_prepared_for_the_agent_and_keeps_its_state() -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    // Nobody listens at the broker's address, so that all waits in the spool.
    let sinks = r#"config.sinks=[
        {"type": "stdout", "format": "json"},
        {"type": "kafka", "brokers": ["127.0.0.1:9"], "topic": "dns"}
    ]"#;
    let values =
        ["--set-json", sinks, "--set", "stateVolume=hostPath", "--set", "spool.mode=durable"];
    let pod = Pod::installed(&lab, &api, &values)?;
    let (privileges, arguments) = pod.first.as_ref().context("a container before the agent")?;
    assert_eq!((privileges.user, privileges.capabilities), (0, 1), "CAP_CHOWN alone");
    assert!(privileges.no_new_privileges && privileges.read_only_root);
    let (_, state) =
        pod.volumes.iter().find(|(path, _)| path == "/var/lib/tap53").context("stateVolume")?;

    // Without it the agent reports the error.
    let mut refused = pod.start(&pod.arguments)?;
    assert_eq!(refused.wait(DEADLINE)?.code(), Some(1));
    let log = refused.stderr().text();
    assert!(log.contains("cannot create directory /var/lib/tap53/spool"), "{log}");

    for _ in 0..2 {
        let mut first = pod.start_as(privileges, arguments)?;
        let status = first.wait(DEADLINE)?;
        assert_eq!(status.code(), Some(0), "{}", first.stderr().text());
        let found = fs::metadata(state.path())?;
        let owner = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(owner, (pod.privileges.user, pod.privileges.user, 0o750));
    }
    let mut process = pod.run()?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    process.stdout().wait_for_line("www.tap53.test", 0, DEADLINE)?;
    process.signal(Signal::SIGTERM)?;
    let status = process.wait(DEADLINE)?;
    assert_eq!(status.code(), Some(0), "{}", process.stderr().text());
    let next = pod.run()?;
    next.wait_for_line("event=\"spool_inherited\"", 0, DEADLINE)?;
    next.wait_for_line("event=\"gap_between_runs\"", 0, DEADLINE)?;

    // The directory of another user keeps its owner.
    let (privileges, arguments) = (privileges.clone(), arguments.clone());
    std::os::unix::fs::chown(state.path(), Some(12_345), None)?;
    let mut first = pod.start_as(&privileges, &arguments)?;
    assert_eq!(first.wait(DEADLINE)?.code(), Some(1));
    assert!(first.stderr().text().contains("its owner is user 12345"), "{}", first.stderr().text());
    Ok(())
}

#[test]
fn the_probes_fail_without_an_agent_and_pass_with_one_that_captures() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let pod = Pod::installed(&lab, &api, &[])?;
    let is_alive = || -> Result<bool> { Ok(pod.start(&pod.alive)?.wait(DEADLINE)?.success()) };
    let is_ready = || -> Result<bool> { Ok(pod.start(&pod.ready)?.wait(DEADLINE)?.success()) };
    assert!(!is_alive()? && !is_ready()?, "without an agent");
    // The kubelet starts this probe before the agent answers, and reports an event if it fails.
    let mut starting = pod.start(&pod.started)?;
    let process = pod.run()?;
    assert!(starting.wait(DEADLINE)?.success(), "{}", starting.stderr().text());
    assert!(is_alive()? && is_ready()?, "a capturing agent");
    // An interface that is lost is no reason to start anew.
    lab.server.ip(&["link", "delete", "s0"])?;
    wait::until("the agent to be not ready", DEADLINE, || Ok((!is_ready()?).then_some(())))?;
    assert!(is_alive()?);
    // An agent that hangs is.
    process.signal(Signal::SIGSTOP)?;
    assert!(!is_alive()?);
    Ok(())
}

#[test]
fn doctor_in_the_pod_judges_the_running_agent_and_names_no_program_that_is_missing() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let pod = Pod::installed(&lab, &api, &[])?;
    let report = || -> Result<Value> {
        let doctor = ["doctor", "-o", "json"].map(str::to_owned);
        let mut doctor = pod.start(&doctor)?;
        doctor.wait(DEADLINE)?;
        let text = doctor.stdout().text();
        serde_json::from_str(&text).with_context(|| format!("{text}{}", doctor.stderr().text()))
    };
    let require = |report: &Value, area: &str, part: &str| {
        let mut checks = report["checks"].as_array().into_iter().flatten();
        let found = checks.find(|check| {
            check["area"] == area && check["what"].as_str().is_some_and(|what| what.contains(part))
        });
        assert!(found.is_some_and(|check| check["verdict"] == "ok"), "{area} {part}: {report:#}");
    };
    require(&report()?, "config", "/etc/tap53/config/tap53.yaml, from TAP53_CONFIG");
    let process = pod.run()?;
    let running = report()?;
    require(&running, "config", "/etc/tap53/config/tap53.yaml, of the running agent");
    require(&running, "capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON in force");
    require(&running, "kernel", "programs and ring buffers load");
    for check in running["checks"].as_array().context("checks")? {
        assert_ne!(check["verdict"], "fail", "{running:#}");
        let program = check["fix"].as_str().and_then(|fix| fix.split_whitespace().next());
        assert!(!["sudo", "nc", "timedatectl"].contains(&program.unwrap_or_default()), "{check}");
    }
    let mut interfaces = pod.start(&["interfaces".to_owned()])?;
    assert!(interfaces.wait(DEADLINE)?.success());
    let note = "tap53: configuration /etc/tap53/config/tap53.yaml: of the running agent";
    assert_eq!(interfaces.stderr().text(), note);
    let lines = interfaces.stdout().lines();
    let selected = |name: &str| lines.iter().any(|it| it.starts_with(name) && it.contains(" yes "));
    assert!(selected("s0 ") && !selected("lo "), "{lines:?}");
    drop(process);
    Ok(())
}

/// With an image that has fewer capabilities, the kernel refuses, and the agent names the missing one.
#[test]
fn every_capability_of_the_container_is_needed() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let pod = Pod::installed(&lab, &api, &[])?;
    for missing in CAPABILITIES {
        let fewer: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != missing).collect();
        pod.image.set_capabilities(&format!("{}+p", fewer.join(",")))?;
        let mut process = pod.start(&pod.arguments)?;
        let status = process.wait(DEADLINE)?;
        let log = process.stderr().text();
        assert_eq!(status.code(), Some(1), "without {missing}: {log}");
        assert!(log.contains(&missing.to_uppercase()), "without {missing}: {log}");
    }
    Ok(())
}
