//! Steps of the migration from kube-vip. Pure.

use ferrolb_proto::api::LOAD_BALANCER_CLASS;
use serde_json::Value;

use super::change::Annotations;
use super::installed::{BGP, Installed, create_namespace, helm_install, helm_uninstall, uninstall};
use super::kube_vip::{FILE, KubeVip};
use super::kube_vip_bgp::Secret;
use super::merge::Merged;
use super::servicelb::finalizers;
use super::shell::{
    CREATE, DELETE, ROLLOUT_STATUS, SCALE, SET_ENV, before_installation, compare_addresses,
    create_directory, install, list_pools, quoted, save_addresses, stop_controller, unchanged,
};
use super::{Action, Step};
use crate::install::manifests::Variant;
use crate::objects::{APPS, Objects, name, namespace};

/// Name of the Deployment of kube-vip's cloud provider.
const PROVIDER: &str = "kube-vip-cloud-provider";

/// Facts that decide the steps.
pub(super) struct Settings<'a> {
    pub(super) found: &'a [KubeVip<'a>],
    pub(super) class: Option<&'a str>,
    pub(super) secrets: &'a [Secret],
    pub(super) directory: &'a str,
    pub(super) ferrolb: &'a str,
    /// FerroLB, if it exists already.
    pub(super) installed: Option<&'a Installed>,
    pub(super) has_bgp: bool,
    /// The objects to create.
    pub(super) merged: &'a Merged,
}

impl Settings<'_> {
    pub(super) fn steps(
        &self,
        objects: &Objects,
        services: &[&Value],
        changes: &[Annotations<'_>],
    ) -> Vec<Step> {
        let save = Step::new("save", "Save the addresses", "none")
            .run_all(create_directory(self.directory))
            .run(save_addresses(self.directory));
        let pin = Step::new(
            "pin",
            "Request the present addresses",
            "none: kube-vip does not read FerroLB's annotations",
        )
        .check(unchanged(self.directory))
        .run_all(changes.iter().filter_map(Annotations::command))
        .undo_all(changes.iter().filter_map(Annotations::undo));
        let pin = (!pin.commands.is_empty()).then_some(pin);
        let verify = Step::new("verify", "Compare the addresses", "none")
            .run(compare_addresses(self.directory));
        [Some(save), self.install(), pin]
            .into_iter()
            .flatten()
            .chain([self.stop(objects), self.apply(), verify])
            .chain(finalizers(services))
            .collect()
    }

    /// Without pools, FerroLB leaves Services without a class to the client that has written their
    /// addresses. Services of a class of FerroLB would lose them, so the class follows later.
    fn install(&self) -> Option<Step> {
        let effect = "none: FerroLB keeps addresses that another load balancer has assigned. Create \
            no Services until the last step";
        if let Some(installed) = self.installed {
            return installed.become_default(effect).filter(|_| self.class.is_none());
        }
        let step = Step::new("install", "Install FerroLB without pools", effect)
            .check(before_installation())
            .check(list_pools(self.ferrolb, "none exist"));
        if self.class.is_some() {
            let class = format!("loadBalancerClass={LOAD_BALANCER_CLASS}");
            let bgp = self.has_bgp.then(|| BGP.to_owned());
            let values: Vec<_> = [class].into_iter().chain(bgp).collect();
            let step = step
                .run_all(create_namespace(self.ferrolb))
                .run(helm_install(self.ferrolb, &values));
            return Some(step.undo(helm_uninstall(self.ferrolb)));
        }
        let variant = if self.has_bgp { Variant::Bgp } else { Variant::L2 };
        let step = step.run_all(install(self.ferrolb, variant));
        Some(step.undo_all(uninstall(self.ferrolb)))
    }

    fn stop(&self, objects: &Objects) -> Step {
        let effect = "no node replies for the addresses until the next step; kube-proxy still serves \
            them, so clients that have the MAC address of the node cached continue. With BGP, the \
            routers withdraw the routes";
        let has_control_plane = self.found.iter().any(|it| it.is("cp_enable"));
        let restart = "The pods that restart also hold the control plane's address (cp_enable), so \
            the API server is unreachable there for some seconds when the leader restarts";
        let effect =
            if has_control_plane { format!("{effect}. {restart}") } else { effect.to_owned() };
        let mut step = Step::new("stop", "Stop kube-vip for Services", &effect)
            .check(unchanged(self.directory));
        for provider in objects.of(APPS, "Deployment").filter(|it| name(it) == PROVIDER) {
            let scale = |replicas: u64| {
                let words = format!("deployment {PROVIDER} --replicas={replicas}");
                SCALE.run_in(namespace(provider), words)
            };
            let replicas = provider.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            step = step.run(scale(0)).undo(scale(replicas));
        }
        for set in self.found.iter().filter_map(|it| it.daemonset.as_ref()) {
            let (namespace, set) = (set.namespace(), quoted(set.name()));
            let set_env = |value: &str| {
                SET_ENV.run_in(namespace, format_args!("daemonset/{set} svc_enable={value}"))
            };
            step = step
                .run(set_env("false"))
                .run(ROLLOUT_STATUS.run_in(namespace, format_args!("daemonset/{set}")))
                .undo(set_env("true"));
        }
        if self.found.iter().any(|it| it.daemonset.is_none()) {
            let path = "/etc/kubernetes/manifests/kube-vip.yaml";
            step = step
                .run(Action::ByHand(format!(
                    "on every node with {path}, the leader last: set svc_enable to \"false\" there"
                )))
                .undo(Action::ByHand("set svc_enable to \"true\" there".into()));
        }
        step
    }

    fn apply(&self) -> Step {
        let effect = if self.has_bgp {
            "FerroLB advertises the addresses about 5 s later (estimate)"
        } else {
            "FerroLB announces each address less than 1 s later (estimate)"
        };
        let secrets = self.secrets.iter().map(|secret| {
            // An unset variable fails the command, which would create an empty password.
            let words = format!(
                "secret generic {} --type=kubernetes.io/basic-auth \
                 --from-literal=password=\"${{PASSWORD_{}:?}}\"  # the password of {}",
                secret.name, secret.number, secret.router
            );
            CREATE.run_in(self.ferrolb, words)
        });
        let delete =
            |secret: &Secret| DELETE.run_in(self.ferrolb, format_args!("secret {}", secret.name));
        let step = Step::new("switch", "Create FerroLB's objects", effect)
            .run_all(secrets)
            .undo(stop_controller(self.ferrolb));
        let mut step = self
            .merged
            .apply(step, self.directory, FILE)
            .undo_all(self.secrets.iter().map(delete))
            .undo(Action::ByHand("then undo \"Stop kube-vip for Services\"".into()));
        if self.installed.is_some() {
            let text = "FerroLB's controller remains stopped: without the pools, it would remove \
                the addresses";
            step = step.undo(Action::ByHand(text.into()));
        }
        if let Some(class) = self.class {
            let new = || Installed::side_by_side(self.ferrolb);
            let installation = self.installed.cloned().unwrap_or_else(new);
            step = step.run_all(installation.serve(Some(class)));
        }
        step
    }
}
