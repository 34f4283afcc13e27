//! What is in `deploy/`: the chart, the manifests made of it, and the agent as they start it.

use std::{
    collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tap53_harness::{
    agent,
    client::Transport,
    container::{Image, Privileges, Volume},
    fastavro,
    kube::{self, Account, KubeApi, RELEASE, Request},
    lab::{ANSWERED, Lab},
    namespace::CLIENT_END,
    process::{Process, run},
    wait,
};
use tempfile::TempDir;

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
        "--set", "stateVolume.hostPath.path=/srv/tap53", "--set", "podLabels.team=dns", "--set", "seLinuxOptions.type=spc_t",
    ])?;
    for (value, named) in [
        ("ressources.limits.memory=1Gi", "ressources"),
        ("user=0", "user"),
        ("config.interfaces.include=null", "include"),
        ("config.sinks[0].brokers[0]=kafka", "brokers"),
        ("config.sinks[0].registry.urls[0]=registry:8081", "urls"),
        ("image.digest=sha256:12", "digest"),
        ("networkPolicy.extraEgressPorts[0]=70000", "extraEgressPorts"),
        ("spool.mode=slow", "mode"),
        ("stateVolume=somewhere", "stateVolume"),
    ] {
        let error = lint(&["--set", value]).expect_err(value);
        assert!(format!("{error:#}").contains(named), "{value}: {error:#}");
    }
    Ok(())
}

