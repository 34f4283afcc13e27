use super::*;

fn section(text: &str) -> KubernetesConfig {
    let text = format!("interfaces: {{include: [lo]}}\n{text}");
    parse(&text).map(|config| config.kubernetes).unwrap()
}

#[test]
fn the_section_enables_kubernetes() {
    assert!(!section("").enabled);
    assert!(!section("kubernetes:").enabled, "nothing stands there");
    assert!(!section("kubernetes: {enabled: false, scope: cluster}").enabled);
    let config = section("kubernetes: {scope: node}");
    assert_eq!(
        config,
        KubernetesConfig {
            enabled: true,
            kubeconfig: None,
            scope: Scope::Node,
            labels: Vec::new(),
            services: true,
            nodes: true,
            cidrs: Vec::new(),
            hold: Duration::from_secs(3),
            max_addresses: 65_536,
        }
    );
    assert_eq!(section("kubernetes: {scope: cluster}").max_addresses, 524_288);
}

#[test]
fn every_key_reaches_its_field() {
    let config = section(
        "kubernetes:\n  kubeconfig: /etc/tap53/kubeconfig\n  scope: cluster\n  \
         labels: [app, app.kubernetes.io/name]\n  services: false\n  nodes: false\n  \
         cidrs: [2001:db8::/32]\n  hold_ms: 0\n  max_addresses: 100",
    );
    assert_eq!(
        config,
        KubernetesConfig {
            enabled: true,
            kubeconfig: Some("/etc/tap53/kubeconfig".into()),
            scope: Scope::Cluster,
            labels: vec!["app".into(), "app.kubernetes.io/name".into()],
            services: false,
            nodes: false,
            cidrs: vec!["2001:db8::/32".parse().unwrap()],
            hold: Duration::ZERO,
            max_addresses: 100,
        }
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let found = problems(
        "interfaces: {include: [lo]}\nkubernetes:\n  scope: world\n  kubeconfig: here\n  \
         labels: [-app, 'a/b/c', ok]\n  cidrs: [10.0.0.1/8]\n  max_addresses: 0\n  pods: 1",
    );
    let keys: Vec<_> =
        found.iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
    for key in [
        "kubernetes.scope",
        "kubernetes.kubeconfig",
        "kubernetes.labels[0]",
        "kubernetes.labels[1]",
        "kubernetes.cidrs[0]",
        "kubernetes.max_addresses",
        "kubernetes.pods",
    ] {
        assert!(keys.contains(&key), "{key} is not among {found:#?}");
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn a_written_section_reads_back() {
    for text in ["", "kubernetes: {labels: [app]}", "kubernetes: {enabled: false}"] {
        let text = format!("interfaces: {{include: [lo]}}\n{text}");
        let config = parse(&text).unwrap();
        assert_eq!(parse(&config.to_yaml().unwrap()).unwrap(), config);
    }
}
