mod filter;
mod kafka;
mod keep;
mod kubernetes;
mod privacy;

use std::collections::BTreeMap;

use http::HeaderValue;
use tap53_capture::interfaces::{Interface, Selector};
use tap53_dns::Kept;
use tap53_ebpf::settings::{PortSet, features};
use tap53_otlp::config::{Compression, OtlpConfig};
use tap53_records::encode::{Key, Profile};

use super::*;
use crate::telemetry::config::PodInterfaces;

mod flags;
mod problems;

const FULL: &str = r#"
node: gateway-1
interfaces:
  include: ["eth*", "veth0"]
  exclude: ["eth9"]
  directions: ingress
capture:
  hook: tc
  xdp_mode: generic
  tc: clsact
  ports: [mdns, 53, 53]
  fragments: false
  tunnels:
    - interfaces: ["eth*"]
      types: [geneve, vxlan, geneve]
    - interfaces: ["eth1", "gre*"]
      types: [gre]
  vxlan_ports: [8472, 4789]
  geneve_ports: [6082]
  snap_length: 1500
  workers: 3
  ring_bytes: 1048576
  max_interfaces: 64
  kernel_log: true
pair:
  timeout_ms: 2500
  capacity: 1024
record:
  profile: flat
  wire_bytes: true
  all_sections: true
  max_bytes: 65536
sinks:
  - type: stdout
    format: json
    color: never
  - type: file
    directory: /
    prefix: dns
    rotate_bytes: 65536
    rotate_after_s: 60
    codec: deflate
    group_read: true
  - type: kafka
    name: archive
    brokers: ["127.0.0.1:9092", "[::1]:9093", "broker.example:9094"]
    topic: dns-transactions
    create_topic:
      partitions: 6
      replication_factor: 3
      options:
        retention.ms: 604800000
        cleanup.policy: delete
    compression: gzip
    linger_ms: 0
    batch_bytes: 65536
    batch_records: 500
    message_timeout_ms: 60000
    queue_bytes: 1048576
    key: registrable_domain
    headers: true
    tls:
      ca_file: /etc/passwd
      certificate_file: /etc/hosts
      key_file: /etc/group
      key_password_file: /etc/group
      verify_hostname: false
    sasl:
      mechanism: scram-sha-512
      allow_cleartext: true
      username: tap53
      password_file: /etc/passwd
    options:
      client.id: x
      retries: 1000
      socket.keepalive.enable: true
    summary: {topic: dns-ledger, interval_s: 30, chain: true}
    spool:
      mode: durable
      directory: /var/lib/tap53/spool
      max_bytes: 8388608
      max_age_s: 3600
      fsync: interval
      fsync_interval_ms: 250
      replay_records_per_s: 500
    registry:
      urls: ["http://registry:8081/", "http://[::1]:8082/apis/ccompat/v7"]
      subject: topic_record_name
      register: false
      username: tap53
      password_file: /etc/passwd
      allow_cleartext: true
      timeout_ms: 2500
      ids_file: /var/tap53-ids.json
privileges:
  user: "65534:53"
  keep: true
state:
  directory: /var/lib/tap53/state
shutdown:
  flush_timeout_ms: 1500
telemetry:
  enabled: false
  listen: "[::1]:9999"
  heartbeat_timeout_ms: 2000
  pod_interfaces: each
  otlp:
    endpoint: https://collector/otlp
    headers: {X-Scope: dns}
    header_files: {Authorization: /etc/passwd}
    allow_cleartext: true
    ca_file: /etc/passwd
    interval_ms: 5000
    timeout_ms: 2500
    compression: none
    resource_attributes: {k8s.cluster.name: production}
dns_metrics:
  enabled: false
  by: namespace
  max_series: 500
  names: true
  clients: true
  top: 7
signals:
  enabled: true
  new_domains: false
  tunnels: false
  dga: false
  rebinding: false
  learning_seconds: 3600
  internal_suffixes: [Corp.Example.com.]
  lookup_services: []
  private_zones: [example.net]
  max_memory_mib: 8
log:
  level: debug
"#;

pub(super) fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Some(Path::new("tap53.yaml")), text, &Overrides::default())
}

fn parse_with(text: &str, overrides: &Overrides) -> Result<Config, Error> {
    Config::parse(None, text, overrides)
}

