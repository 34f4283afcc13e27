//! The chart as it is rendered and linted.

use std::path::Path;

use tap53::config::{Config, HookChoice, Overrides};
use tap53_capture::interfaces::Selector;

use super::*;

#[test]
fn helm_lint_accepts_the_chart_and_refuses_unknown_values() -> Result<()> {
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
        ("config.interfaces.include=", "include"),
        ("presets[0]=weave", "presets"),
        ("config.sinks[0].brokers[0]=kafka", "brokers"),
        ("config.sinks[0].registry.urls[0]=registry:8081", "urls"),
        ("image.digest=sha256:12", "digest"),
        ("networkPolicy.extraEgressPorts[0]=70000", "extraEgressPorts"),
        ("spool.mode=slow", "mode"),
        ("stateVolume=somewhere", "stateVolume"),
        // The agent's own keys.
        ("config.captrue.workers=2", "captrue"),
        ("config.capture.wrokers=2", "wrokers"),
        ("config.capture.workers=two", "workers"),
        ("config.capture.hook=xpd", "hook"),
        ("config.kubernetes.servers.nmaespace=dns", "nmaespace"),
        ("config.privacy.client_address.hsah.key_file=/k", "client_address"),
        ("config.log.level=verbose", "level"),
    ] {
        let error = lint(&["--set", value]).expect_err(value);
        assert!(format!("{error:#}").contains(named), "{value}: {error:#}");
    }
    Ok(())
}

