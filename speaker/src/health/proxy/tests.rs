//! Tests of the driver's requests and events with an HTTP server on this host. The tests of
//! [`KubeProxyMonitor`] cover the judgements.

use std::net::Ipv4Addr;

use ferrolb_proto::api::KubeProxyState;
use ferrolb_speaker_core::health::kube_proxy::{Families, KubeProxyContext};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const LIVEZ_HEALTHY: (u16, &str) =
    (200, r#"{"lastUpdated":"2026","healthy":true,"status":{"IPv4":{"healthy":true}}}"#);
const LIVEZ_LATE: (u16, &str) =
    (503, r#"{"lastUpdated":"2026","healthy":false,"status":{"IPv4":{"healthy":false}}}"#);
const ELIGIBLE: (u16, &str) = (200, r#"{"nodeEligible":true}"#);
const INELIGIBLE: (u16, &str) = (503, r#"{"nodeEligible":false}"#);
const NODE_PORT_HEALTHY: (u16, &str) = (503, r#"{"localEndpoints":0,"serviceProxyHealthy":true}"#);
const NOT_FOUND: (u16, &str) = (404, "");

/// Timeout of an expected event on a busy host.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The server's responses by path.
#[derive(Clone, Copy)]
struct Script {
    livez: (u16, &'static str),
    healthz: (u16, &'static str),
    root: (u16, &'static str),
}

const HEALTHY_SCRIPT: Script = Script { livez: LIVEZ_HEALTHY, healthz: ELIGIBLE, root: NOT_FOUND };

/// A server that counts its requests.
struct Server {
    address: SocketAddr,
    script: watch::Sender<Script>,
    requests: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (script, scripts) = watch::channel(script);
        let (count, requests) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let Script { livez, healthz, root } = *scripts.borrow();
                let (status, body) = match head.split(' ').nth(1) {
                    Some("/livez") => livez,
                    Some("/healthz") => healthz,
                    Some("/") => root,
                    _ => NOT_FOUND,
                };
                let response =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(response.as_bytes()).await.unwrap();
                count.send_modify(|count| *count += 1);
            }
        });
        Self { address, script, requests, _task: task }
    }

    /// Waits for this many further requests.
    async fn wait_for_requests(&mut self, more: usize) {
        let before = *self.requests.borrow();
        self.requests.wait_for(|count| *count >= before + more).await.unwrap();
    }
}

/// Returns an address of this machine where nothing listens.
fn unused_address(last_byte: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 1, 1, last_byte), 1).into()
}

/// A running driver and its events.
struct ProxyHarness {
    targets: watch::Sender<ProxyTargets>,
    events: mpsc::Receiver<Event>,
    registry: Registry,
    _task: JoinSet<()>,
}

impl ProxyHarness {
    fn start(mode: KubeProxyMode, servers: &[SocketAddr], node_ports: &[SocketAddr]) -> Self {
        let needed = Families { v4: true, v6: false };
        let context = KubeProxyContext {
            ready: true,
            healthy_elsewhere: false,
            started_without_routes: false,
            needed,
        };
        let targets = ProxyTargets {
            waits_for_rules: false,
            servers: servers.into(),
            health_check_node_ports: node_ports.into(),
            context,
        };
        let (targets, receiver) = watch::channel(targets);
        let (sender, events) = mpsc::channel(16);
        let mut registry = Registry::default();
        let (config, metrics) =
            (KubeProxyConfig { mode, fall: 2, rise: 3 }, ProxyHealthMetrics::new(&mut registry));
        let mut task = JoinSet::new();
        task.spawn(
            ProxyHealthDriver::new(config, Duration::from_millis(1), metrics, sender).run(receiver),
        );
        Self { targets, events, registry, _task: task }
    }

    /// Returns the next judgement other than unknown.
    async fn next_judgement(&mut self) -> KubeProxyHealth {
        loop {
            let event = tokio::time::timeout(EVENT_TIMEOUT, self.events.recv())
                .await
                .expect("an event before the timeout");
            let Some(Event::ProxyHealth(judgement)) = event else {
                panic!("the event is not ProxyHealth")
            };
            if judgement.state != KubeProxyState::Unknown {
                return judgement;
            }
        }
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.contains(&format!("\n{line}"))
    }
}

#[tokio::test]
async fn only_changes_of_kube_proxy_health_are_reported() {
    let mut server = Server::start(HEALTHY_SCRIPT).await;
    let mut driver = ProxyHarness::start(KubeProxyMode::Auto, &[server.address], &[]);
    let first = driver.next_judgement().await;
    assert_eq!((first.state, first.ineligible), (KubeProxyState::Healthy, false));
    assert_eq!(
        *first.message,
        *format!("http://{}/livez reports a healthy kube-proxy", server.address)
    );
    server.wait_for_requests(20).await;
    assert!(driver.events.try_recv().is_err(), "unchanged health causes no event");
    assert!(
        driver.metric("data_path_healthy 1\n")
            && driver.metric("data_path_checks_total{outcome=\"good\"} ")
    );
    server.script.send_replace(Script { livez: LIVEZ_LATE, ..HEALTHY_SCRIPT });
    let late = driver.next_judgement().await;
    assert_eq!(late.state, KubeProxyState::Unhealthy);
    assert!(late.message.contains("the rules of kube-proxy are late for IPv4"), "{}", late.message);
    assert!(
        driver.metric("data_path_healthy 0\n")
            && driver.metric("data_path_checks_total{outcome=\"bad\"} 2\n")
    );
    server.script.send_replace(HEALTHY_SCRIPT);
    assert_eq!(driver.next_judgement().await.state, KubeProxyState::Healthy);
    server.script.send_replace(Script { healthz: INELIGIBLE, ..HEALTHY_SCRIPT });
    let ineligible = driver.next_judgement().await;
    assert_eq!((ineligible.state, ineligible.ineligible), (KubeProxyState::Healthy, true));
}

#[tokio::test]
async fn refusing_servers_are_followed_by_node_ports_in_turn() {
    let server = Server::start(HEALTHY_SCRIPT).await;
    let mut driver =
        ProxyHarness::start(KubeProxyMode::Auto, &[unused_address(1), server.address], &[]);
    let judgement = driver.next_judgement().await;
    assert_eq!(judgement.state, KubeProxyState::Healthy);
    assert!(judgement.message.contains(&server.address.to_string()), "{}", judgement.message);

    let node_port =
        Server::start(Script { root: NODE_PORT_HEALTHY, livez: NOT_FOUND, healthz: NOT_FOUND })
            .await;
    let mut driver = ProxyHarness::start(
        KubeProxyMode::Auto,
        &[unused_address(1), unused_address(2)],
        &[unused_address(3), node_port.address],
    );
    assert_eq!(
        driver.next_judgement().await.state,
        KubeProxyState::NotChecked,
        "nothing listens on the first node port"
    );
    let judgement = driver.next_judgement().await;
    assert_eq!(judgement.state, KubeProxyState::Healthy);
    assert!(
        judgement
            .message
            .starts_with(&format!("nothing listens at http://{}/livez", unused_address(1))),
        "{}",
        judgement.message
    );
    assert!(driver.metric("data_path_checks_total{outcome=\"refused\"} 1\n"));
}

#[tokio::test]
async fn another_program_on_the_port_is_not_kube_proxy() {
    let other_program = Server::start(Script {
        livez: (200, "<html>welcome"),
        healthz: (200, "null"),
        root: NOT_FOUND,
    })
    .await;
    let mut driver = ProxyHarness::start(KubeProxyMode::Required, &[other_program.address], &[]);
    let judgement = driver.next_judgement().await;
    assert_eq!((judgement.state, judgement.ineligible), (KubeProxyState::Unhealthy, false));
    assert!(judgement.message.contains("not from kube-proxy"), "{}", judgement.message);
}

#[tokio::test]
async fn nothing_is_checked_while_off_or_without_targets() {
    let (off, mut on) = (Server::start(HEALTHY_SCRIPT).await, Server::start(HEALTHY_SCRIPT).await);
    let mut off_driver = ProxyHarness::start(KubeProxyMode::Off, &[off.address], &[]);
    let mut waiting = ProxyHarness::start(KubeProxyMode::Auto, &[], &[]);
    let mut checking_driver = ProxyHarness::start(KubeProxyMode::Auto, &[on.address], &[]);
    assert_eq!(off_driver.next_judgement().await.state, KubeProxyState::NotChecked);
    assert_eq!(checking_driver.next_judgement().await.state, KubeProxyState::Healthy);
    on.wait_for_requests(20).await;
    assert_eq!(*off.requests.borrow(), 0);
    assert!(!waiting.metric("data_path_checks_total{"), "no health check was counted");
    waiting.targets.send_modify(|targets| targets.servers = [on.address].into());
    assert_eq!(waiting.next_judgement().await.state, KubeProxyState::Healthy);
}

#[tokio::test]
async fn a_changed_context_changes_the_judgement_between_rounds() {
    let mut driver = ProxyHarness::start(KubeProxyMode::Auto, &[unused_address(1)], &[]);
    assert_eq!(driver.next_judgement().await.state, KubeProxyState::NotChecked);
    driver.targets.send_modify(|targets| targets.context.healthy_elsewhere = true);
    assert_eq!(driver.next_judgement().await.state, KubeProxyState::Unhealthy);
    let (ended, events) = (driver.targets, &mut driver.events);
    drop(ended);
    assert!(events.recv().await.is_none(), "the driver has ended");
}

#[tokio::test]
async fn a_kube_proxy_that_does_not_respond_in_time_is_counted() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut driver = ProxyHarness::start(KubeProxyMode::Required, &[address], &[]);
    let judgement = driver.next_judgement().await;
    assert!(judgement.message.contains("no response within 1000 ms"), "{}", judgement.message);
    assert!(driver.metric("data_path_checks_total{outcome=\"timeout\"} 1\n"));
}