/// By rendering, since `helm lint` passes over what templates refuse.
#[test]
fn a_control_socket_outside_of_a_mounted_directory_is_refused() -> Result<()> {
    for socket in ["/srv/tap53.sock", "/run/tap53.sock", "/run/tap53-other/tap53.sock"] {
        let error = kube::render(&["--set", &format!("config.control.socket={socket}")])
            .expect_err("the agent could not create it");
        let error = format!("{error:#}");
        assert!(error.contains("config.control.socket") && error.contains(socket), "{error}");
    }
    kube::render(&["--set", "config.control.socket=/run/tap53/other.sock"])?;
    #[rustfmt::skip]
    kube::render(&[
        "--set", "config.control.socket=/srv/run/tap53.sock",
        "--set-json", "extraVolumes=[{\"name\":\"control\",\"emptyDir\":{}}]",
        "--set-json", "extraVolumeMounts=[{\"name\":\"control\",\"mountPath\":\"/srv/run\"}]",
    ])?;
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
        ["flush_timeout_ms: 20500", "terminationGracePeriodSeconds: 51"]
    );
    assert_eq!(
        differing(&[
            "--set-json",
            r#"config.sinks=[{"type":"kafka","topic":"t","brokers":["a:9094","[::1]:9094","b:9092"]}]"#
        ])?,
        ["- {protocol: TCP, port: 9094}", "- a:9094", "- '[::1]:9094'", "- b:9092", "topic: t"]
    );
    let registry = differing(&[
        "--set-json",
        r#"config.sinks=[{"type":"kafka","topic":"t","brokers":["a:9092"],"registry":
            {"urls":["https://r:8443/api","http://[::1]:8082","https://r"]}}]"#,
    ])?;
    for port in ["8443", "8082", "443"] {
        let rule = format!("- {{protocol: TCP, port: {port}}}");
        // The API server's is there already.
        assert_eq!(registry.contains(&rule), port != "443", "{registry:?}");
    }
    assert_eq!(
        differing(&["--set", "image.tag=1.2.3", "--set", "fullnameOverride=tap53"])?,
        ["image: ghcr.io/tap53/tap53:1.2.3"; 2]
    );
    assert_eq!(
        differing(&["--set", "secrets[0].name=pseudonyms"])?,
        [
            "- {name: secret-0, mountPath: /etc/tap53/secrets/pseudonyms, readOnly: true}",
            "- name: secret-0",
            "secret: {secretName: pseudonyms, defaultMode: 0440}",
        ]
    );
    assert_eq!(
        differing(&["--set", "spool.mode=durable", "--set", "spool.maxBytes=8388608"])?,
        ["max_bytes: 8388608", "mode: durable"]
    );
    let of_node = differing(&["--set", "stateVolume.hostPath.path=/srv/tap53"])?;
    assert_eq!(of_node, ["hostPath:", "path: /srv/tap53"]);
    // What takes things away adds nothing.
    for less in ["spool.mode=off", "prepareStateVolume=false", "stateVolume=null"] {
        assert_eq!(differing(&["--set", less])?, [""; 0], "{less}");
    }
    let without = kube::render(&["--set", "stateVolume=null"])?;
    assert!(!without.contains("/var/lib/tap53"), "{without}");
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
    for absent in ["hostPID", "hostIPC"] {
        assert!(spec[absent].is_null(), "{absent}");
    }
    let volumes = spec["volumes"].as_array().context("volumes")?;
    let of_node: Vec<&Value> =
        volumes.iter().map(|volume| &volume["hostPath"]).filter(|of| !of.is_null()).collect();
    assert_eq!(of_node, [&json!({"path": "/var/lib/tap53", "type": "DirectoryOrCreate"})]);
    // Root, to give that directory away, and nothing else.
    let first = spec["initContainers"].as_array().context("initContainers")?;
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(first[0]["args"], json!(["prepare", "/var/lib/tap53", "--user", "65532"]));
    assert_eq!(
        first[0]["securityContext"]["capabilities"],
        json!({"drop": ["ALL"], "add": ["CHOWN"]})
    );
    assert_eq!(first[0]["volumeMounts"].as_array().map(Vec::len), Some(1));

    let config_map = object(&api, "configmap", RELEASE)?;
    let yaml = config_map["data"]["tap53.yaml"].as_str().context("tap53.yaml")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    fs::write(&path, yaml)?;
    let path = path.to_str().context("UTF-8")?;
    let checked = agent::run(&["check-config", "--config", path])?;
    let said = String::from_utf8_lossy(&checked.stderr);
    // Nor is there anything to warn of: its topic can be read by whoever asks a registry.
    assert!(checked.status.success() && said.is_empty(), "{said}");
    // The pod outlives the flush that the configuration allows.
    let in_force = String::from_utf8_lossy(&checked.stdout);
    let flush_ms: u64 = in_force
        .lines()
        .find_map(|line| line.trim().strip_prefix("flush_timeout_ms: "))
        .context("flush_timeout_ms")?
        .parse()?;
    let grace = spec["terminationGracePeriodSeconds"].as_u64().context("grace period")?;
    assert!(grace * 1000 >= flush_ms + 30_000, "{grace} s for {flush_ms} ms");
    Ok(())
}

#[test]
fn the_pods_need_the_level_privileged_for_the_reasons_that_are_told_and_no_other() -> Result<()> {
    const NETWORK: &str = "hostNetwork=true";
    const CAPABILITIES: &str = r#"must not include "BPF", "NET_ADMIN", "PERFMON""#;
    let api = KubeApi::start_with(None, &[])?;
    for level in ["baseline", "restricted"] {
        api.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {level}, labels: \
             {{pod-security.kubernetes.io/enforce: {level}}}}}}}"
        ))?;
    }
    // What is kept on the node, and the container that gives it to the agent, can be left out.
    for (values, of_node, of_root) in [
        (&[][..], true, true),
        (&["--set", "prepareStateVolume=false"], true, false),
        (&["--set", "stateVolume=null"], false, false),
    ] {
        api.apply(&kube::render(&[&["--set", "namespace.create=true"], values].concat())?)?;
        let daemon_set = object(&api, "daemonset", RELEASE)?;
        for level in ["baseline", "restricted"] {
            let error = api.apply(&pod_of(&daemon_set, level).to_string()).expect_err(level);
            let message = format!("{error:#}");
            let (_, reasons) =
                message.split_once("violates PodSecurity").context(message.clone())?;
            let is_restricted = level == "restricted";
            for (reason, is_told) in [
                (NETWORK, true),
                (CAPABILITIES, !(is_restricted && of_root)),
                ("hostPath", of_node),
                ("runAsNonRoot", is_restricted && of_root),
                ("runAsUser=0", is_restricted && of_root),
                ("hostPort", false),
                ("seccomp", false),
                ("Escalation", false),
            ] {
                assert_eq!(reasons.contains(reason), is_told, "{reason}, {values:?}: {message}");
            }
        }
        api.apply(&pod_of(&daemon_set, RELEASE).to_string())?;
        // No kubelet ends it.
        let of = ["delete", "pod", "agent", "--namespace", RELEASE];
        api.kubectl(&[&of[..], &["--force", "--grace-period=0"]].concat())?;
    }
    let label = &object(&api, "namespace", RELEASE)?["metadata"]["labels"];
    assert_eq!(label["pod-security.kubernetes.io/enforce"], "privileged");
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

