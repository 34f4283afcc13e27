use super::*;
use tap53_attribution::{
    LabelSelector,
    config::{NodeLocalDnsConfig, ServersConfig, Services},
};

fn selector(text: &str) -> LabelSelector {
    LabelSelector::parse(text).unwrap()
}

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
            servers: ServersConfig {
                selector: selector("k8s-app in (kube-dns, node-local-dns)"),
                namespace: Some("kube-system".into()),
            },
            node_local_dns: NodeLocalDnsConfig {
                selector: selector("k8s-app=node-local-dns"),
                addresses: vec![[169, 254, 20, 10].into()],
            },
            services: Services::All,
            nodes: false,
            cidrs: Vec::new(),
            hold: Duration::from_secs(3),
            max_addresses: 65_536,
        }
    );
    let cluster = section("kubernetes: {scope: cluster}");
    assert_eq!((cluster.max_addresses, cluster.nodes), (524_288, true));
}

#[test]
fn every_key_reaches_its_field() {
    let config = section(
        "kubernetes:\n  kubeconfig: /etc/tap53/kubeconfig\n  scope: cluster\n  \
         labels: [app, app.kubernetes.io/name]\n  services: servers\n  nodes: false\n  \
         servers: {selector: app=dns, namespace: ''}\n  \
         node_local_dns: {selector: app=cache, addresses: [169.254.25.10, 'fd00::10']}\n  \
         cidrs: [2001:db8::/32]\n  hold_ms: 0\n  max_addresses: 100",
    );
    assert_eq!(
        config,
        KubernetesConfig {
            enabled: true,
            kubeconfig: Some("/etc/tap53/kubeconfig".into()),
            scope: Scope::Cluster,
            labels: vec!["app".into(), "app.kubernetes.io/name".into()],
            servers: ServersConfig { selector: selector("app=dns"), namespace: None },
            node_local_dns: NodeLocalDnsConfig {
                selector: selector("app=cache"),
                addresses: vec![[169, 254, 25, 10].into(), "fd00::10".parse().unwrap()],
            },
            services: Services::Servers,
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
         labels: [-app, 'a/b/c', ok]\n  cidrs: [10.0.0.1/8]\n  max_addresses: 0\n  pods: 1\n  \
         servers: {selector: 'a in (b', namespace: Dns}\n  node_local_dns: {addresses: [10]}\n  \
         services: some",
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
        "kubernetes.servers.selector",
        "kubernetes.servers.namespace",
        "kubernetes.node_local_dns.addresses[0]",
        "kubernetes.services",
    ] {
        assert!(keys.contains(&key), "{key} is not among {found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[test]
fn services_of_no_server_are_refused() {
    let found = problems(
        "interfaces: {include: [lo]}\nkubernetes: {services: servers, servers: {selector: ''}}",
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("kubernetes.services"), "{found:#?}");
}

#[test]
fn a_written_section_reads_back() {
    for text in [
        "",
        "kubernetes: {labels: [app]}",
        "kubernetes: {enabled: false}",
        "kubernetes: {services: servers, servers: {namespace: ''}}",
        "kubernetes: {servers: {selector: ''}, node_local_dns: {addresses: []}, services: false}",
    ] {
        let text = format!("interfaces: {{include: [lo]}}\n{text}");
        let config = parse(&text).unwrap();
        assert_eq!(parse(&config.to_yaml().unwrap()).unwrap(), config);
    }
}
