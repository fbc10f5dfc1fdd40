//! FerroLB in the cluster before a migration, and the commands that change the Services that it
//! serves. Pure.

use ferrolb_proto::api::{GROUP, LOAD_BALANCER_CLASS};
use k8s_openapi::api::apps::v1::Deployment;
use serde::Deserialize as _;
use serde_json::Value;

use super::shell::{
    self, CHART, DELETE, LABEL, ROLLOUT_STATUS, SCALE, SET_ENV, apply_output_of, quoted,
};
use super::{Command, Problem, Step};
use crate::install::manifests::Variant;
pub use crate::installation::RELEASE;
use crate::installation::{self, CONTROLLER, GOBGPD};
use crate::objects::{self, APPS, Objects, name, namespace, text};

/// Value of the chart that starts BGP.
pub const BGP: &str = "bgp.enabled=true";

/// An installation of FerroLB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its namespace.
    namespace: String,
    /// Name of its Helm release; `None`: the installation is by manifests.
    release: Option<String>,
    /// Number of its controllers.
    replicas: u64,
    /// Classes of the Services that it serves.
    classes: Vec<String>,
    /// True if it also serves Services without a class.
    is_default: bool,
    /// API group of its custom resources.
    group: String,
}

impl Installed {
    /// Finds the installation in a namespace.
    #[must_use]
    pub fn find(objects: &Objects, ferrolb: &str) -> Option<Self> {
        let mut deployments = objects.of(APPS, "Deployment");
        let object = deployments.find(|it| name(it) == CONTROLLER && namespace(it) == ferrolb)?;
        let deployment = Deployment::deserialize(object).ok();
        let config = installation::config(ferrolb, deployment.as_ref());
        let release = deployment.as_ref().and_then(installation::helm_release);
        Some(Self {
            namespace: ferrolb.to_owned(),
            release: release.map(str::to_owned),
            replicas: object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1),
            classes: config.classes,
            is_default: config.default_implementation,
            group: config.names.group,
        })
    }

    /// Returns a new installation by Helm side by side with another load balancer.
    #[must_use]
    pub fn side_by_side(ferrolb: &str) -> Self {
        Self {
            namespace: ferrolb.to_owned(),
            release: Some(RELEASE.to_owned()),
            replicas: 1,
            classes: vec![LOAD_BALANCER_CLASS.to_owned()],
            is_default: false,
            group: GROUP.to_owned(),
        }
    }

    /// Returns whether the installation uses MetalLB's objects.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.group != GROUP
    }

    /// Returns the step in which FerroLB begins to serve Services without a class, unless it serves
    /// them already.
    #[must_use]
    pub fn become_default(&self, effect: &str) -> Option<Step> {
        let ready = ROLLOUT_STATUS.run_in(&self.namespace, "deployment/controller");
        let step = Step::new("default", "Make FerroLB the default implementation", effect)
            .check(ready)
            .run_all(self.serve(None))
            .undo_all(self.serve_as_before());
        (!self.is_default).then_some(step)
    }

    /// Returns the commands after which FerroLB serves only Services of a class; `None`: also those
    /// without a class.
    #[must_use]
    pub fn serve(&self, class: Option<&str>) -> Vec<Command> {
        if let Some(release) = &self.release {
            // Helm splits a value at commas.
            let class = class.map(|it| quoted(&it.replace(',', "\\,"))).unwrap_or_default();
            return vec![helm_change(
                release,
                &self.namespace,
                &format!("loadBalancerClass={class}"),
            )];
        }
        let variables = match class {
            None => "FERROLB_DEFAULT_IMPLEMENTATION=true".to_owned(),
            Some(class) => format!(
                "FERROLB_DEFAULT_IMPLEMENTATION=false FERROLB_LOAD_BALANCER_CLASS={}",
                quoted(class)
            ),
        };
        let words = format!("deployment/controller daemonset/speaker {variables}");
        vec![
            SET_ENV.run_in(&self.namespace, words),
            ROLLOUT_STATUS.run_in(&self.namespace, "deployment/controller"),
            ROLLOUT_STATUS.run_in(&self.namespace, "daemonset/speaker"),
        ]
    }

    /// Returns the classes of the Services that FerroLB serves after [`Installed::serve`].
    #[must_use]
    pub fn classes_after(installed: Option<&Self>, class: Option<&str>) -> Vec<String> {
        match (class, installed) {
            (None, Some(it)) if it.release.is_none() || it.is_default => it.classes.clone(),
            (class, _) => vec![class.unwrap_or(LOAD_BALANCER_CLASS).to_owned()],
        }
    }

    /// Returns the commands after which FerroLB serves the same Services as before the migration.
    #[must_use]
    pub fn serve_as_before(&self) -> Vec<Command> {
        let classes = self.classes.join(",");
        self.serve((!self.is_default).then_some(&*classes))
    }

    /// Returns the command that starts the controllers again.
    #[must_use]
    pub fn start_controller(&self) -> Command {
        let words = format!("deployment controller --replicas={}", self.replicas);
        SCALE.run_in(&self.namespace, words)
    }

    /// Reports the Services that FerroLB serves now, and will not after [`Installed::serve`].
    #[must_use]
    pub fn lost(&self, objects: &Objects, class: Option<&str>) -> Vec<Problem> {
        let is_unchanged = class.is_none() && (self.is_default || self.release.is_none());
        let next = class.unwrap_or(LOAD_BALANCER_CLASS);
        let is_lost = |service: &&Value| match text(service, "/spec/loadBalancerClass") {
            "" => self.is_default && class.is_some(),
            of_service => of_service != next && self.classes.iter().any(|it| it == of_service),
        };
        let text = format!(
            "FerroLB serves it now, and the steps change the class to {next}: the Service loses its \
             addresses. Create it again with that class"
        );
        let lost = objects.load_balancers().filter(|it| !is_unchanged && is_lost(it));
        lost.map(|service| Problem::of(objects::label(service), &*text)).collect()
    }

    /// Reports that the installation has no BGP.
    #[must_use]
    pub fn without_bgp(&self, objects: &Objects) -> Option<Problem> {
        let mut sets = objects.of(APPS, "DaemonSet");
        let has_bgp = sets.any(|it| name(it) == GOBGPD && namespace(it) == self.namespace);
        let [apply, _] = shell::install(&self.namespace, Variant::Bgp);
        let text = format!(
            "it is installed without BGP: set bgp.enabled of the chart, or run `{}`, before the \
             migration",
            apply.command
        );
        (!has_bgp).then(|| Problem::of("FerroLB", text))
    }
}