/// What the agent of the tests does with records: shows and keeps them.
const SINKS: &str = r#"config.sinks=[
    {"type": "stdout", "format": "json"}, {"type": "file", "directory": "/var/lib/tap53"}
]"#;
/// Where a pod's account is mounted.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const NODE: &str = "node-1";

/// An agent as kubelet and runtime start it for the objects on the API server.
struct Pod<'a> {
    lab: &'a Lab,
    privileges: Privileges,
    arguments: Vec<String>,
    /// Arguments of the liveness probe's command.
    alive: Vec<String>,
    /// Arguments of the readiness probe's command.
    ready: Vec<String>,
    environment: Vec<(String, String)>,
    volumes: Vec<(String, Volume)>,
    /// What runs before the agent: its privileges and arguments.
    first: Option<(Privileges, Vec<String>)>,
    image: Image,
    account: Account,
    // Holds what is mounted.
    _config: TempDir,
}

impl<'a> Pod<'a> {
    /// Installs the chart for an agent that captures from `s0` and prints what it sees.
    fn installed(lab: &'a Lab, api: &KubeApi<'_>, values: &[&str]) -> Result<Self> {
        #[rustfmt::skip]
        let usual = [
            "--set", "namespace.create=true",
            "--set", "config.interfaces.include={s0}",
            "--set-json", SINKS,
            "--set-json", r#"stateVolume={"emptyDir": {"sizeLimit": "16Mi"}}"#,
        ];
        api.apply(&kube::render(&[&usual[..], values].concat())?)?;
        let daemon_set = object(api, "daemonset", RELEASE)?;
        let spec = &daemon_set["spec"]["template"]["spec"];
        let container = &spec["containers"][0];

        // As the kubelet mounts it: anyone may read.
        let config = tempfile::tempdir()?;
        fs::set_permissions(config.path(), fs::Permissions::from_mode(0o755))?;
        let config_map = object(api, "configmap", RELEASE)?;
        let yaml = config_map["data"]["tap53.yaml"].as_str().context("tap53.yaml")?;
        fs::write(config.path().join("tap53.yaml"), yaml)?;

        let privileges = Privileges::of(spec, container)?;
        let account = api.account(RELEASE, RELEASE, HOUR)?;
        let mut volumes = Vec::new();
        if spec["automountServiceAccountToken"] == true {
            volumes.push((ACCOUNT.to_owned(), Volume::Files(account.directory.clone())));
        }
        for mount in container["volumeMounts"].as_array().context("volumeMounts")? {
            let mut all = spec["volumes"].as_array().context("volumes")?.iter();
            let volume =
                all.find(|volume| volume["name"] == mount["name"]).context("its volume")?;
            let source = if volume["configMap"]["name"] == RELEASE {
                Volume::Files(config.path().to_owned())
            } else if volume["hostPath"]["type"] == "DirectoryOrCreate" {
                Volume::node()?
            } else {
                ensure!(volume["emptyDir"].is_object(), "not known here: {volume}");
                Volume::empty(privileges.user)?
            };
            volumes.push((mount["mountPath"].as_str().context("mountPath")?.to_owned(), source));
        }
        let mut environment: Vec<(String, String)> =
            api.pod_environment().map(|(name, value)| (name.to_owned(), value)).into();
        for variable in container["env"].as_array().into_iter().flatten() {
            ensure!(
                variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName",
                "not known here: {variable}"
            );
            let name = variable["name"].as_str().context("a variable's name")?;
            environment.push((name.to_owned(), NODE.to_owned()));
        }
        let words = |list: &Value| -> Vec<String> {
            let words = list.as_array().into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let first = spec["initContainers"].as_array().map(|containers| -> Result<_> {
            let [container] = &containers[..] else { bail!("not known here: {containers:?}") };
            ensure!(container["image"] == spec["containers"][0]["image"], "another image");
            Ok((Privileges::of(spec, container)?, words(&container["args"])))
        });
        let probe = |name: &str| -> Result<Vec<String>> {
            let words = words(&container[name]["exec"]["command"]);
            let (program, arguments) = words.split_first().context("a command")?;
            ensure!(program == "/usr/bin/tap53", "another program: {program}");
            Ok(arguments.to_vec())
        };
        let (alive, ready) = (probe("livenessProbe")?, probe("readinessProbe")?);
        Ok(Self {
            lab,
            privileges,
            arguments: words(&container["args"]),
            alive,
            ready,
            environment,
            volumes,
            first: first.transpose()?,
            image: Image::of(&agent::binary()?)?,
            account,
            _config: config,
        })
    }

    /// A process of the container, not waited for.
    fn start(&self, arguments: &[String]) -> Result<Process> {
        self.start_as(&self.privileges, arguments)
    }

    fn start_as(&self, privileges: &Privileges, arguments: &[String]) -> Result<Process> {
        let volumes: Vec<(&str, Volume)> =
            self.volumes.iter().map(|(path, volume)| (path.as_str(), volume.clone())).collect();
        let mut command = privileges.command(&self.lab.server, &self.image, &volumes)?;
        // A container has the variables that its pod names, and none of ours.
        command.env_clear().envs(self.environment.iter().cloned()).args(arguments);
        Process::spawn("tap53", command)
    }

    /// The agent, capturing.
    fn run(&self) -> Result<Process> {
        let process = self.start(&self.arguments)?;
        process.wait_for_line("ready interfaces=1", 0, DEADLINE)?;
        Ok(process)
    }
}

#[test]
fn the_image_holds_the_program_its_libraries_and_nothing_else_to_execute() -> Result<()> {
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
fn the_agent_captures_in_its_container_and_no_thread_has_more_than_the_container() -> Result<()> {
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
fn a_directory_of_the_node_is_given_to_the_agent_which_finds_there_what_it_left() -> Result<()> {
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

    // Without it the agent says what it cannot do.
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

    // A directory of somebody else stays that.
    let (privileges, arguments) = (privileges.clone(), arguments.clone());
    std::os::unix::fs::chown(state.path(), Some(12_345), None)?;
    let mut first = pod.start_as(&privileges, &arguments)?;
    assert_eq!(first.wait(DEADLINE)?.code(), Some(1));
    assert!(first.stderr().text().contains("its owner is user 12345"), "{}", first.stderr().text());
    Ok(())
}

/// What a kubelet and controllers would have made: this node, and on it a pod of a CronJob, with the
/// address that queries come from.
fn make_cluster(api: &KubeApi<'_>) -> Result<()> {
    api.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}}}}}"))?;
    let container = json!([{"name": "main", "image": "example.test/client"}]);
    let template = json!({"spec": {"restartPolicy": "Never", "containers": container}});
    let owned_by = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "batch/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    api.apply(
        &json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "report", "namespace": "default"},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}},
        })
        .to_string(),
    )?;
    let uid = |kind: &str, name: &str| {
        api.kubectl(&["get", kind, name, "--output=jsonpath={.metadata.uid}"])
    };
    api.apply(
        &json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": "report-1",
                "namespace": "default",
                "ownerReferences": owned_by("CronJob", "report", &uid("cronjob", "report")?),
            },
            "spec": {"template": template},
        })
        .to_string(),
    )?;
    api.apply(
        &json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "report-1-x",
                "namespace": "default",
                "ownerReferences": owned_by("Job", "report-1", &uid("job", "report-1")?),
            },
            "spec": {"nodeName": NODE, "containers": container},
        })
        .to_string(),
    )?;
    let addresses = json!([{"ip": CLIENT_END.ipv4}]);
    let status = json!({"status": {
        "phase": "Running", "podIP": CLIENT_END.ipv4, "podIPs": addresses,
        "startTime": "2020-01-01T00:00:00Z",
    }});
    #[rustfmt::skip]
    api.kubectl(&[
        "patch", "pod", "report-1-x", "--subresource=status", "--patch", &status.to_string(),
    ])?;
    Ok(())
}

