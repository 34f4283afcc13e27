//! The permissions that the agent uses, and the annotation of its node.

use super::*;

/// Creates the objects that a kubelet and controllers would create: this node, and on it a pod of a
/// CronJob with the address of the client.
fn create_cluster(api: &KubeApi<'_>) -> Result<()> {
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

/// Returns the permissions of a role, as (verb, group, resource).
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
        // `kubectl auth can-i` asks the same, without the name of the object and the namespace.
        let (verb, object) = right.split_once(' ')?;
        let kind = object.split([' ', '/']).next()?;
        let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
        Some((verb.to_owned(), group.to_owned(), resource.to_owned()))
    };
    rights.map(|right| parts(right).with_context(|| right.to_owned())).collect()
}

#[test]
fn the_agent_uses_every_permission_of_its_role_and_is_denied_none() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let services = ["--set", "config.kubernetes.services=false"];
    for (values, count) in [(&[][..], 7), (&services[..], 5)] {
        let pod = Pod::installed(&lab, &api, values)?;
        create_cluster(&api)?;
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
        // They are effective: the record names the client, up to the CronJob.
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
    create_cluster(&api)?;
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