#[test]
fn misspelt_keys_of_sinks_are_refused() -> Result<()> {
    let kafka = r#"{"type":"kafka","brokers":["a:9092"],"topic":"t""#;
    for (sink, named) in [
        (format!(r#"{kafka},"compresion":"lz4"}}"#), "compresion"),
        (format!(r#"{kafka},"tls":{{"cafile":"/ca"}}}}"#), "cafile"),
        (format!(r#"{kafka},"linger_ms":"20"}}"#), "linger_ms"),
        (r#"{"type":"kafak"}"#.to_owned(), "type"),
        (r#"{"type":"stdout","topic":"t"}"#.to_owned(), "topic"),
    ] {
        let error = kube::render(&["--set-json", &format!("config.sinks=[{sink}]")])
            .expect_err("the agent would refuse it");
        assert!(format!("{error:#}").contains(named), "{sink}: {error:#}");
    }
    let options = r#"{"socket.keepalive.enable":"true"}"#;
    let sinks = format!(r#"config.sinks=[{kafka},"options":{options}}}]"#);
    kube::render(&["--set-json", &sinks]).map(drop)
}

/// The complete configuration, with each key and its default, and the examples.
#[test]
fn no_valid_configuration_is_refused() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    let mut files = vec![root.join("deploy/tap53.yaml")];
    for entry in fs::read_dir(root.join("examples"))? {
        let path = entry?.path();
        let is_config = path.extension().is_some_and(|extension| extension == "yaml")
            && !path.ends_with("kubernetes-values.yaml");
        files.extend(is_config.then_some(path));
    }
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        // The chart refuses placeholders.
        let text = fs::read_to_string(&file)?.replace(".example", ".internal");
        let config: Value = serde_saphyr::from_str(&text)?;
        let mut config = config.as_object().cloned().context("a section")?;
        // The chart requires them, and refuses a socket outside of its volumes.
        config.entry("sinks").or_insert(json!([]));
        config.remove("control");
        let values = tempfile::NamedTempFile::new()?;
        fs::write(values.path(), json!({"config": config}).to_string())?;
        let path = values.path().to_str().context("a path in UTF-8")?;
        kube::render(&["--values", path]).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

#[test]
fn placeholders_are_refused() -> Result<()> {
    let error = kube::render_defaults(&[]).expect_err("nobody is at that address");
    let error = format!("{error:#}");
    assert!(error.contains("config.sinks[0].brokers: kafka.example:9092 is a"), "{error}");
    let sinks = r#"config.sinks=[{"type":"kafka","brokers":["a:9092"],"topic":"t",
        "registry":{"urls":["https://r.example"]}}]"#;
    let error = kube::render_defaults(&["--set-json", sinks]).expect_err("a placeholder");
    assert!(format!("{error:#}").contains("registry.urls: https://r.example is a"), "{error:#}");
    Ok(())
}

/// (Renders the chart, since `helm lint` ignores failures of templates.)
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
fn the_chart_has_the_alerts_and_dashboards_as_they_are() -> Result<()> {
    for (source, copy) in kube::copied_files() {
        assert!(
            fs::read_to_string(&source)? == fs::read_to_string(&copy)?,
            "{} is not a copy of {}: run `cargo xtask manifests`",
            copy.display(),
            source.display()
        );
    }
    let objects = kube::render(&[
        "--set",
        "prometheusRule.enabled=true",
        "--set",
        "prometheusRule.labels.release=main",
        "--set",
        "dashboards.enabled=true",
    ])?;
    let objects: Vec<Value> = objects_of(&objects)?;
    let rule = one(&objects, "PrometheusRule")?;
    assert_eq!(rule["metadata"]["labels"]["release"], "main");
    let groups: Vec<&Value> = rule["spec"]["groups"].as_array().into_iter().flatten().collect();
    let names: Vec<&str> = groups.iter().filter_map(|group| group["name"].as_str()).collect();
    assert_eq!(names, ["tap53", "tap53-dns"]);
    // Prometheus's own templates pass helm's unchanged.
    assert!(rule.to_string().contains("{{ $labels.instance }}"), "{rule}");
    let boards = objects
        .iter()
        .find(|object| object["metadata"]["name"] == "tap53-dashboards")
        .context("dashboards")?;
    for (source, _) in kube::copied_files().into_iter().filter(|(path, _)| is_board(path)) {
        let name = source.file_name().and_then(|name| name.to_str()).context("a name")?;
        let board: Value = serde_json::from_str(boards["data"][name].as_str().context("a board")?)?;
        let expected: Value = serde_json::from_str(&fs::read_to_string(&source)?)?;
        assert_eq!(board, expected, "{name}");
    }
    assert_eq!(boards["metadata"]["labels"]["grafana_dashboard"], "1");
    Ok(())
}

#[test]
fn monitors_need_a_port_that_prometheus_reaches() -> Result<()> {
    for monitor in ["podMonitor", "serviceMonitor"] {
        let enabled = format!("{monitor}.enabled=true");
        let error = kube::render(&["--set", &enabled]).expect_err("at 127.0.0.1");
        assert!(format!("{error:#}").contains("config.telemetry.listen"), "{error:#}");
        let listens = "config.telemetry.listen=0.0.0.0:9999";
        let objects = objects_of(&kube::render(&["--set", &enabled, "--set", listens])?)?;
        let text = serde_json::to_string(&objects)?;
        match monitor {
            "podMonitor" => {
                let monitor = one(&objects, "PodMonitor")?;
                let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
                assert!(endpoint.to_string().contains("$1:9999"), "{endpoint}");
            }
            _ => {
                let service = one(&objects, "Service")?;
                assert_eq!(service["spec"]["ports"][0]["targetPort"], 9999);
                assert_eq!(
                    one(&objects, "ServiceMonitor")?["spec"]["endpoints"][0]["port"],
                    "metrics"
                );
            }
        }
        assert!(!text.contains("containerPort"), "it would reserve the port on the node");
    }
    Ok(())
}

#[test]
fn names_labels_registry_and_arguments_are_values() -> Result<()> {
    let objects = objects_of(&kube::render(&[
        "--set",
        "nameOverride=dnstap",
        "--set",
        "commonLabels.team=dns",
        "--set",
        "global.imageRegistry=registry.example:5000",
        "--set",
        "extraArgs={--log-level,debug}",
        "--set",
        "securityContextConstraints.create=true",
        "--set",
        "prepareStateVolume=false",
    ])?)?;
    for object in &objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(
            (&labels["team"], &labels["app.kubernetes.io/name"]),
            (&json!("dns"), &json!("dnstap")),
            "{object}"
        );
        assert_eq!(
            object["metadata"]["name"].as_str().map(|name| name.starts_with("tap53-dnstap")),
            Some(true)
        );
    }
    let pods = &one(&objects, "DaemonSet")?["spec"]["template"];
    let container = &pods["spec"]["containers"][0];
    let image = concat!("registry.example:5000/tap53/tap53:", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], image);
    let arguments = ["run", "--config", "/etc/tap53/config/tap53.yaml", "--log-level", "debug"];
    assert_eq!(container["args"], json!(arguments));
    // kubectl's commands need no -c.
    assert_eq!(pods["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "tap53");
    assert_eq!(container["startupProbe"]["periodSeconds"], 1);
    // Without the init container no process is root.
    let constraints = one(&objects, "SecurityContextConstraints")?;
    assert_eq!(constraints["runAsUser"], json!({"type": "MustRunAs", "uid": 65532}));
    assert_eq!(constraints["allowedCapabilities"], json!(["BPF", "NET_ADMIN", "PERFMON"]));
    assert_eq!(constraints["users"], json!(["system:serviceaccount:tap53:tap53-dnstap"]));
    Ok(())
}

/// helm warns where a value of the chart and its replacement have different types.
#[test]
fn a_state_volume_replaces_the_default_without_a_warning() -> Result<()> {
    let values = tempfile::NamedTempFile::new()?;
    fs::write(values.path(), "stateVolume: {emptyDir: {sizeLimit: 2Gi}}\n")?;
    let path = values.path().to_str().context("a path in UTF-8")?;
    let (objects, warnings) = kube::render_with_warnings(&["--values", path])?;
    assert_eq!(warnings, "");
    let objects = objects_of(&objects)?;
    let pods = &one(&objects, "DaemonSet")?["spec"]["template"]["spec"];
    let volumes = pods["volumes"].as_array().into_iter().flatten();
    let state: Vec<_> = volumes.filter(|volume| volume["name"] == "state").collect();
    assert_eq!(state, [&json!({"name": "state", "emptyDir": {"sizeLimit": "2Gi"}})]);
    assert!(pods["initContainers"].is_null());
    for none in ["null", "none"] {
        let objects = kube::render(&["--set", &format!("stateVolume={none}")])?;
        assert!(!objects.contains("/var/lib/tap53"), "{objects}");
    }
    Ok(())
}

fn is_board(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn objects_of(text: &str) -> Result<Vec<Value>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

fn one<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))
}

#[test]
fn each_value_changes_its_own_lines_only() -> Result<()> {
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
    for (endpoint, port) in [
        ("http://collector.observability.svc:4318", "4318"),
        ("http://[2001:db8::1]:4319/otlp", "4319"),
        ("http://collector", "80"),
    ] {
        let export = format!("config.telemetry.otlp.endpoint={endpoint}");
        assert_eq!(
            differing(&["--set-literal", &export])?,
            [
                format!("- {{protocol: TCP, port: {port}}}"),
                "otlp:".to_owned(),
                format!("endpoint: {endpoint}"),
            ]
        );
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
    // A value that removes something adds nothing.
    for less in ["spool.mode=off", "prepareStateVolume=false", "stateVolume=null"] {
        assert_eq!(differing(&["--set", less])?, [""; 0], "{less}");
    }
    let without = kube::render(&["--set", "stateVolume=null"])?;
    assert!(!without.contains("/var/lib/tap53"), "{without}");
    let hash = differing(&["--set", "restartOnConfigChange=true"])?;
    assert_eq!(hash.len(), 1, "{hash:?}");
    assert!(hash[0].starts_with("tap53/config-sha256: "), "{hash:?}");
    Ok(())
}

/// The chart's configuration with these values, as the agent reads it.
fn configuration(values: &[&str]) -> Result<Config> {
    let objects = kube::render(values)?;
    let (_, after) = objects.split_once("tap53.yaml: |\n").context("the configuration")?;
    let lines = after.lines().take_while(|line| line.starts_with("    "));
    let yaml: Vec<&str> = lines.filter_map(|line| line.get(4..)).collect();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("tap53.yaml");
    fs::write(&file, yaml.join("\n"))?;
    Ok(Config::load(Some(&file), &Overrides::default())?)
}

fn names(selectors: &[Selector]) -> Vec<&str> {
    selectors.iter().map(Selector::as_str).collect()
}

#[test]
fn presets_add_to_the_default_and_the_configuration_has_precedence() -> Result<()> {
    let usual = ["kind:physical", "kind:pods"];
    let (auto, tc) = (HookChoice::Auto, HookChoice::Tc);
    for (presets, more, hook) in [
        ("[]", &[][..], auto),
        (r#"["flannel"]"#, &["kind:bridges", "kind:tunnels"], auto),
        (r#"["calico"]"#, &["kind:tunnels"], auto),
        (r#"["cilium"]"#, &["kind:tunnels"], auto),
        (r#"["aws-vpc-cni"]"#, &[], tc),
        (r#"["nodelocaldns"]"#, &["kind:loopback"], auto),
        (r#"["aws-vpc-cni", "nodelocaldns"]"#, &["kind:loopback"], tc),
        (r#"["calico", "cilium", "nodelocaldns"]"#, &["kind:tunnels", "kind:loopback"], auto),
    ] {
        let config = configuration(&["--set-json", &format!("presets={presets}")])?;
        assert_eq!(names(&config.interfaces.include), [&usual[..], more].concat(), "{presets}");
        assert_eq!(config.capture.hook, hook, "{presets}");
        assert_eq!(config.capture.workers, 2, "{presets}: what the values set stays");
    }
    #[rustfmt::skip]
    let own = configuration(&[
        "--set", "presets={flannel,aws-vpc-cni}", "--set", "config.capture.hook=xdp",
        "--set", "config.interfaces.include={eth0,veth*}",
        "--set", "config.interfaces.exclude={veth9}",
    ])?;
    assert_eq!(names(&own.interfaces.include), ["eth0", "veth*"]);
    assert_eq!(names(&own.interfaces.exclude), ["veth9"]);
    assert_eq!(own.capture.hook, HookChoice::Xdp);
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
fn without_a_control_socket_liveness_is_probed_by_http() -> Result<()> {
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

#[test]
fn chart_and_dockerfile_have_the_version_of_the_agent() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let directory = kube::chart();
    let text = fs::read_to_string(directory.join("Chart.yaml"))?;
    for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
        assert!(text.lines().any(|found| found == line), "{line} is not in Chart.yaml");
    }
    let deploy = directory.ancestors().nth(2).context("the chart is below deploy")?;
    let dockerfile = fs::read_to_string(deploy.join("Dockerfile"))?;
    let line = format!("ARG VERSION={version}");
    assert!(dockerfile.lines().any(|found| found == line), "{line} is not in deploy/Dockerfile");
    Ok(())
}
