//! Checks that the Kubernetes API answers, and that it grants the rights that attribution needs.

use tap53_attribution::rights::{NoAnswer, Right, check, needed};

use super::{Check, Home};
use crate::config::{Config, KubernetesConfig};

const AREA: &str = "kubernetes";

pub(super) fn look(config: &Config, home: Home) -> Vec<Check> {
    let kubernetes = &config.kubernetes;
    if !kubernetes.enabled {
        let in_pod = match home {
            Home::Kubernetes => "; records have no pods",
            Home::Host => "",
        };
        return vec![Check::ok(AREA, format!("not configured{in_pod}"))];
    }
    match check(kubernetes.kubeconfig.as_deref(), needed(kubernetes, &config.node)) {
        Ok(answers) => {
            let denied = answers.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right);
            let mut checks: Vec<_> = denied.map(refused).collect();
            if checks.is_empty() {
                let rights: Vec<_> = answers.iter().map(|(right, _)| right.to_string()).collect();
                checks.push(Check::ok(AREA, format!("allowed: {}", rights.join(", "))));
            }
            checks
        }
        Err(no_answer) => vec![unanswered(kubernetes, no_answer)],
    }
}

fn refused(right: &Right) -> Check {
    let Right { watch, verb, group, resource, .. } = right;
    let wrong = match *watch {
        "jobs" => "denied by RBAC: pods of a CronJob are attributed to their Job only",
        "services" => "denied by RBAC: services are not attributed",
        "nodes" => "denied by RBAC: nodes are not attributed, and the annotation has no effect",
        "server_pods" => {
            "denied by RBAC: pods of DNS servers on other nodes are not attributed \
             (kubernetes.servers)"
        }
        _ => "denied by RBAC: pods are not attributed",
    };
    let role = match &right.namespace {
        Some(namespace) => format!("in the ClusterRole, or in a Role in {namespace}"),
        None => "in the ClusterRole".to_owned(),
    };
    let fix = format!(
        "- {{apiGroups: [\"{group}\"], resources: [{resource}], verbs: [{verb}]}}   # {role}"
    );
    // Jobs and servers elsewhere are additions.
    let is_addition = matches!(*watch, "jobs" | "server_pods");
    let check = if is_addition { Check::warn } else { Check::fail };
    check(AREA, right.to_string(), wrong, fix)
}

fn unanswered(config: &KubernetesConfig, no_answer: NoAnswer) -> Check {
    let kubectl = match &config.kubeconfig {
        Some(path) => format!("kubectl --kubeconfig {} auth whoami", path.display()),
        None => "kubectl auth whoami".to_owned(),
    };
    let what = match &config.kubeconfig {
        Some(path) => format!("API server, by {}", path.display()),
        None => "API server, by the pod's account".to_owned(),
    };
    match no_answer {
        NoAnswer::NoAccess(wrong) => {
            let fix = match &config.kubeconfig {
                Some(path) => format!("ls -l {}", path.display()),
                None => "serviceAccountName: tap53   # in the pod's spec; elsewhere: kubernetes: \
                         {kubeconfig: /path}"
                    .to_owned(),
            };
            Check::fail(AREA, what, wrong, fix)
        }
        NoAnswer::Unauthorized(wrong) => Check::fail(AREA, what, wrong, kubectl),
        NoAnswer::Other(wrong) => {
            let fix = format!("{kubectl}   # a NetworkPolicy for egress, a wrong address?");
            Check::fail(AREA, what, wrong, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Overrides, verdict::Verdict};

    #[test]
    fn a_denied_right_is_reported_with_the_rule_that_grants_it() {
        let right = Right { watch: "pods", verb: "watch", resource: "pods", ..Right::default() };
        let check = refused(&right);
        assert_eq!((check.verdict, check.what.as_str()), (Verdict::Fail, "watch pods"));
        let rule = "- {apiGroups: [\"\"], resources: [pods], verbs: [watch]}";
        assert!(check.fix.unwrap().starts_with(rule));

        let servers = Right {
            watch: "server_pods",
            namespace: Some("kube-system".to_owned()),
            ..right.clone()
        };
        let check = refused(&servers);
        assert_eq!(check.verdict, Verdict::Warn);
        assert_eq!(check.what, "watch pods --namespace=kube-system");
        let fix = check.fix.unwrap();
        assert!(fix.starts_with(rule) && fix.ends_with("or in a Role in kube-system"), "{fix}");

        let jobs = Right { watch: "jobs", verb: "get", group: "batch", resource: "jobs", ..right };
        assert_eq!(refused(&jobs).verdict, Verdict::Warn);
    }

    #[test]
    fn an_api_that_is_not_configured_is_not_requested() {
        let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
        let mut config = Config::load(None, &overrides).unwrap();
        assert_eq!(look(&config, Home::Host), [Check::ok(AREA, "not configured")]);
        config.kubernetes.enabled = true;
        config.kubernetes.kubeconfig = Some("/nonexistent/kubeconfig".into());
        let checks = look(&config, Home::Host);
        assert_eq!(checks[0].verdict, Verdict::Fail);
        assert_eq!(checks[0].fix.as_deref(), Some("ls -l /nonexistent/kubeconfig"));
    }
}