/// Returns the commands that create FerroLB's namespace, unless it exists. Its pods use the network
/// of the nodes, which Pod Security permits only in such a namespace.
#[must_use]
pub fn create_namespace(ferrolb: &str) -> [Command; 2] {
    let namespace = quoted(ferrolb);
    let print = format!("kubectl create namespace {namespace} --dry-run=client -o yaml");
    let label = "pod-security.kubernetes.io/enforce=privileged";
    [apply_output_of(&print), LABEL.run(format_args!("--overwrite namespace {namespace} {label}"))]
}

/// Returns the command that installs FerroLB by Helm into its namespace, with these values of the
/// chart.
#[must_use]
pub fn helm_install(ferrolb: &str, values: &[String]) -> Command {
    let values: String = values.iter().map(|it| format!(" --set {it}")).collect();
    helm_upgrade(&format!("--install {RELEASE}"), ferrolb, &values)
}

/// Returns the command that changes a value of a Helm release.
#[must_use]
pub fn helm_change(release: &str, ferrolb: &str, value: &str) -> Command {
    let options = format!(" --reset-then-reuse-values --set {value}");
    helm_upgrade(&quoted(release), ferrolb, &options)
}

/// Returns the command that upgrades a Helm release, and waits until all pods are replaced.
fn helm_upgrade(release: &str, ferrolb: &str, options: &str) -> Command {
    let namespace = quoted(ferrolb);
    let upgrade = format!("helm upgrade {release} {CHART} --namespace {namespace}");
    let command = format!("{upgrade} --wait --timeout 30m{options}");
    let needs_clone = !CHART.starts_with("oci://");
    Command { needs_clone, ..Command::new(command, "`STATUS: deployed`") }
}

/// Returns the command that deletes an installation by Helm.
#[must_use]
pub fn helm_uninstall(ferrolb: &str) -> Command {
    let namespace = quoted(ferrolb);
    let uninstall = format!("helm uninstall --ignore-not-found {RELEASE} --namespace {namespace}");
    Command::new(uninstall, "`uninstalled`")
}

