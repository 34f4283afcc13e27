//! What is in `deploy/`: the chart, the manifests made of it, and the agent as they start it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tap53_harness::{
    agent,
    client::Transport,
    container::{self, Privileges},
    kube::{self, KubeApi, RELEASE},
    lab::{ANSWERED, Lab},
    process::Process,
};

const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
/// What the image gives the program: see deploy/Dockerfile.
const CAPABILITIES: [&str; 3] = ["cap_bpf", "cap_net_admin", "cap_perfmon"];

fn chart() -> String {
    kube::chart().display().to_string()
}

/// The chart's objects on the API server, as plain manifests have them.
fn apply_manifests(api: &KubeApi<'_>) -> Result<()> {
    api.apply(&fs::read_to_string(kube::manifests())?)?;
    Ok(())
}

/// The object `name` of the release's namespace.
fn object(api: &KubeApi<'_>, kind: &str, name: &str) -> Result<Value> {
    let text = api.kubectl(&["get", kind, name, "--namespace", RELEASE, "--output=json"])?;
    serde_json::from_str(&text).context("JSON of kubectl")
}

/// A pod of the DaemonSet as its controller would make it for a node.
fn pod_of(daemon_set: &Value, namespace: &str) -> Value {
    let template = &daemon_set["spec"]["template"];
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!("node-1");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "agent",
            "namespace": namespace,
            "labels": template["metadata"]["labels"],
        },
        "spec": spec,
    })
}