/// What a role allows, as (verb, group, resource).
fn allowed(role: &Value) -> BTreeSet<(String, String, String)> {
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    all.insert((verb, group.clone(), resource.clone()));
                }
            }
        }
    }
    all
}

/// The rights that `tap53 doctor` in the pod looks for and finds, as (verb, group, resource).
fn rights_by_doctor(pod: &Pod<'_>) -> Result<BTreeSet<(String, String, String)>> {
    let options = pod.arguments.get(1..).context("options behind `run`")?;
    let mut doctor =
        pod.start(&[&["doctor", "-o", "json"].map(str::to_owned)[..], options].concat())?;
    // Whatever it thinks of the rest.
    doctor.wait(DEADLINE)?;
    let report: Value = serde_json::from_str(&doctor.stdout().text())?;
    let checks = report["checks"].as_array().context("checks")?;
    let found = checks.iter().find(|check| check["area"] == "kubernetes").context("an area")?;
    let rights = found["what"].as_str().and_then(|what| what.strip_prefix("allowed: "));
    let rights = rights.with_context(|| found.to_string())?.split(", ");
    let parts = |right: &str| {
        let (verb, kind) = right.split_once(' ')?;
        let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
        Some((verb.to_owned(), group.to_owned(), resource.to_owned()))
    };
    rights.map(|right| parts(right).with_context(|| right.to_owned())).collect()
}