/// Returns the commands that delete an installation by manifests. CustomResourceDefinitions remain,
/// because all pools would be deleted with them.
#[must_use]
pub fn uninstall(ferrolb: &str) -> [Command; 3] {
    let named = |kinds: &str, names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
        DELETE.run(format_args!("{kinds} {} --ignore-not-found", names.join(" ")))
    };
    let roles = ["controller", "node-failure", "speaker"];
    let policies = ["namespace", "status", "condition", "objects"];
    [
        DELETE.run_in(
            ferrolb,
            "deployment,daemonset,networkpolicy,poddisruptionbudget,role,rolebinding,\
             serviceaccount -l app.kubernetes.io/name=ferrolb",
        ),
        named(
            "clusterrole,clusterrolebinding",
            &roles.map(|role| format!("{ferrolb}:ferrolb-{role}")),
        ),
        named(
            "validatingadmissionpolicy,validatingadmissionpolicybinding",
            &policies.map(|policy| format!("{ferrolb}.ferrolb-own-{policy}")),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_uninstallation_names_every_cluster_scoped_object_of_the_manifests() {
        let manifests = include_str!("../../../deploy/install.yaml");
        let commands = uninstall("ferrolb-system").map(|it| it.command).join(" ");
        let names = manifests.lines().filter_map(|line| line.strip_prefix("  name: "));
        let scoped: Vec<_> = names.filter(|it| it.contains("ferrolb-system")).collect();
        assert!(scoped.len() > 10, "{scoped:?}");
        for name in scoped.iter().filter(|name| **name != "ferrolb-system") {
            assert!(
                commands.split(' ').any(|word| word == *name),
                "{name} is in none of {commands}"
            );
        }
    }

    fn find(labels: &Value, env: &Value) -> Installed {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "controller", "namespace": "lb", "labels": labels,
                "annotations": {"meta.helm.sh/release-name": "my"}},
            "spec": {"replicas": 3, "selector": {}, "template": {"spec": {
                "containers": [{"name": "controller", "env": env}]}}}});
        let objects = Objects::new([deployment]);
        assert_eq!(Installed::find(&objects, "other"), None);
        Installed::find(&objects, "lb").unwrap()
    }

    #[test]
    fn a_helm_release_is_upgraded_and_manifests_get_variables() {
        let helm = find(&json!({"app.kubernetes.io/managed-by": "Helm"}), &json!([]));
        let upgrade = "helm upgrade my deploy/helm/ferrolb --namespace lb --wait --timeout 30m \
                       --reset-then-reuse-values --set loadBalancerClass=";
        assert_eq!(helm.serve(Some("a")), [format!("{upgrade}a")]);
        assert_eq!(helm.serve(None), [upgrade]);
        assert_eq!(helm.become_default("none"), None);
        let env = json!([{"name": "FERROLB_DEFAULT_IMPLEMENTATION", "value": "false"},
            {"name": "FERROLB_LOAD_BALANCER_CLASS", "value": "a,b"}]);
        let step = find(&json!({}), &env).become_default("none").unwrap();
        let set = "kubectl -n lb set env deployment/controller daemonset/speaker \
                   FERROLB_DEFAULT_IMPLEMENTATION";
        assert_eq!(step.commands[0].to_string(), format!("{set}=true"));
        let before = format!("{set}=false FERROLB_LOAD_BALANCER_CLASS=a,b");
        assert_eq!(step.rollback[0].to_string(), before);
        assert_eq!(
            helm.start_controller(),
            "kubectl -n lb scale deployment controller --replicas=3"
        );
    }

    #[test]
    fn services_of_other_classes_are_lost() {
        let service = |name: &str, class: Value| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"type": "LoadBalancer", "loadBalancerClass": class}})
        };
        let services = Objects::new([
            service("a", json!(LOAD_BALANCER_CLASS)),
            service("b", json!("new")),
            service("c", json!("other")),
            service("d", Value::Null),
        ]);
        let lost = |installation: Installed, class| {
            let problems = installation.lost(&services, class);
            problems.into_iter().map(|it| it.object).collect::<Vec<_>>()
        };
        let release = Installed::side_by_side("lb");
        assert_eq!(lost(release.clone(), Some("new")), ["Service default/a"]);
        assert_eq!(lost(release.clone(), None), [""; 0]);
        let other = Installed { classes: vec!["other".to_owned()], ..release };
        assert_eq!(lost(other, None), ["Service default/c"]);
        let default = || find(&json!({}), &json!([]));
        assert_eq!(lost(default(), Some("new")), ["Service default/a", "Service default/d"]);
        assert_eq!(lost(default(), None), [""; 0]);
    }
}