#[test]
fn helm_finds_no_fault_in_the_chart_and_refuses_values_that_it_does_not_know() -> Result<()> {
    let chart = chart();
    let lint = |more: &[&str]| kube::helm(&[&["lint", "--strict", &chart], more].concat());
    lint(&[])?;
    #[rustfmt::skip]
    lint(&[
        "--set", "restartOnConfigChange=true", "--set", "secrets[0].name=pseudonyms",
        "--set", "serviceAccount.create=false", "--set", "serviceAccount.name=other",
        "--set", "rbac.create=false", "--set", "networkPolicy.enabled=false",
        "--set", "namespace.create=true", "--set-json", "config.sinks=[{\"type\":\"stdout\"}]",
        "--set", "podLabels.team=dns", "--set", "seLinuxOptions.type=spc_t",
    ])?;
    for (value, named) in [
        ("ressources.limits.memory=1Gi", "ressources"),
        ("user=0", "user"),
        ("config.interfaces.include=null", "include"),
        ("config.sinks[0].brokers[0]=kafka", "brokers"),
        ("image.digest=sha256:12", "digest"),
        ("networkPolicy.extraEgressPorts[0]=70000", "extraEgressPorts"),
    ] {
        let error = lint(&["--set", value]).expect_err(value);
        assert!(format!("{error:#}").contains(named), "{value}: {error:#}");
    }
    Ok(())
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() -> Result<()> {
    let committed = fs::read_to_string(kube::manifests())?;
    assert!(
        committed == kube::rendered_manifests()?,
        "{} is not what the chart renders: run `cargo xtask manifests`",
        kube::manifests().display()
    );
    Ok(())
}

#[test]
fn values_change_what_they_say_and_nothing_else() -> Result<()> {
    let differing = |arguments: &[&str]| -> Result<Vec<String>> {
        let (usual, changed) = (kube::render(&[])?, kube::render(arguments)?);
        let usual: Vec<&str> = usual.lines().map(str::trim).collect();
        let new = changed.lines().map(str::trim).filter(|line| !usual.contains(line));
        Ok(new.map(str::to_owned).collect())
    };
    assert_eq!(
        differing(&["--set", "config.shutdown.flush_timeout_ms=20500"])?,
        ["flush_timeout_ms: 20500", "terminationGracePeriodSeconds: 26"]
    );
    assert_eq!(
        differing(&[
            "--set-json",
            r#"config.sinks=[{"type":"kafka","topic":"t","brokers":["a:9094","[::1]:9094","b:9092"]}]"#
        ])?,
        ["- {protocol: TCP, port: 9094}", "- a:9094", "- '[::1]:9094'", "- b:9092", "topic: t"]
    );
    assert_eq!(
        differing(&["--set", "image.tag=1.2.3", "--set", "fullnameOverride=tap53"])?,
        ["image: ghcr.io/tap53/tap53:1.2.3"]
    );
    assert_eq!(
        differing(&["--set", "secrets[0].name=pseudonyms"])?,
        [
            "- {name: secret-0, mountPath: /etc/tap53/secrets/pseudonyms, readOnly: true}",
            "- name: secret-0",
            "secret: {secretName: pseudonyms, defaultMode: 0440}",
        ]
    );
    let hash = differing(&["--set", "restartOnConfigChange=true"])?;
    assert_eq!(hash.len(), 2, "{hash:?}");
    assert!(hash[1].starts_with("tap53/config-sha256: "), "{hash:?}");
    Ok(())
}

#[test]
fn the_api_server_takes_the_manifests_and_the_agent_the_configuration_in_them() -> Result<()> {
    let api = KubeApi::start_with(None, &[])?;
    let file = kube::manifests().display().to_string();
    apply_manifests(&api)?;
    // What is stored is what is written: a second time changes nothing, and nothing was dropped.
    api.kubectl(&["diff", "--server-side", "-f", &file])?;
    api.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &file])?;
    let misspelt = fs::read_to_string(&file)?.replace("readOnlyRootFilesystem", "readOnlyRootFs");
    let error = api.apply(&misspelt).expect_err("a field that does not exist");
    assert!(format!("{error:#}").contains("readOnlyRootFs"), "{error:#}");

    // Everything that one needs to restrict further is not there by accident.
    let daemon_set = object(&api, "daemonset", RELEASE)?;
    let spec = &daemon_set["spec"]["template"]["spec"];
    assert_eq!(spec["hostNetwork"], true);
    for absent in ["hostPID", "hostIPC", "initContainers"] {
        assert!(spec[absent].is_null(), "{absent}");
    }
    let volumes = spec["volumes"].as_array().context("volumes")?;
    assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "{volumes:?}");

    let config_map = object(&api, "configmap", RELEASE)?;
    let yaml = config_map["data"]["tap53.yaml"].as_str().context("tap53.yaml")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    fs::write(&path, yaml)?;
    let path = path.to_str().context("UTF-8")?;
    let checked = agent::run(&["check-config", "--config", path])?;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // The pod outlives the flush that the configuration allows.
    let in_force = String::from_utf8_lossy(&checked.stdout);
    let flush_ms: u64 = in_force
        .lines()
        .find_map(|line| line.trim().strip_prefix("flush_timeout_ms: "))
        .context("flush_timeout_ms")?
        .parse()?;
    let grace = spec["terminationGracePeriodSeconds"].as_u64().context("grace period")?;
    assert!(grace * 1000 >= flush_ms + 5000, "{grace} s for {flush_ms} ms");
    Ok(())
}

#[test]
fn the_pods_need_the_level_privileged_for_two_reasons_alone() -> Result<()> {
    let api = KubeApi::start_with(None, &[])?;
    apply_manifests(&api)?;
    let daemon_set = object(&api, "daemonset", RELEASE)?;
    for level in ["baseline", "restricted"] {
        api.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {level}, labels: \
             {{pod-security.kubernetes.io/enforce: {level}}}}}}}"
        ))?;
        let error = api.apply(&pod_of(&daemon_set, level).to_string()).expect_err(level);
        let message = format!("{error:#}");
        let (_, reasons) = message.split_once("violates PodSecurity").context(message.clone())?;
        for reason in ["hostNetwork=true", r#"must not include "BPF", "NET_ADMIN", "PERFMON""#] {
            assert!(reasons.contains(reason), "{reason} in {message}");
        }
        for fine in ["hostPath", "hostPort", "seccomp", "runAsNonRoot", "runAsUser", "Escalation"] {
            assert!(!reasons.contains(fine), "{fine} in {message}");
        }
    }
    let label = &object(&api, "namespace", RELEASE)?["metadata"]["labels"];
    assert_eq!(label["pod-security.kubernetes.io/enforce"], "privileged");
    api.apply(&pod_of(&daemon_set, RELEASE).to_string())?;
    Ok(())
}

