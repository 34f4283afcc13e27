use tap53_transactions::sampling::{Notables, SampleKey, Share};

use super::*;

fn read(text: &str) -> Result<Config, Vec<String>> {
    match parse(&format!("interfaces: {{include: [lo]}}\n{text}")) {
        Ok(config) => Ok(config),
        Err(Error::Refused { problems, .. }) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(other) => panic!("{other}"),
    }
}

const ALL_KEYS: &str = "
kubernetes: {labels: [app, tier]}
filter:
  namespaces: {allow: [team-*, shop], deny: [team-x]}
  workloads: {deny: [kube-system/coredns, '*-test']}
  pod_labels: {allow: ['tier in (front, back)'], deny: [app=probe]}
record:
  keep:
    always: [nxdomain, error]
    slower_ms: 100
    share: 0.05
    by: name
    rules:
      - {namespaces: [shop], workloads: [web], share: 1}
      - {pod_labels: ['app=batch,tier!=front'], share: 0.000001}
";

#[test]
fn every_key_reaches_its_field_and_a_written_configuration_reads_back() {
    let config = read(ALL_KEYS).unwrap();
    let keep = &config.record.keep;
    assert_eq!(keep.always.iter().count(), 2);
    assert_eq!(keep.slower, Some(Duration::from_millis(100)));
    assert_eq!((keep.share, keep.by), (Share::new(0.05).unwrap(), SampleKey::Name));
    assert_eq!(
        keep.rules.iter().map(|it| it.share.per_million()).collect::<Vec<_>>(),
        [1_000_000, 1]
    );
    assert_eq!(keep.rules[0].pods.workloads[0].to_string(), "web");
    assert_eq!(config.filter.pods.namespaces.allow[0].to_string(), "team-*");
    assert_eq!(config.filter.pods.pod_labels.deny[0].to_string(), "app=probe");
    let yaml = config.to_yaml().unwrap();
    assert_eq!(read_whole(&yaml), config, "{yaml}");
}

fn read_whole(yaml: &str) -> Config {
    parse(yaml).unwrap()
}

#[test]
fn the_default_keeps_everything() {
    let keep = read("record: {keep: {slower_ms: 5}}").unwrap().record.keep;
    assert!(keep.keeps_everything() && keep.always == Notables::ALL);
    assert!(!read("record: {keep: {share: 0.5}}").unwrap().record.keep.keeps_everything());
}

#[test]
fn every_problem_is_named_with_its_key() {
    let problems = read(
        "
kubernetes: {labels: [app]}
filter:
  namespaces: {allow: [Team, 'a/b'], deny: [team-x]}
  workload: {deny: [web]}
  pod_labels: {deny: ['ap=x', '']}
record:
  keep:
    always: [nxdomian]
    slower_ms: 0
    share: 0
    by: client
    shares: 1
    rules:
      - {share: 0.5}
      - {namespaces: [], share: 2}
      - {workloads: [a/b/c], share: 0.0000001}
      - {pod_labels: ['app in'], shar: 1}
",
    )
    .unwrap_err();
    let names = "which no name in Kubernetes has: lower-case letters, digits, - and . are allowed, and \
                 the pattern's * ? [a-z]";
    let six = "must have at most six decimals, such as 0.05 or 0.000001";
    let range = "must be a number above 0, up to 1";
    assert_eq!(
        problems,
        [
            &format!("filter.namespaces.allow[0]: \"Team\": has 'T', {names}"),
            "filter.namespaces.allow[1]: \"a/b\": is not the name of a namespace: it has a slash",
            "filter.workload: no such key; did you mean workloads?",
            "filter.pod_labels.deny[0]: \"ap=x\": has the label ap, which the agent does not keep: add it to \
             kubernetes.labels; did you mean app?",
            "filter.pod_labels.deny[1]: \"\": selects nothing: write app=web, or a key alone",
            "record.keep.always[0]: \"nxdomian\": must be one of error, nxdomain, unanswered, truncated, \
             anomaly, malformed, operation, signal; did you mean nxdomain?",
            "record.keep.slower_ms: 0: must be a whole number from 1 to 3600000",
            &format!("record.keep.share: 0: {range}"),
            "record.keep.by: \"client\": must be one of client_and_name, name, exchange",
            "record.keep.shares: no such key; did you mean share?",
            "record.keep.rules[0]: selects no pods: give namespaces, workloads or pod_labels",
            "record.keep.rules[1].namespaces: must not be empty",
            &format!("record.keep.rules[1].share: 2: {range}"),
            "record.keep.rules[2].workloads[0]: \"a/b/c\": is not a workload: write NAME or NAMESPACE/NAME",
            &format!("record.keep.rules[2].share: 0.0000001: {six}"),
            "record.keep.rules[3].pod_labels[0]: \"app in\": is not the key of a label: write app, or \
             app.kubernetes.io/name",
            "record.keep.rules[3].share: missing",
            "record.keep.rules[3].shar: no such key; did you mean share?",
        ]
    );
}

#[test]
fn what_selects_pods_needs_kubernetes() {
    for text in [
        "filter: {namespaces: {deny: [a]}}",
        "filter: {workloads: {allow: [a]}}",
        "filter: {pod_labels: {deny: [app]}}",
        "record: {keep: {rules: [{namespaces: [a], share: 1}]}}",
        "kubernetes: {enabled: false}\nfilter: {namespaces: {deny: [a]}}",
    ] {
        let [problem] = &read(text).unwrap_err()[..] else { panic!("{text}") };
        assert!(problem.contains("only with kubernetes.enabled"), "{problem}");
    }
}
