//! The installation of FerroLB in a cluster: its namespace, and the flags of its controller that
//! decide which Services and custom resources it serves. Read from the controller's Deployment, and
//! from the speakers' DaemonSet.

use std::time::Duration;

use ferrolb_controller_core::node_failure::failures::MarkScope;
use ferrolb_controller_core::state::{Config, Names};
use ferrolb_proto::api::{GROUP, LOAD_BALANCER_CLASS};
use ferrolb_proto::duration::parse_duration;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};

/// Name of the controller's Deployment and container.
pub const CONTROLLER: &str = "controller";
/// Name of the speakers' DaemonSet and container.
pub const SPEAKER: &str = "speaker";
/// Name of the DaemonSet of gobgpd, which only installations with BGP have.
pub const GOBGPD: &str = "gobgpd";
/// Name of the Helm release in the documentation.
pub const RELEASE: &str = "ferrolb";
/// Names of the flag with which nodes with the exclude label announce, too.
const IGNORE_EXCLUDE_LABEL: [&str; 2] = ["ignore-exclude-label", "ignore-exclude-lb"];
/// Flag that selects the pods on failed nodes, and the value that selects none.
const NODE_FAILURE: &str = "node-failure-endpoints";
const NODE_FAILURE_OFF: &str = "off";
/// Default of the flag `--pool-grace`.
const POOL_GRACE: Duration = Duration::from_secs(60);

/// An installation of FerroLB, from its Deployment, DaemonSet and Lease.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    /// Namespace of the Deployment, the DaemonSet and the ServiceAccounts. That of the custom
    /// resources is in `config`.
    pub namespace: String,
    /// Configuration of the controller.
    pub config: Config,
    /// True if the namespace contains a FerroLB: a Deployment, a leader, pools or SpeakerStatuses.
    pub exists: bool,
    /// True if the controller marks the pods of failed nodes.
    pub marks_pods: bool,
    /// True if nodes with the exclude label announce, too. False if the user may not read the
    /// speakers' DaemonSet.
    pub ignores_exclude_label: bool,
    /// Number of ready controllers, and of wanted ones; `None` without a Deployment.
    pub controllers: Option<[i32; 2]>,
    /// Pod of the active leader, if there is one.
    pub leader: Option<String>,
    /// True if the API server does not have the kind IPAddressPool.
    pub lacks_pools: bool,
}

/// Returns the configuration of the controller in `namespace`. Without a Deployment, all flags have
/// their defaults.
#[must_use]
pub fn config(namespace: &str, deployment: Option<&Deployment>) -> Config {
    let container = deployment.and_then(controller);
    let flag = |name: &str| flag_of(container?, &[name]);
    let classes = container.and_then(|it| flag_of(it, &["load-balancer-class", "lb-class"]));
    let classes = classes.unwrap_or_else(|| LOAD_BALANCER_CLASS.to_owned());
    Config {
        classes: classes.split(',').map(|class| class.trim().to_owned()).collect(),
        default_implementation: flag("default-implementation").is_none_or(|value| value != "false"),
        names: Names {
            namespace: flag("namespace").unwrap_or_else(|| namespace.to_owned()),
            group: flag("api-group").unwrap_or_else(|| GROUP.to_owned()),
        },
        foreign_custom_resources: false,
        pool_grace: flag("pool-grace")
            .and_then(|text| parse_duration(&text).ok())
            .unwrap_or(POOL_GRACE),
        node_failure_endpoints: MarkScope::Off,
        node: Box::default(),
    }
}

/// Returns the name of the Helm release that a Deployment belongs to; `None` if it belongs to none.
#[must_use]
pub fn helm_release(deployment: &Deployment) -> Option<&str> {
    let labels = deployment.metadata.labels.as_ref()?;
    let is_release = labels.get("app.kubernetes.io/managed-by").is_some_and(|it| it == "Helm");
    let annotations = deployment.metadata.annotations.as_ref();
    let name = annotations.and_then(|it| it.get("meta.helm.sh/release-name"));
    is_release.then(|| name.map_or(RELEASE, String::as_str))
}

/// Returns whether the controller marks the pods of failed nodes. Without a Deployment, the flag
/// has its default. Only FerroLB's own API group has the necessary SpeakerStatuses.
#[must_use]
pub fn marks_pods(config: &Config, deployment: Option<&Deployment>) -> bool {
    let flag = deployment.and_then(controller).and_then(|it| flag_of(it, &[NODE_FAILURE]));
    config.names.group == GROUP && flag.is_none_or(|scope| scope != NODE_FAILURE_OFF)
}

