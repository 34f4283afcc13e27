//! The harness's own parts, before the agent comes into play: if one of these fails, look here and
//! not at the agent.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use serde_json::json;
use tap53_harness::{
    bpf::{self, XdpHolder, XdpMode},
    client::Transport,
    fastavro,
    kafka::Kafka,
    kube::KubeApi,
    lab::{ANSWERED, Lab, UNANSWERED},
    namespace::Namespace,
    process::{Process, run},
};

#[test]
fn the_resolver_answers_and_nothing_else_is_on_the_wire() -> Result<()> {
    let lab = Lab::new()?;
    let before = lab.server.packets("s0")?;
    for client in [lab.client_v4(), lab.client_v6()] {
        for question in ANSWERED {
            let exchange = client.ask(Transport::Udp, question)?;
            let (response, _) = exchange.response.expect("asked with an answer");
            let expected = match question.name {
                "nowhere.absent.test" => "NXDOMAIN",
                "elsewhere.example" => "REFUSED",
                _ => "NOERROR",
            };
            assert_eq!(response.rcode, expected, "{question:?}");
            assert_eq!(response.answers.is_empty(), expected != "NOERROR", "{question:?}");
        }
        client.ask_in_vain(UNANSWERED)?;
    }
    let after = lab.server.packets("s0")?;
    let queries = 2 * (ANSWERED.len() as u64 + 1);
    assert_eq!(after.received - before.received, queries);
    assert_eq!(after.sent - before.sent, queries - 2);
    Ok(())
}

#[test]
fn answers_also_come_over_tcp() -> Result<()> {
    let lab = Lab::new()?;
    let over_tcp = lab.client_v4().ask(Transport::Tcp, ANSWERED[0])?;
    let over_udp = lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let answers = |exchange: tap53_harness::client::Exchange| {
        let mut answers = exchange.response.expect("asked with an answer").0.answers;
        // unbound rotates them.
        answers.sort_by_key(ToString::to_string);
        answers
    };
    assert_eq!(answers(over_tcp), answers(over_udp));
    Ok(())
}

#[test]
fn a_dropped_namespace_is_gone() -> Result<()> {
    let namespace = Namespace::new()?;
    let name = namespace.name().to_owned();
    drop(namespace);
    let left = run(Command::new("ip").args(["netns", "list"]))?;
    assert!(!left.contains(&name), "{left}");
    Ok(())
}

#[test]
fn a_dropped_process_takes_its_group_with_it() -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo $! >&2; wait"]);
    let process = Process::spawn("sh", command)?;
    let grandchild = process.wait_for_line("", 0, Duration::from_secs(10))?;
    drop(process);
    let stat = format!("/proc/{grandchild}/stat");
    tap53_harness::wait::until("the grandchild to go", Duration::from_secs(10), || {
        // A zombie that init has not yet collected counts as gone.
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
    })
}

#[test]
fn a_holder_of_the_xdp_slot_is_seen_and_goes_away() -> Result<()> {
    let lab = Lab::new()?;
    for mode in [XdpMode::Native, XdpMode::Generic] {
        bpf::require_bare(&lab.server, "s0")?;
        let holder = XdpHolder::attach(&lab.server, "s0", mode)?;
        assert!(bpf::require_bare(&lab.server, "s0").is_err(), "{mode:?}");
        assert!(XdpHolder::attach(&lab.server, "s0", mode).is_err(), "{mode:?} twice");
        drop(holder);
    }
    bpf::require_bare(&lab.server, "s0")
}

#[test]
fn kafka_keeps_acknowledged_messages_across_a_kill() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic("records")?;
    assert!(kafka.create_topic("records").is_err(), "created twice");
    // kcat sends a file as one message.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), b"first\nvalue")?;
    let mut kcat = namespace.command("kcat");
    kcat.args(["-P", "-b", &kafka.address(), "-t", "records", "-p", "0"]);
    run(kcat.arg(file.path()))?;
    let values = |kafka: &Kafka<'_>| -> Result<Vec<Vec<u8>>> {
        Ok(kafka.consume("records")?.into_iter().map(|message| message.value).collect())
    };
    assert_eq!(values(&kafka)?, [b"first\nvalue"]);
    kafka.kill();
    kafka.restart()?;
    assert_eq!(values(&kafka)?, [b"first\nvalue"]);
    Ok(())
}

