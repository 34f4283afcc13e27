//! Rights that the Kubernetes API denies, and a server that does not answer.

use super::*;

/// Rules of a role, in JSON.
fn role(rules: &str) -> String {
    format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n\
         {{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {{\"name\": \"dns\"}}}},\n\
         {{\"apiVersion\": \"v1\", \"kind\": \"ServiceAccount\",\n\
           \"metadata\": {{\"name\": \"tap53\", \"namespace\": \"dns\"}}}},\n\
         {{\"apiVersion\": \"rbac.authorization.k8s.io/v1\", \"kind\": \"ClusterRole\",\n\
           \"metadata\": {{\"name\": \"tap53\"}}, \"rules\": [{rules}]}},\n\
         {{\"apiVersion\": \"rbac.authorization.k8s.io/v1\", \"kind\": \"ClusterRoleBinding\",\n\
           \"metadata\": {{\"name\": \"tap53\"}},\n\
           \"roleRef\": {{\"apiGroup\": \"rbac.authorization.k8s.io\", \"kind\": \"ClusterRole\", \"name\": \"tap53\"}},\n\
           \"subjects\": [{{\"kind\": \"ServiceAccount\", \"name\": \"tap53\", \"namespace\": \"dns\"}}]}}\n]}}\n"
    )
}

#[test]
fn denied_rights_and_an_unreachable_api_server_are_named() -> Result<()> {
    const ALL: &str = "{\"apiGroups\": [\"\"], \"resources\": [\"pods\", \"nodes\", \"services\"], \
                       \"verbs\": [\"list\", \"watch\"]}, \
                       {\"apiGroups\": [\"batch\"], \"resources\": [\"jobs\"], \"verbs\": [\"get\"]}";
    const SOME: &str = "{\"apiGroups\": [\"\"], \"resources\": [\"pods\", \"nodes\"], \
                        \"verbs\": [\"list\", \"watch\"]}, \
                        {\"apiGroups\": [\"\"], \"resources\": [\"services\"], \"verbs\": [\"list\"]}";
    let machine = Machine::new()?;
    let mut api = KubeApi::start(&machine.namespace)?;
    api.apply(&role(ALL))?;
    let account = api.account("dns", "tap53", HOUR)?;
    let kubeconfig = text(&account.kubeconfig)?;
    let config = machine.configure(&format!("kubernetes: {{kubeconfig: {kubeconfig}}}\n"))?;
    let doctor =
        || machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() });

    let found = doctor()?;
    found.require_fine_but_for(&[])?;
    found.check("ok", "kubernetes", &["allowed: list pods", "watch nodes", "get jobs.batch"])?;

    api.apply(&role(SOME))?;
    // The authorizer follows the change with its own watch.
    let found = wait::until("the role to change", DEADLINE, || {
        let found = doctor()?;
        Ok(found.check("fail", "kubernetes", &["denied by RBAC"]).is_ok().then_some(found))
    })?;
    found.require(
        "fail",
        "kubernetes",
        &["watch services", "denied by RBAC"],
        &["{apiGroups: [\"\"], resources: [services], verbs: [watch]}"],
    )?;
    found.require(
        "warn",
        "kubernetes",
        &["get jobs.batch", "denied by RBAC"],
        &["{apiGroups: [\"batch\"], resources: [jobs], verbs: [get]}"],
    )?;
    assert!(found.check("fail", "kubernetes", &["pods"]).is_err(), "{found}");
    found.require_fine_but_for(&["kubernetes"])?;

    fs::write(&account.token_file, "not-a-token")?;
    doctor()?.require("fail", "kubernetes", &["401"], &["auth whoami"])?;

    api.kill();
    doctor()?.require(
        "fail",
        "kubernetes",
        &["cannot be reached"],
        &[&format!("kubectl --kubeconfig {kubeconfig}")],
    )
}
