//! Executes the actions on silent nodes: marks pods as not Ready, as Kubernetes' node controller
//! does, and restores them. One task, which owns the requests in progress; they are aborted when
//! the leadership term ends or another one begins.
//!
//! The task finds the pods by the EndpointSlices of the affected Services, and patches only the
//! condition `Ready` of a pod. The reason of this condition shows which pods are marked.

mod pods;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_controller_core::desired::{Desired, NodeAction, NodeTask};
use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::node_failure::failures::ActionResult;
use ferrolb_core::rate::TokenBucket;
use ferrolb_proto::Instant;
use ferrolb_proto::api::NODE_SILENT;
use ferrolb_proto::facts::{Key, SERVICE_NAME_LABEL};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::reach;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, timeout};
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use pods::{PodChange, PodRef, Pods, is_restorable};

/// Maximum number of requests that are in progress at the same time.
const REQUESTS_AT_ONCE_MAX: usize = 8;
/// Minimum interval between two patches of pods: at most 200 per second.
const PATCH_INTERVAL: Duration = Duration::from_millis(5);
/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Field manager of the patches.
const FIELD_MANAGER: &str = "ferrolb-node-failure";
/// Message of the condition `Ready` of a marked pod.
const MESSAGE: &str = "the node of this pod does not reply: see the events of the Node";

/// Interval of the connections to kubelets in a cluster of two speakers, and maximum age of one
/// that has reached its kubelet. Without such a connection, a packet filter may drop all of them.
const KUBELET_INTERVAL: Duration = Duration::from_secs(60);
const REACHED_AGE_MAX: Duration = Duration::from_secs(180);

/// The driver. See the module documentation.
#[derive(Clone)]
pub struct NodeFailureDriver {
    client: Client,
    metrics: Arc<Metrics>,
    desired: watch::Receiver<Desired>,
    /// Rate limit of the patches, for all nodes together.
    patches: Arc<Mutex<TokenBucket>>,
    /// Limit of the requests in progress, for all nodes together.
    requests: Arc<Semaphore>,
}

/// A request that has failed.
#[derive(Debug)]
struct RequestFailed;