/// Rules of an account, as the API server itself tells the account.
fn rules(api: &KubeApi<'_>, account: &str) -> Result<Vec<Value>> {
    let account = api.account(RELEASE, account, HOUR)?;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": RELEASE},
    });
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), review.to_string())?;
    let path = file.path().to_str().context("UTF-8")?;
    let answer = api.kubectl_as(
        &account.kubeconfig,
        &["create", "--validate=false", "-f", path, "--output=json"],
    )?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["status"]["resourceRules"].as_array().context("rules")?.clone())
}

#[test]
fn the_account_may_do_what_its_role_says_and_nothing_else() -> Result<()> {
    let api = KubeApi::start_with(None, &[])?;
    apply_manifests(&api)?;
    api.kubectl(&["create", "serviceaccount", "nobody", "--namespace", RELEASE])?;
    let of_everyone = rules(&api, "nobody")?;
    let mut own = rules(&api, RELEASE)?;
    own.retain(|rule| !of_everyone.contains(rule));
    let role = object(&api, "clusterrole", RELEASE)?;
    assert_eq!(json!(own), role["rules"]);
    // Nothing that changes anything.
    for rule in &own {
        for verb in rule["verbs"].as_array().context("verbs")? {
            assert!(
                ["get", "list", "watch"].contains(&verb.as_str().unwrap_or_default()),
                "{rule}"
            );
        }
    }
    Ok(())
}

/// The chart's objects for an agent that captures from `s0` and prints, as the runtime has them:
/// privileges and configuration file.
fn installed(api: &KubeApi<'_>, directory: &Path) -> Result<(Privileges, PathBuf)> {
    #[rustfmt::skip]
    let objects = kube::render(&[
        "--set", "namespace.create=true",
        "--set", "config.interfaces.include={s0}",
        "--set-json", r#"config.sinks=[{"type": "stdout", "format": "json"}]"#,
    ])?;
    api.apply(&objects)?;
    let daemon_set = object(api, "daemonset", RELEASE)?;
    let config_map = object(api, "configmap", RELEASE)?;
    let path = directory.join("tap53.yaml");
    fs::write(&path, config_map["data"]["tap53.yaml"].as_str().context("tap53.yaml")?)?;
    // As the kubelet mounts it: anyone may read.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    Ok((Privileges::of_pod(&daemon_set["spec"]["template"]["spec"])?, path))
}

#[test]
fn the_agent_captures_with_the_privileges_of_its_container_and_not_with_fewer() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let directory = tempfile::tempdir()?;
    let (privileges, config) = installed(&api, directory.path())?;
    assert!(privileges.no_new_privileges && privileges.read_only_root, "{privileges:?}");
    assert_ne!(privileges.user, 0);
    let binary = agent::binary()?;
    let all = format!("{}+ep", CAPABILITIES.join(","));
    let (_image, tap53) = container::with_file_capabilities(&binary, &all)?;

    let start = |tap53: &Path| {
        let mut command = privileges.command(&lab.server, tap53)?;
        command.args(["run", "--config"]).arg(&config);
        Process::spawn("tap53", command)
    };
    let process = start(&tap53)?;
    process.wait_for_line("ready interfaces=1", 0, DEADLINE)?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    process.stdout().wait_for_line("www.tap53.test", 0, DEADLINE)?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
    };
    let mask = format!("{:016x}", privileges.capabilities);
    let user = privileges.user;
    assert_eq!(field("Uid"), format!("{user}\t{user}\t{user}\t{user}"));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), mask, "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    drop(process);

    // An image that gives fewer: the kernel refuses, and the agent says what is missing.
    for missing in CAPABILITIES {
        let fewer: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != missing).collect();
        let fewer = format!("{}+ep", fewer.join(","));
        let (_image, tap53) = container::with_file_capabilities(&binary, &fewer)?;
        let mut process = start(&tap53)?;
        let status = process.wait(DEADLINE)?;
        let log = process.stderr().text();
        assert_eq!(status.code(), Some(1), "without {missing}: {log}");
        assert!(log.contains(&missing.to_uppercase()), "without {missing}: {log}");
    }
    Ok(())
}
