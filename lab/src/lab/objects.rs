//! Actions on the cluster's objects.

use super::Lab;
use crate::cluster::{api, apply, pods};
use crate::topology::{POD_PORT, PODS_MAX};
use anyhow::{Context, Result, ensure};
use kube::Client;
use kube::api::{ListParams, Request};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

impl Lab {
    /// Runs `work` in the lab with an API client of the administrator.
    ///
    /// # Errors
    /// If `work` fails.
    pub fn api<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce(Client) -> F + Send,
    ) -> Result<T> {
        api::with_client(&self.state, &self.state.kubeconfig(), work)
    }

    /// Runs `work` like [`Self::api`], with the token of a ServiceAccount: `controller` or
    /// `speaker`.
    ///
    /// # Errors
    /// If `work` fails, or FerroLB is not installed.
    pub fn api_as<T: Send, F: Future<Output = Result<T>>>(
        &self,
        process: &str,
        work: impl FnOnce(Client) -> F + Send,
    ) -> Result<T> {
        api::with_client(
            &self.state,
            &crate::cluster::ferrolb::kubeconfig(&self.state, process),
            work,
        )
    }

    /// Returns an object, or a list of objects, by its path in the API: `/api/v1/services`. A poll
    /// takes milliseconds of processor time; one with kubectl takes a fifth of a second.
    ///
    /// # Errors
    /// If the API server returns an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.api(async |client| {
            let request = Request::new(path).list(&ListParams::default())?;
            client.request(request).await.with_context(|| format!("cannot get {path}"))
        })
    }

    /// Applies the objects of a YAML text.
    ///
    /// # Errors
    /// If the API server rejects an object, with its name and the server's message.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.apply_objects(&apply::objects(yaml)?)
    }

    /// Applies the objects of a YAML file.
    ///
    /// # Errors
    /// See [`Self::apply`].
    pub fn apply_file(&self, path: &Path) -> Result<()> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.apply(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Applies objects.
    ///
    /// # Errors
    /// See [`Self::apply`].
    pub fn apply_objects(&self, objects: &[Value]) -> Result<()> {
        self.api(async |client| apply::apply(&client, objects).await)
    }

    /// Runs a pod named `name` on `node`: a web server on port 8080 that replies with the pod's
    /// name. The pod is ready at once.
    ///
    /// # Errors
    /// If the name is in use, the node does not exist, or the lab is full.
    pub fn pod(&self, name: &str, node: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.pod_on_port(name, node, labels, POD_PORT)
    }

    /// Runs a pod like [`Self::pod`] on another port. The name of the port is `http` in all pods.
    ///
    /// # Errors
    /// See [`Self::pod`].
    pub fn pod_on_port(
        &self,
        name: &str,
        node: &str,
        labels: &[(&str, &str)],
        port: u16,
    ) -> Result<()> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(number < PODS_MAX, "a lab has at most {PODS_MAX} pods");
        let placement =
            pods::start(&self.state, &self.tools.programs.lab, name, (node, number, port))?;
        self.api(async |client| pods::register(&client, name, &placement, labels).await)
    }

    /// Sets the readiness of a pod; its endpoint follows.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn set_ready(&self, pod: &str, ready: bool) -> Result<()> {
        self.api(async |client| pods::set_ready(&client, pod, ready).await)
    }

    /// Deletes a pod like `kubectl delete`: the pod is terminating and keeps serving until
    /// [`Self::remove_pod`] ends it like its kubelet would.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn terminate(&self, pod: &str) -> Result<()> {
        self.api(async |client| pods::terminate(&client, pod).await)
    }

    /// Removes a pod and its web server.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn remove_pod(&self, pod: &str) -> Result<()> {
        self.api(async |client| pods::unregister(&client, pod).await)?;
        pods::stop(&self.state, pod)
    }
}