/// A pod with an address, as a kubelet would report it, and an account that may read pods.
const POD_AND_READER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec:
  nodeName: node-1
  containers: [{name: main, image: example.test/client}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
"#;

#[test]
fn the_api_server_keeps_a_pod_across_a_kill_and_denies_requests_without_a_role() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut api = KubeApi::start(&namespace)?;
    api.apply(POD_AND_READER)?;
    assert!(api.apply("{apiVersion: v1, kind: Pod, metadata: {name: empty}}").is_err());
    let status = json!({"status": {"phase": "Running", "podIPs": [{"ip": "198.51.100.1"}]}});
    #[rustfmt::skip]
    api.kubectl(&[
        "patch", "pod", "client", "--subresource=status", "--patch", &status.to_string(),
    ])?;

    let hour = Duration::from_secs(3600);
    let account = api.account("default", "reader", hour)?;
    let address = |api: &KubeApi<'_>| {
        let field = "--output=jsonpath={.status.podIP}";
        api.kubectl_as(&account.kubeconfig, &["get", "pod", "client", field])
    };
    assert_eq!(address(&api)?, "198.51.100.1");
    let url = api.url();
    api.kill();
    assert!(address(&api).is_err(), "killed");
    api.restart()?;
    assert_eq!(api.url(), url);
    assert_eq!(address(&api)?, "198.51.100.1", "by the token from before");

    let refused = |arguments: &[&str]| {
        let error = api.kubectl_as(&account.kubeconfig, arguments).expect_err("refused");
        format!("{error:#}")
    };
    assert!(refused(&["delete", "pod", "client"]).contains("Forbidden"));
    assert!(refused(&["get", "nodes"]).contains("Forbidden"));
    let requests = api.requests_of(&account.user)?;
    let seen = |verb: &str, resource: &str, code: u64| {
        let fits = |r: &&tap53_harness::kube::Request| {
            (r.verb.as_str(), r.resource.as_str(), r.code) == (verb, resource, code)
        };
        requests.iter().filter(fits).count()
    };
    assert_eq!(seen("get", "pods", 200), 2, "{requests:#?}");
    assert_eq!(seen("delete", "pods", 403), 1, "{requests:#?}");
    assert_eq!(seen("list", "nodes", 403), 1, "{requests:#?}");

    // One that ends soon, and one that has ended.
    let now = SystemTime::now();
    api.account_expiring("default", "reader", now + hour / 60)?;
    assert_eq!(address(&api)?, "198.51.100.1");
    api.account_expiring("default", "reader", now - hour)?;
    let error = address(&api).expect_err("expired");
    assert!(format!("{error:#}").contains("Unauthorized"), "{error:#}");
    Ok(())
}

#[test]
fn fastavro_reads_single_objects_and_checks_their_fingerprint() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let schema = directory.path().join("schema.avsc");
    std::fs::write(
        &schema,
        r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}"#,
    )?;
    let message = b"\xc3\x01\0\0\0\0\0\0\0\0\x02".as_slice();
    let refused = fastavro::read_single_objects(&schema, std::iter::once(message));
    let refusal = refused.expect_err("a fingerprint of zeros").to_string();
    let fingerprint = refusal.rsplit(' ').next().expect("the schema's fingerprint");
    let mut message = message.to_vec();
    for (byte, pair) in message[2..].iter_mut().zip(fingerprint.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
    }
    let records = fastavro::read_single_objects(&schema, std::iter::once(&message[..]))?;
    assert_eq!(records, [json!({ "n": 1 })]);
    Ok(())
}
