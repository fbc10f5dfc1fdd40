//! What a lab's user does to the cluster's objects.

use super::Lab;
use crate::cluster::{api, apply, pods};
use crate::topology::{POD_PORT, PODS_MAX};
use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

impl Lab {
    /// Talks to the API server as the administrator: `work` runs inside the lab with a client of its own.
    ///
    /// # Errors
    /// As `work`.
    pub fn api<T: Send, F: Future<Output = Result<T>>>(&self, work: impl FnOnce(Client) -> F + Send) -> Result<T> {
        api::with_client(&self.state, &self.state.kubeconfig(), work)
    }

    /// [`Self::api`] as another: the kubeconfig with a ServiceAccount's token, `controller` or `speaker`.
    ///
    /// # Errors
    /// As `work`, or when FerroLB was not installed.
    pub fn api_as<T: Send, F: Future<Output = Result<T>>>(
        &self,
        account: &str,
        work: impl FnOnce(Client) -> F + Send,
    ) -> Result<T> {
        api::with_client(&self.state, &crate::cluster::ferrolb::kubeconfig(&self.state, account), work)
    }

    /// Applies the objects of a YAML text.
    ///
    /// # Errors
    /// When one is refused: which, and in the API server's own words why.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.apply_objects(&apply::objects(yaml)?)
    }

    /// Applies the objects of a YAML file.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_file(&self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.apply(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Applies objects.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_objects(&self, objects: &[Value]) -> Result<()> {
        self.api(async |client| apply::apply(&client, objects).await)
    }

    /// Runs a pod named `name` on `node`, a web server on port 8080 that answers with the pod's name. It is ready at once.
    ///
    /// # Errors
    /// When the name is taken, the node is none, or the lab is full.
    pub fn pod(&self, name: &str, node: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.pod_on_port(name, node, labels, POD_PORT)
    }

    /// [`Self::pod`] on a port of its own, which has the same name in all pods: `http`.
    ///
    /// # Errors
    /// As [`Self::pod`].
    pub fn pod_on_port(&self, name: &str, node: &str, labels: &[(&str, &str)], port: u16) -> Result<()> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(number < PODS_MAX, "a lab takes at most {PODS_MAX} pods");
        let place = pods::start(&self.state, &self.tools.programs.lab, name, (node, number, port))?;
        self.api(async |client| pods::register(&client, name, &place, labels).await)
    }

    /// Says that a pod is ready, or is not: its endpoint follows.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn set_ready(&self, pod: &str, ready: bool) -> Result<()> {
        self.api(async |client| pods::set_ready(&client, pod, ready).await)
    }

    /// Deletes a pod as `kubectl delete` does: it is terminating and serves on, until [`Self::remove_pod`] ends it as its kubelet would.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn terminate(&self, pod: &str) -> Result<()> {
        self.api(async |client| pods::terminate(&client, pod).await)
    }

    /// Removes a pod, its web server included.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn remove_pod(&self, pod: &str) -> Result<()> {
        self.api(async |client| pods::unregister(&client, pod).await)?;
        pods::stop(&self.state, pod)
    }
}
