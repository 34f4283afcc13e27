//! `helm test`: the pod of the chart, next to a running agent.

use std::net::IpAddr;

use tap53_harness::namespace::{Namespace, SERVER_END};

use super::*;

/// The pod of `helm test`, as kubelet and runtime start it.
struct Tester {
    object: Value,
    privileges: Privileges,
    arguments: Vec<String>,
    image: Image,
}

/// The end of a test.
#[derive(Debug)]
struct Tested {
    code: Option<i32>,
    log: String,
}

impl Tester {
    /// The pod of the chart with `values`, which the API server has accepted. It uses the resolver of the
    /// laboratory.
    fn rendered(api: &KubeApi<'_>, values: &[&str]) -> Result<Self> {
        api.apply(&kube::render_test(values)?)?;
        let object = object(api, "pod", &format!("{RELEASE}-test"))?;
        let spec = &object["spec"];
        let container = &spec["containers"][0];
        let host = IpAddr::from(SERVER_END.ipv4).to_string();
        let arguments = container["args"].as_array().context("args")?.iter();
        let arguments = arguments.filter_map(Value::as_str);
        let image = Image::of(&agent::binary()?)?;
        fs::write(image.path("/etc/resolv.conf"), format!("nameserver {host}\n"))?;
        Ok(Self {
            privileges: Privileges::of(spec, container)?,
            arguments: arguments.map(|text| text.replace("$(HOST_IP)", &host)).collect(),
            image,
            object,
        })
    }

    /// Runs it to its end, in the network namespace of its node or in one of its own.
    fn run(&self, namespace: &Namespace) -> Result<Tested> {
        let mut command = self.privileges.command(namespace, &self.image, &[])?;
        command.env_clear().args(&self.arguments);
        let mut process = Process::spawn("probe", command)?;
        let code = process.wait(DEADLINE)?.code();
        let log = format!("{}{}", process.stdout().text(), process.stderr().text());
        Ok(Tested { code, log })
    }

    fn require(&self, namespace: &Namespace, code: i32, text: &[&str]) -> Result<()> {
        let tested = self.run(namespace)?;
        let says_all = text.iter().all(|text| tested.log.contains(text));
        ensure!(tested.code == Some(code) && says_all, "{tested:?} without {text:?}");
        Ok(())
    }
}

#[test]
fn on_the_network_of_the_node_it_passes_while_the_agent_captures_and_fails_otherwise() -> Result<()>
{
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    // The laboratory's resolver is on the node itself.
    let agent = Pod::installed(&lab, &api, &["--set", "config.interfaces.include={lo}"])?;
    let tester = Tester::rendered(&api, &[])?;
    assert_eq!(tester.object["spec"]["hostNetwork"], true);
    assert_eq!(tester.privileges.capabilities, 0);
    assert!(tester.privileges.no_new_privileges && tester.privileges.read_only_root);

    let text = ["cannot follow the probe at http://127.0.0.1:9530/probe", "does an agent run"];
    tester.require(&lab.server, 1, &text)?;
    let process = agent.run()?;
    tester.require(
        &lab.server,
        0,
        &["captures from lo", "NXDOMAIN from 198.51.100.2:53", "MATCHED at lo", "what was sent"],
    )?;
    let disable = ["disable", "lo"].map(str::to_owned);
    ensure!(agent.start(&disable)?.wait(DEADLINE)?.success(), "disable");
    tester.require(
        &lab.server,
        1,
        &["no record within 5s: the agent captures from no interface"],
    )?;
    drop(process);
    Ok(())
}

#[test]
fn on_its_own_network_it_is_recorded_at_the_node_s_end_of_its_pair() -> Result<()> {
    let lab = Lab::new()?;
    let api = KubeApi::start(&lab.server)?;
    let listen = ["--set", "config.telemetry.listen=0.0.0.0:9530"];
    let agent = Pod::installed(&lab, &api, &listen)?;
    let own = [&listen[..], &["--set", "test.hostNetwork=false"]].concat();
    let tester = Tester::rendered(&api, &own)?;
    assert!(tester.object["spec"]["hostNetwork"].is_null());
    let _process = agent.run()?;
    let stages = ["captures from s0", "NXDOMAIN", "MATCHED at s0 (ingress)", "what was sent"];
    tester.require(&lab.client, 0, &stages)?;
    let disable = ["disable", "s0"].map(str::to_owned);
    ensure!(agent.start(&disable)?.wait(DEADLINE)?.success(), "disable");
    tester.require(&lab.client, 1, &["no record within 5s: the agent captures from no interface"])
}

#[test]
fn it_is_there_where_the_telemetry_port_can_be_reached() -> Result<()> {
    let loopback = kube::render_test(&["--set", "test.hostNetwork=false"]);
    let error = format!("{:#}", loopback.expect_err("pods cannot reach 127.0.0.1"));
    assert!(error.contains("config.telemetry.listen"), "{error}");
    kube::render_test(&["--set", "config.telemetry.enabled=false"]).expect_err("no port, no test");
    let listening = kube::render_test(&["--set", "config.telemetry.listen=[::]:9531"])?;
    assert!(listening.contains("\"[127.0.0.1]:9531\""), "{listening}");
    // No controller of the agents may take it for one of theirs.
    let test = kube::render_test(&[])?;
    assert!(!test.contains("app.kubernetes.io/name: tap53\n"), "{test}");
    assert!(!kube::render(&[])?.contains("helm.sh/hook"));
    Ok(())
}
