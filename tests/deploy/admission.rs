//! The manifests at an API server: validation, pod security, and the rights of the account.

use super::*;

#[test]
fn the_api_server_accepts_the_manifests_and_the_agent_their_configuration() -> Result<()> {
    let api = KubeApi::start_with(None, &[])?;
    let file = kube::manifests().display().to_string();
    apply_manifests(&api)?;
    // The API server stores every field: a second apply changes nothing.
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
    // The cgroups, which are mounted read-only, and what outlives the pod.
    let cgroups = json!({"path": "/sys/fs/cgroup", "type": "Directory"});
    let state = json!({"path": "/var/lib/tap53", "type": "DirectoryOrCreate"});
    assert_eq!(of_node, [&cgroups, &state]);
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
    // There are no warnings either: its topic has a registry.
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
fn the_pods_need_the_level_privileged_for_the_documented_reasons_only() -> Result<()> {
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
        (&["--set", "stateVolume=null"], true, false),
        (&["--set", "stateVolume=null", "--set", "config.containers.enabled=false"], false, false),
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

/// Returns the rules of an account, as the API server reports them to the account.
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
fn the_account_has_the_rights_of_its_role_only() -> Result<()> {
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