#[test]
fn the_agent_uses_every_permission_of_its_role_and_is_refused_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let services = ["--set", "config.kubernetes.services=false"];
    for (values, count) in [(&[][..], 7), (&services[..], 5)] {
        let pod = Pod::installed(&lab, &api, values)?;
        make_cluster(&api)?;
        let allowed = allowed(&object(&api, "clusterrole", RELEASE)?);
        assert_eq!(allowed.len(), count, "{allowed:?}");
        let earlier = api.requests_of(&pod.account.user)?.len();
        let process = pod.run()?;
        let requests = || -> Result<Vec<Request>> {
            Ok(api.requests_of(&pod.account.user)?.split_off(earlier))
        };
        let used = |requests: &[Request]| -> BTreeSet<(String, String, String)> {
            let used = requests.iter().filter(|request| request.code == 200);
            used.map(|r| (r.verb.clone(), r.group.clone(), r.resource.clone())).collect()
        };
        wait::until("every permission to be used", DEADLINE, || {
            Ok((used(&requests()?) == allowed).then_some(()))
        })
        .with_context(|| {
            let requests = requests().unwrap_or_default();
            format!("of {allowed:?}: {requests:#?}; the log: {}", process.stderr().text())
        })?;
        // And for something: the record names who asked, up to the CronJob.
        wait::until("a record that names the CronJob", DEADLINE, || {
            let from = process.stdout().len();
            lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
            let line = process.stdout().wait_for_line("www.tap53.test", from, DEADLINE)?;
            let record: Value = serde_json::from_str(&line)?;
            let named = record["client_pod_name"] == "report-1-x"
                && record["client_workload_kind"] == "CronJob"
                && record["client_workload_name"] == "report"
                && record["node"] == NODE;
            Ok(named.then_some(()))
        })?;
        let requests = requests()?;
        let refused: Vec<&Request> = requests.iter().filter(|r| r.code >= 400).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        assert_eq!(used(&requests), allowed);
        assert_eq!(rights_by_doctor(&pod)?, allowed);
    }
    Ok(())
}