impl NodeFailureDriver {
    /// Creates the driver that executes the tasks in `desired`.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>, desired: watch::Receiver<Desired>) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS_AT_ONCE_MAX));
        let patches = Arc::new(Mutex::new(TokenBucket::full(PATCH_INTERVAL, 1)));
        Self { client, metrics, desired, patches, requests }
    }

    /// Executes the tasks, and sends the result of each as an event. Ends when the main loop drops
    /// the sender of `desired` or the receiver of `events`.
    pub async fn run(self, events: mpsc::Sender<Event>) {
        let mut desired = self.desired.clone();
        let (mut running, mut probing) = (JoinSet::new(), JoinSet::new());
        let mut started = BTreeMap::<u64, AbortHandle>::new();
        let mut reached = BTreeMap::<SocketAddr, Instant>::new();
        let (mut term, mut kubelets) = (None, Vec::new());
        let mut probes = interval(KUBELET_INTERVAL);
        loop {
            {
                let desired = desired.borrow_and_update();
                let is_wanted = |attempt: u64| {
                    desired.term == term
                        && desired.node_tasks.iter().any(|task| task.attempt == attempt)
                };
                let unwanted = started.extract_if(.., |attempt, _| !is_wanted(*attempt));
                unwanted.for_each(|(_, task)| task.abort());
                term = desired.term;
                if desired.kubelets != kubelets {
                    kubelets.clone_from(&desired.kubelets);
                    probes.reset_immediately();
                }
                for task in &desired.node_tasks {
                    if started.contains_key(&task.attempt) {
                        continue;
                    }
                    let (driver, task, attempt) = (self.clone(), task.clone(), task.attempt);
                    let is_known = task.kubelet().is_some_and(|kubelet| {
                        reached
                            .get(&kubelet)
                            .is_some_and(|at| Clock::now().since(*at) < REACHED_AGE_MAX)
                    });
                    let work = async move { (task.attempt, driver.execute(&task, is_known).await) };
                    started.insert(attempt, running.spawn(work));
                }
            }
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                _ = probes.tick() => {
                    // The kubelets of two speakers remain known after one of them has stopped.
                    reached.retain(|_, at| Clock::now().since(*at) < REACHED_AGE_MAX);
                    for kubelet in kubelets.iter().copied() {
                        probing.spawn(async move { (kubelet, reach::is_silent(kubelet).await) });
                    }
                }
                Some(probed) = probing.join_next() => if let Ok((kubelet, false)) = probed {
                    reached.insert(kubelet, Clock::now());
                },
                Some(ended) = running.join_next() => match ended {
                    Ok((attempt, result)) => {
                        let event = Event::NodeActionEnded { attempt, result };
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
    }

    /// Executes a task. `is_reachable` is true if the kubelet of a [`NodeAction::ProbeKubelet`] has
    /// replied before.
    async fn execute(&self, task: &NodeTask, is_reachable: bool) -> ActionResult {
        let (services, change) = match &task.action {
            NodeAction::ProbeKubelet(kubelet) => {
                let Some(kubelet) = kubelet.filter(|_| is_reachable) else {
                    return ActionResult::KubeletReplied;
                };
                let is_silent = reach::is_silent(kubelet).await;
                return if is_silent { ActionResult::Done } else { ActionResult::KubeletReplied };
            }
            NodeAction::Mark(services) => (&services.0, PodChange::Mark),
            NodeAction::Restore(services) => (&services.0, PodChange::Restore),
        };
        let node = &*task.node;
        match self.patch_all(task, services, change).await {
            Ok(pods) => {
                let change = match change {
                    PodChange::Mark => "marked as not Ready",
                    PodChange::Restore => "restored",
                };
                info!(node, pods, services = services.len(), "pods of a silent node {change}");
                ActionResult::Done
            }
            Err(RequestFailed) => {
                warn!(
                    node,
                    "not all pods of a silent node are patched, retrying: if permissions are \
                     missing, apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
                );
                ActionResult::Failed
            }
        }
    }

    /// Patches the pods of Services on the node of a task. Returns their number.
    async fn patch_all(
        &self,
        task: &NodeTask,
        services: &[Key],
        change: PodChange,
    ) -> Result<usize, RequestFailed> {
        let mut requests = JoinSet::new();
        for pod in self.pods(task, services, change).await?.into_changed() {
            let (driver, attempt) = (self.clone(), task.attempt);
            requests.spawn(async move { driver.patch(attempt, &pod, change).await });
        }
        let results = requests.join_all().await;
        let failed = results.iter().any(Result::is_err);
        let patched = results.iter().filter(|result| matches!(result, Ok(true))).count();
        if failed { Err(RequestFailed) } else { Ok(patched) }
    }

    async fn pods(
        &self,
        task: &NodeTask,
        services: &[Key],
        change: PodChange,
    ) -> Result<Pods, RequestFailed> {
        let mut requests = JoinSet::new();
        for service in services {
            let (driver, task, service) = (self.clone(), task.clone(), service.clone());
            requests.spawn(async move { driver.pods_of(&task, &service, change).await });
        }
        let mut pods = Pods::default();
        for found in requests.join_all().await {
            pods.add(found?);
        }
        Ok(pods)
    }

    async fn pods_of(
        &self,
        task: &NodeTask,
        service: &Key,
        change: PodChange,
    ) -> Result<Pods, RequestFailed> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), service.namespace());
        let label = format!("{SERVICE_NAME_LABEL}={}", service.name());
        let list = ListParams::default().labels(&label);
        let slices = self.send(task.attempt, slices.list(&list)).await?;
        let slices = slices.map(|list| list.items).unwrap_or_default();
        Ok(Pods::select(service.namespace(), &slices, &task.node, change))
    }

    /// Changes the condition `Ready` of a pod. Returns whether it had to be changed.
    async fn patch(
        &self,
        attempt: u64,
        (key, uid): &PodRef,
        change: PodChange,
    ) -> Result<bool, RequestFailed> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace());
        let now = Timestamp::now().to_string();
        let (precondition, condition) = match change {
            PodChange::Mark => (
                json!({"uid": uid}),
                json!({"type": "Ready", "status": "False", "reason": NODE_SILENT,
                    "message": MESSAGE, "lastTransitionTime": now}),
            ),
            PodChange::Restore => {
                let pod = self.send(attempt, pods.get_status(key.name())).await?;
                let Some(pod) = pod.filter(is_restorable) else { return Ok(false) };
                (
                    // The kubelet may write at the same time.
                    json!({"uid": uid, "resourceVersion": pod.metadata.resource_version}),
                    json!({"type": "Ready", "status": "True", "reason": null, "message": null,
                        "lastTransitionTime": now}),
                )
            }
        };
        let patch = json!({"metadata": precondition, "status": {"conditions": [condition]}});
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        self.wait_for_rate_limit().await;
        let patch = Patch::Strategic(patch);
        let patched = self.send(attempt, pods.patch_status(key.name(), &params, &patch)).await?;
        match change {
            _ if patched.is_none() => {}
            PodChange::Mark => _ = self.metrics.pods_marked.inc(),
            PodChange::Restore => _ = self.metrics.pods_restored.inc(),
        }
        Ok(patched.is_some())
    }

    fn may_send(&self, attempt: u64) -> bool {
        let desired = self.desired.borrow();
        let mut tasks = desired.node_tasks.iter();
        tasks.any(|task| task.attempt == attempt && Clock::now() < task.until)
    }

    /// Waits until the next patch is due, of any node.
    async fn wait_for_rate_limit(&self) {
        let mut patches = self.patches.lock().await;
        Clock::sleep_until(Some(patches.ready_at())).await;
        patches.take(Clock::now());
    }

    /// Sends a request of an attempt that is still wanted, before [`NodeTask::until`]. Returns
    /// `None` if the object does not exist, or was replaced, so that it needs no patch.
    async fn send<T>(
        &self,
        attempt: u64,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Option<T>, RequestFailed> {
        let _permit = self.requests.acquire().await;
        if !self.may_send(attempt) {
            return Err(RequestFailed);
        }
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(response)) => Ok(Some(response)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
            // Another pod has the name, or the kubelet has written meanwhile.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            failure => {
                debug!(failed = ?failure.map(|result| result.err()), "request about a silent node");
                Err(RequestFailed)
            }
        }
    }
}

#[cfg(test)]
mod tests;