/// Returns whether the speakers ignore the exclude label of nodes. Without a DaemonSet, the flag
/// has its default.
#[must_use]
pub fn ignores_exclude_label(daemon_set: Option<&DaemonSet>) -> bool {
    let spec = daemon_set.and_then(|it| it.spec.as_ref());
    let Some(speaker) = spec.and_then(|spec| container(&spec.template, SPEAKER)) else {
        return false;
    };
    // The flag takes a value only after an equals sign, and means true without one.
    let mut args = speaker.command.iter().chain(&speaker.args).flatten();
    let bare = |arg: &String| {
        arg.strip_prefix("--").is_some_and(|name| IGNORE_EXCLUDE_LABEL.contains(&name))
    };
    args.any(bare) || flag_of(speaker, &IGNORE_EXCLUDE_LABEL).is_some_and(|value| value == "true")
}

/// Returns the container of the controller.
fn controller(deployment: &Deployment) -> Option<&Container> {
    container(&deployment.spec.as_ref()?.template, CONTROLLER)
}

fn container<'a>(template: &'a PodTemplateSpec, name: &str) -> Option<&'a Container> {
    template.spec.as_ref()?.containers.iter().find(|container| container.name == name)
}

/// Returns the value of a flag with these names: from the arguments, or else from the environment
/// variable of the first name. A flag that is repeated has a value with commas.
pub(crate) fn flag_of(container: &Container, names: &[&str]) -> Option<String> {
    let args = container.command.iter().chain(&container.args).flatten();
    let args: Vec<&str> = args.map(String::as_str).collect();
    let with_next = args.iter().enumerate().filter_map(|(i, arg)| {
        let flag = arg.strip_prefix("--")?;
        match flag.split_once('=') {
            Some((name, value)) => names.contains(&name).then_some(value),
            None => args.get(i + 1).copied().filter(|_| names.contains(&flag)),
        }
    });
    let values: Vec<&str> = with_next.collect();
    if !values.is_empty() {
        return Some(values.join(","));
    }
    let variable = format!("FERROLB_{}", names.first()?.replace('-', "_").to_uppercase());
    let variables = container.env.iter().flatten();
    variables.filter(|it| it.name == variable).find_map(|it| it.value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(container: &serde_json::Value) -> Deployment {
        let mut container = container.clone();
        container["name"] = json!(CONTROLLER);
        serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": {
            "containers": [{"name": "proxy", "args": ["--api-group=other"]}, container],
        }}}}))
        .expect("a Deployment")
    }

    #[test]
    fn flags_are_read_from_arguments_and_variables() {
        let args = json!({
            "args": ["--api-group=metallb.io", "--load-balancer-class", "a", "--lb-class=b",
                "--default-implementation=false"],
            "env": [{"name": "FERROLB_POOL_GRACE", "value": "5s"},
                {"name": "FERROLB_API_GROUP", "value": "ignored"}],
        });
        let config = config("lb", Some(&deployment(&args)));
        assert_eq!(config.names, Names { namespace: "lb".into(), group: "metallb.io".into() });
        assert_eq!(
            (config.classes.join(" "), config.default_implementation),
            ("a b".into(), false)
        );
        assert_eq!(config.pool_grace, Duration::from_secs(5));
    }

    #[test]
    fn speakers_ignore_the_exclude_label_only_with_the_flag() {
        let ignores = |container: serde_json::Value| {
            let mut container = container;
            container["name"] = json!(SPEAKER);
            let pod = json!({"spec": {"containers": [container]}});
            let object = json!({"spec": {"selector": {}, "template": pod}});
            ignores_exclude_label(Some(&serde_json::from_value(object).expect("a DaemonSet")))
        };
        assert!(ignores(json!({"args": ["--ignore-exclude-label=true"]})));
        assert!(ignores(json!({"args": ["--ignore-exclude-lb", "--log-level=debug"]})));
        let variable = json!({"name": "FERROLB_IGNORE_EXCLUDE_LABEL", "value": "true"});
        assert!(ignores(json!({ "env": [variable] })));
        assert!(!ignores(json!({"args": ["--ignore-exclude-label=false"]})));
        assert!(!ignores(json!({})) && !ignores_exclude_label(None));
    }

    #[test]
    fn pods_are_marked_unless_the_flag_or_the_group_prevents_it() {
        let marks = |args: &[&str]| {
            let deployment = deployment(&json!({ "args": args }));
            marks_pods(&config("lb", Some(&deployment)), Some(&deployment))
        };
        assert!(marks(&[]) && marks(&["--node-failure-endpoints=all"]));
        assert!(!marks(&["--node-failure-endpoints=off"]) && !marks(&["--api-group=metallb.io"]));
        assert!(marks_pods(&config("lb", None), None));
    }

    #[test]
    fn without_a_deployment_all_flags_have_their_defaults() {
        let config = config("lb", None);
        assert_eq!((&*config.names.group, config.default_implementation), (GROUP, true));
        assert_eq!(config.classes, [LOAD_BALANCER_CLASS]);
    }
}