#[test]
fn an_annotation_of_the_node_switches_capture_off_and_on() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let pod = Pod::installed(&lab, &api, &[])?;
    make_cluster(&api)?;
    let process = pod.run()?;
    let status = ["status", "--output", "json"].map(str::to_owned);
    let wanted = || -> Result<(Value, Value)> {
        let mut asked = pod.start(&status)?;
        ensure!(asked.wait(DEADLINE)?.success(), "{}", asked.stderr().text());
        let answer: Value = serde_json::from_str(&asked.stdout().text())?;
        let interface = &answer["interfaces"][0];
        ensure!(interface["name"] == "s0", "{answer}");
        Ok((interface["wanted"].clone(), interface["wanted_by"].clone()))
    };
    let recorded = || process.stdout().len();
    let asks = |count: usize| -> Result<()> {
        for _ in 0..count {
            lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
        }
        Ok(())
    };

    asks(1)?;
    process.stdout().wait_for_line("www.tap53.test", 0, DEADLINE)?;
    api.kubectl(&["annotate", "node", NODE, "tap53.io/capture=s0=off"])?;
    let off = (Value::Null, json!("annotation"));
    wait::until("the annotation to switch off", DEADLINE, || Ok((wanted()? == off).then_some(())))?;
    let before = recorded();
    asks(5)?;
    api.kubectl(&["annotate", "node", NODE, "tap53.io/capture-"])?;
    let on = (json!("both"), json!("file"));
    wait::until("the file to decide again", DEADLINE, || Ok((wanted()? == on).then_some(())))?;
    asks(1)?;
    process.stdout().wait_for_line("www.tap53.test", before, DEADLINE)?;
    assert_eq!(recorded(), before + 1, "what passed while it was off is not recorded");
    Ok(())
}

#[test]
fn without_attribution_the_agent_has_no_token_and_no_role() -> Result<()> {
    let objects = kube::render(&["--set", "config.kubernetes=null"])?;
    assert!(objects.contains("automountServiceAccountToken: false\n      enableServiceLinks"));
    assert!(!objects.contains("ClusterRole"), "{objects}");
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
    let process = pod.run()?;
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
fn without_a_control_socket_liveness_is_asked_by_http() -> Result<()> {
    let probe = |values: &[&str]| -> Result<String> {
        let objects = kube::render(values)?;
        let (_, probe) = objects.split_once("livenessProbe:\n").context("a liveness probe")?;
        Ok(probe.lines().next().unwrap_or_default().trim().to_owned())
    };
    let by_socket = "exec: {command: [/usr/bin/tap53, status, --check, live]}";
    assert_eq!(probe(&[])?, by_socket);
    assert_eq!(probe(&["--set", "config.telemetry.listen=0.0.0.0:9530"])?, by_socket);
    let elsewhere = probe(&["--set", "config.control.socket=/run/tap53/a.sock"])?;
    assert!(elsewhere.contains(r#"live, --socket, "/run/tap53/a.sock"]"#), "{elsewhere}");
    assert_eq!(
        probe(&["--set", "config.control.enabled=false"])?,
        r#"httpGet: {host: "127.0.0.1", path: /livez, port: 9530}"#
    );
    Ok(())
}

/// An image that gives fewer: the kernel refuses, and the agent says what is missing.
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