/// The messages of a refused configuration, one a line, without file and line.
pub(super) fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Err(Error::Refused { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_key_reaches_its_field() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.node, "gateway-1");
    assert!(config.interfaces.include[0].matches(&Interface::named("eth0")));
    assert_eq!(config.interfaces.exclude[0].as_str(), "eth9");
    assert_eq!(config.interfaces.directions, Directions::Ingress);
    assert_eq!(
        config.capture,
        CaptureConfig {
            hook: HookChoice::Tc,
            xdp_mode: XdpMode::Generic,
            tc: TcChoice::Clsact,
            ports: vec![53, 5353],
            fragments: false,
            tunnels: vec![
                TunnelRule {
                    interfaces: vec![Selector::parse("eth*").unwrap()],
                    types: vec![TunnelType::Vxlan, TunnelType::Geneve],
                },
                TunnelRule {
                    interfaces: ["eth1", "gre*"]
                        .map(|text| Selector::parse(text).unwrap())
                        .to_vec(),
                    types: vec![TunnelType::Gre],
                },
            ],
            vxlan_ports: vec![4789, 8472],
            geneve_ports: vec![6082],
            snap_length: 1500,
            workers: 3,
            ring_bytes: 1 << 20,
            max_interfaces: 64,
            kernel_log: true,
        }
    );
    assert_eq!(config.pair.udp_timeout, Duration::from_millis(2500));
    assert_eq!(config.pair.capacity, 1024);
    assert_eq!(config.record.profile, Profile::Flat);
    assert!(config.record.wire_bytes);
    assert_eq!(config.record.kept(), Kept::All);
    assert_eq!(config.record.max_bytes, 65_536);
    assert_eq!(
        config.sinks,
        [
            SinkConfig::Stdout(StdoutConfig {
                name: "stdout".to_owned(),
                format: TextFormat::Json,
                color: ColorChoice::Never,
                columns: None,
                local_time: false,
                dated: false,
            }),
            SinkConfig::File(FileConfig {
                name: "file".to_owned(),
                directory: "/".into(),
                prefix: "dns".to_owned(),
                rotate_bytes: 65_536,
                rotate_after: Duration::from_secs(60),
                codec: FileCodec::Deflate,
                group_read: true,
                profile: Profile::Flat,
            }),
            SinkConfig::Kafka(Box::new(KafkaConfig {
                name: "archive".to_owned(),
                brokers: ["127.0.0.1:9092", "[::1]:9093", "broker.example:9094"]
                    .map(str::to_owned)
                    .to_vec(),
                topic: "dns-transactions".to_owned(),
                create_topic: Some(CreateTopic {
                    partitions: Some(6),
                    replication_factor: Some(3),
                    options: [("retention.ms", "604800000"), ("cleanup.policy", "delete")]
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .into(),
                }),
                compression: KafkaCompression::Gzip,
                linger: Duration::ZERO,
                batch_bytes: 65_536,
                batch_records: 500,
                message_timeout: Duration::from_secs(60),
                queue_bytes: 1 << 20,
                key: Key::RegistrableDomain,
                headers: true,
                tls: Some(TlsConfig {
                    ca_file: Some("/etc/passwd".into()),
                    certificate_file: Some("/etc/hosts".into()),
                    key_file: Some("/etc/group".into()),
                    key_password_file: Some("/etc/group".into()),
                    verify_hostname: false,
                }),
                sasl: Some(SaslConfig {
                    allow_cleartext: true,
                    mechanism: SaslMechanism::ScramSha512,
                    credentials: Credentials::Password {
                        username: "tap53".to_owned(),
                        password_file: "/etc/passwd".into(),
                    },
                }),
                options: [
                    ("client.id", "x"),
                    ("retries", "1000"),
                    ("socket.keepalive.enable", "true")
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
                summary: Some(SummaryConfig {
                    topic: "dns-ledger".to_owned(),
                    interval: Duration::from_secs(30),
                    chain: true,
                    signing: None,
                }),
                spool: Some(SpoolConfig {
                    mode: SpoolMode::Durable,
                    directory: "/var/lib/tap53/spool".into(),
                    max_bytes: 8 << 20,
                    max_age: Some(Duration::from_secs(3_600)),
                    fsync: FsyncChoice::Interval,
                    fsync_interval: Duration::from_millis(250),
                    replay_records_per_s: Some(500),
                }),
                registry: Some(RegistryConfig {
                    urls: vec![
                        "http://registry:8081".to_owned(),
                        "http://[::1]:8082/apis/ccompat/v7".to_owned(),
                    ],
                    subject: SubjectStrategy::TopicRecordName,
                    register: false,
                    credentials: Some(RegistryCredentials::Password {
                        username: "tap53".to_owned(),
                        password_file: "/etc/passwd".into(),
                    }),
                    allow_cleartext: true,
                    ca_file: None,
                    timeout: Duration::from_millis(2_500),
                    ids_file: Some("/var/tap53-ids.json".into()),
                }),
                profile: Profile::Flat,
            })),
        ]
    );
    let run_as = RunAs::Number { uid: 65_534, gid: 53 };
    assert_eq!(config.privileges, PrivilegesConfig { user: Some(run_as), keep: true });
    assert_eq!(config.state.directory.as_deref(), Some(Path::new("/var/lib/tap53/state")));
    assert_eq!(config.shutdown.flush_timeout, Duration::from_millis(1500));
    let dns_metrics = DnsMetricsConfig {
        enabled: false,
        by: ClientLabel::Namespace,
        max_series: 500,
        names: true,
        clients: true,
        top: 7,
    };
    assert_eq!(config.dns_metrics, dns_metrics);
    let otlp = OtlpConfig {
        endpoint: "https://collector/otlp".to_owned(),
        headers: BTreeMap::from([("x-scope".to_owned(), HeaderValue::from_static("dns"))]),
        header_files: BTreeMap::from([("authorization".to_owned(), "/etc/passwd".into())]),
        allow_cleartext: true,
        ca_file: Some("/etc/passwd".into()),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(2_500),
        compression: Compression::None,
        resource_attributes: BTreeMap::from([(
            "k8s.cluster.name".to_owned(),
            "production".to_owned(),
        )]),
    };
    let telemetry = TelemetryConfig {
        enabled: false,
        listen: "[::1]:9999".parse().unwrap(),
        heartbeat_timeout: Duration::from_secs(2),
        pod_interfaces: PodInterfaces::Each,
        otlp: Some(otlp),
    };
    assert_eq!(config.telemetry, telemetry);
    let signals = SignalsConfig {
        enabled: true,
        new_domains: false,
        tunnels: false,
        dga: false,
        rebinding: false,
        learning: Duration::from_secs(3_600),
        internal_suffixes: vec!["corp.example.com".to_owned()],
        lookup_services: Vec::new(),
        private_zones: vec!["example.net".to_owned()],
        max_memory_mib: 8,
        state: Some("/var/lib/tap53/state/domains".into()),
    };
    assert_eq!(config.signals, signals);
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    for text in [FULL, "interfaces: {include: [lo]}"] {
        let config = parse(text).unwrap();
        let yaml = config.to_yaml().unwrap();
        assert_eq!(parse(&yaml).unwrap(), config, "{yaml}");
    }
}

#[test]
fn defaults_need_only_an_interface() {
    let overrides = Overrides { interfaces: vec!["lo".to_owned()], ..Overrides::default() };
    for text in ["", "# nothing\n", "capture:\n", "sinks: []"] {
        let config = parse_with(text, &overrides).unwrap();
        assert_eq!(config.interfaces.include[0].as_str(), "lo");
        assert_eq!(config.capture.ports, [53]);
        assert!(config.capture.fragments);
        assert_eq!(config.capture.features_of(&Interface::named("eth0")), features::FRAGMENTS);
        assert!((1..=8).contains(&config.capture.workers));
        assert!(!config.node.is_empty());
        assert!(
            matches!(&config.sinks[..], [SinkConfig::Stdout(stdout)] if stdout.format == TextFormat::Text)
        );
    }
}

#[test]
fn a_port_is_in_one_set_only() {
    assert_eq!(
        problems(
            "interfaces: {include: [lo]}\n\
             capture: {ports: [53, 4789], geneve_ports: [53, 4789], vxlan_ports: [4789, 5]}"
        ),
        [
            "capture.vxlan_ports: 4789: is in ports as well",
            "capture.geneve_ports: 53: is in ports as well",
            "capture.geneve_ports: 4789: is in vxlan_ports as well",
        ]
    );
}

#[test]
fn tunnels_are_decapsulated_on_the_interfaces_of_a_rule() {
    let config = parse(FULL).unwrap().capture;
    assert_eq!(config.features_of(&Interface::named("eth0")), features::VXLAN | features::GENEVE);
    assert_eq!(
        config.features_of(&Interface::named("eth1")),
        features::VXLAN | features::GENEVE | features::GRE
    );
    assert_eq!(config.features_of(&Interface::named("gre0")), features::GRE);
    assert_eq!(config.features_of(&Interface::named("lo")), 0);
}

#[test]
fn the_port_sets_are_those_of_the_file() {
    let sets = parse(FULL).unwrap().capture.port_sets();
    for (set, port) in [
        (PortSet::Dns, 53),
        (PortSet::Dns, 5353),
        (PortSet::Vxlan, 4789),
        (PortSet::Vxlan, 8472),
        (PortSet::Geneve, 6082),
    ] {
        for other in PortSet::ALL {
            assert_eq!(sets.contains(other, port), other == set, "{port} in {other:?}");
        }
    }
    assert!(!sets.contains(PortSet::Geneve, 6081));
}

#[test]
fn the_example_for_deployment_states_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tap53.yaml");
    let example = Config::load(Some(&example), &Overrides::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let minimal = directory.path().join("minimal.yaml");
    fs::write(
        &minimal,
        r#"
interfaces: {include: ["kind:physical"]}
sinks: [{type: kafka, brokers: ["kafka-0.kafka:9092"], topic: dns-transactions}]
"#,
    )
    .unwrap();
    assert_eq!(example, Config::load(Some(&minimal), &Overrides::default()).unwrap());
}

#[test]
fn metrics_are_read_if_they_are_exported_without_a_port() {
    let telemetry = |keys: &str| {
        let yaml = format!("interfaces: {{include: [lo]}}\ntelemetry: {{{keys}}}");
        parse(&yaml).unwrap().telemetry
    };
    let exported =
        telemetry("enabled: false, otlp: {endpoint: 'http://c:4318', interval_ms: 5000}");
    assert!(!exported.enabled && exported.is_read());
    let otlp = exported.otlp.unwrap();
    assert_eq!((otlp.url().as_str(), otlp.interval.as_secs()), ("http://c:4318/v1/metrics", 5));
    assert!(!telemetry("enabled: false").is_read());
}

#[test]
fn recent_records_are_remembered_unless_that_costs_another_encoding() {
    let recent_bytes = |profile: &str, control: &str| {
        let config = parse(&format!(
            "interfaces: {{include: [lo]}}\nrecord: {{profile: {profile}}}\n\
             sinks: [{{type: file, directory: /}}]\ncontrol: {{{control}}}"
        ));
        config.unwrap().control.recent_bytes
    };
    assert_eq!(recent_bytes("full", ""), 4 << 20);
    assert_eq!(recent_bytes("flat", ""), 0);
    assert_eq!(recent_bytes("flat", "recent_bytes: 1024"), 1_024);
}

#[test]
fn the_control_socket_is_an_absolute_path_within_the_kernels_limit() {
    let control = |keys: &str| format!("interfaces: {{include: [lo]}}\ncontrol: {{{keys}}}");
    let config = parse(&control(
        "socket: /run/x/y.sock, allow_uids: [1000], request_timeout_ms: 250, enabled: false, recent_bytes: 0",
    ))
    .unwrap();
    assert_eq!(
        config.control,
        ControlConfig {
            enabled: false,
            socket: "/run/x/y.sock".into(),
            allow_uids: vec![1_000],
            request_timeout: Duration::from_millis(250),
            recent_bytes: 0,
        }
    );
    assert_eq!(parse(&control("")).unwrap().control, ControlConfig::default());
    let long = format!("/{}", "x".repeat(107));
    for (keys, part) in [
        ("socket: control.sock", "must be an absolute path"),
        ("socket: /", "must be an absolute path"),
        (&format!("socket: {long}"), "longer than 107 bytes"),
        ("allow_uids: [-1]", "control.allow_uids[0]"),
        ("allow_uid: [1]", "control.allow_uid: no such key"),
        ("request_timeout_ms: 0", "control.request_timeout_ms"),
    ] {
        let problems = problems(&control(keys));
        assert!(problems.len() == 1 && problems[0].contains(part), "{keys}: {problems:?}");
    }
}
